"""The relay's own certificate, and how an agent knows its relay, by real handshakes."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from srrrs.net.pins import format_pin, parse_pin, spki_pin
from srrrs.net.selfsigned import LIFETIME, RENEW_BEFORE, ServerIdentity, make_certificate
from srrrs.net.tls import ServerContext
from srrrs.net.tlsclient import client_connection_creator, explain_tls_failure

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
SECRET = b"GET /tunnel HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(
    name: str = "relay.example", begins: datetime = NOW - DAY, ends: datetime = NOW + DAY
) -> tuple[ServerContext, str]:
    """A server with a certificate of its own, and its pin."""
    key = new_key()
    certificate = make_certificate(key, [x509.DNSName(name)], begins, ends)
    return ServerContext(key, [certificate]), spki_pin(certificate)


def signed_by_authority(path: Path, name: str = "relay.example") -> ServerContext:
    """A server with a certificate of an authority, whose own is written to ``path``."""
    authority, key = new_key(), new_key()
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])

    def build(subject: x509.Name, public: Any, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer, subject, public, x509.random_serial_number(), NOW - DAY, NOW + DAY
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(authority, hashes.SHA256())

    root = build(issuer, authority.public_key(), x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    leaf = build(x509.Name([]), key.public_key(), names)
    path.write_bytes(root.public_bytes(Encoding.PEM))
    return ServerContext(key, [leaf])


class Echo(Protocol):
    """Answers; keeps what it got."""

    def __init__(self, got: bytearray) -> None:
        self.got = got

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        assert self.transport is not None
        self.transport.write(b"welcome")
        self.transport.loseConnection()


class Client(Protocol):
    """Sends a secret as soon as there is a connection, as an agent does."""

    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[Failure] = Deferred()
        self.alpn: bytes | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(SECRET)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.alpn = self.transport.negotiatedProtocol  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # A Deferred that fires with a Failure errs; this one tells.
        self.done.callback((reason,))  # type: ignore[arg-type]


class Outcome:
    """How a connection went: what each side got, and the line for people."""

    def __init__(self, client: Client, got: bytearray, reason: Failure) -> None:
        self.answer = client.data
        self.alpn = client.alpn
        self.got = bytes(got)
        self.why = explain_tls_failure(reason)
        self.reason = reason

    def refused(self) -> str:
        """The reason; nothing of the application may have travelled."""
        assert self.got == b""
        assert self.answer == b""
        assert self.why is not None
        return self.why


@asynccontextmanager
async def listening(factory: Factory) -> AsyncIterator[int]:
    from twisted.internet import reactor

    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


async def talk(
    server: Any,
    host: str = "relay.example",
    ca_file: Path | None = None,
    pin: str | None = None,
) -> Outcome:
    """Connect once; the host is only what the client asks for, the connection is to loopback."""
    from twisted.internet import reactor

    clock: Any = reactor
    got = bytearray()
    inner: Any = Factory.forProtocol(lambda: Echo(got))
    wrapped: Any = TLSMemoryBIOFactory(server, False, inner, clock)
    ended: Deferred[None] = Deferred()

    class Watching(Factory):
        """Waits until the server's end is gone too, so that nothing is left behind."""

        def buildProtocol(self, addr: Any) -> Any:
            protocol = wrapped.buildProtocol(addr)
            lost: Callable[[Failure], None] = protocol.connectionLost

            def connection_lost(reason: Failure) -> None:
                lost(reason)
                ended.callback(None)

            protocol.connectionLost = connection_lost
            return protocol

    async with listening(Watching()) as number:
        creator = client_connection_creator(host, ca_file, pin)
        endpoint = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, "127.0.0.1", number))
        client = await endpoint.connect(Factory.forProtocol(Client))
        (reason,) = await client.done  # type: ignore[attr-defined]
        await ended
    return Outcome(client, got, reason)  # type: ignore[arg-type]


# --- the relay's identity ------------------------------------------------------------------


def test_identity_is_made_once(tmp_path: Path) -> None:
    """A restart finds the same key and certificate, so that the pin stays; the key is private."""
    first = ServerIdentity.self_signed(tmp_path, "example.org")
    again = ServerIdentity.self_signed(tmp_path, "example.org")
    assert again.pin == first.pin == spki_pin(first.certificate)
    assert again.certificate == first.certificate
    assert stat.S_IMODE((tmp_path / "tls.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tls.crt", "tls.key"]


def test_identity_names(tmp_path: Path) -> None:
    """The certificate is for the domain, the relay's name under it, and every service."""
    certificate = ServerIdentity.self_signed(tmp_path, "example.org").certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "example.org",
        "relay.example.org",
        "*.example.org",
    ]


def test_identity_of_an_address(tmp_path: Path) -> None:
    """Where the domain is an address, the certificate is for that."""
    certificate = ServerIdentity.self_signed(tmp_path, "2001:db8::1").certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("2001:db8::1")]


def test_a_new_certificate_keeps_the_pin(tmp_path: Path) -> None:
    """Another domain, or an end that is near, makes another certificate for the same key."""
    first = ServerIdentity.self_signed(tmp_path, "example.org")
    moved = ServerIdentity.self_signed(tmp_path, "example.net")
    late = NOW + LIFETIME - RENEW_BEFORE + DAY
    renewed = ServerIdentity.self_signed(tmp_path, "example.net", late)
    assert first.pin == moved.pin == renewed.pin
    assert len({each.certificate.serial_number for each in (first, moved, renewed)}) == 3
    assert renewed.certificate.not_valid_after_utc > late + LIFETIME - DAY


@pytest.mark.parametrize("name", ["tls.key", "tls.crt"])
def test_a_spoilt_file_is_named(tmp_path: Path, name: str) -> None:
    """A file that holds something else is an error that names it; it is not overwritten."""
    ServerIdentity.self_signed(tmp_path, "example.org")
    (tmp_path / name).write_text("nonsense")
    with pytest.raises(ValueError, match=name):
        ServerIdentity.self_signed(tmp_path, "example.org")
    assert (tmp_path / name).read_text() == "nonsense"


@pytest.mark.parametrize("digest", [bytes(range(32)), b"\xff" * 32])
def test_pins(digest: bytes) -> None:
    """A pin reads in base64, with or without its prefix and padding, and in hex; also one that
    begins with slashes."""
    text = format_pin(digest)
    assert text.startswith("sha256:")
    bare = text.removeprefix("sha256:")
    hexadecimal = digest.hex()
    for each in (text, bare, bare.rstrip("="), f"//{bare}", f"sha256://{bare}", hexadecimal):
        assert parse_pin(each) == digest
    for each in (f"sha256:{hexadecimal.upper()}", f"//{hexadecimal}"):
        assert parse_pin(each) == digest
    for wrong in ("", "sha256:", "sha256:AAAA", "sha256:" + "z" * 44, "md5:" + "0" * 64):
        with pytest.raises(ValueError, match="pin"):
            parse_pin(wrong)


def test_pin_is_that_of_openssl() -> None:
    """The pin is SHA-256 over the DER of the SubjectPublicKeyInfo (RFC 7469, 2.4)."""
    certificate = make_certificate(new_key(), [x509.DNSName("a.example")], NOW, NOW + DAY)
    from OpenSSL import crypto

    public = crypto.X509.from_cryptography(certificate).get_pubkey()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(crypto.dump_publickey(crypto.FILETYPE_ASN1, public))
    assert spki_pin(certificate) == format_pin(digest.finalize())


# --- handshakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["example.org", "relay.example.org", "calm-otter.example.org"])
@pytest_twisted.ensureDeferred
async def test_the_right_pin(tmp_path: Path, host: str) -> None:
    """With the pin, a self-signed relay is known under each of its names."""
    identity = ServerIdentity.self_signed(tmp_path, "example.org")
    outcome = await talk(identity.context, host, pin=identity.pin)
    assert (outcome.got, outcome.answer, outcome.why) == (SECRET, b"welcome", None)
    assert outcome.alpn == b"http/1.1"
    assert outcome.reason.check(ConnectionDone)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_the_right_pin_of_an_address(tmp_path: Path, address: str) -> None:
    """A relay that has no name is known by its address; another address is refused."""
    identity = ServerIdentity.self_signed(tmp_path, address)
    assert (await talk(identity.context, address, pin=identity.pin)).answer == b"welcome"
    outcome = await talk(identity.context, "127.0.0.9", pin=identity.pin)
    assert outcome.refused() == f"the relay's certificate is for {address}, not for 127.0.0.9"


@pytest_twisted.ensureDeferred
async def test_the_right_pin_of_a_single_label(tmp_path: Path) -> None:
    """A domain of one label works too, although a wildcard under it may not."""
    identity = ServerIdentity.self_signed(tmp_path, "box")
    assert (await talk(identity.context, "box", pin=identity.pin)).answer == b"welcome"


@pytest_twisted.ensureDeferred
async def test_a_wrong_pin() -> None:
    """Another key than the pinned one is refused, and both pins are shown."""
    server, pin = self_signed()
    other = format_pin(bytes(32))
    why = (await talk(server, pin=other)).refused()
    assert why == f"the relay's key has the pin {pin}, not {other} as expected"


@pytest_twisted.ensureDeferred
async def test_a_wrong_pin_under_a_trusted_chain(tmp_path: Path) -> None:
    """A pin is not satisfied by a good chain."""
    server = signed_by_authority(tmp_path / "ca.pem")
    outcome = await talk(server, ca_file=tmp_path / "ca.pem", pin=format_pin(bytes(32)))
    assert "pin" in outcome.refused()


@pytest_twisted.ensureDeferred
async def test_a_wrong_name_under_the_right_pin() -> None:
    """The pin does not stand in for the name."""
    server, pin = self_signed("other.example")
    why = (await talk(server, pin=pin)).refused()
    assert why == "the relay's certificate is for other.example, not for relay.example"


@pytest_twisted.ensureDeferred
async def test_expired_under_the_right_pin() -> None:
    """The pin does not stand in for the dates."""
    server, pin = self_signed(begins=NOW - 9 * DAY, ends=NOW - 2 * DAY)
    why = (await talk(server, pin=pin)).refused()
    assert why == f"the relay's certificate expired on {NOW - 2 * DAY:%Y-%m-%d}"


@pytest_twisted.ensureDeferred
async def test_not_yet_valid_under_the_right_pin() -> None:
    """A certificate from the future makes one look at the clock."""
    server, pin = self_signed(begins=NOW + 2 * DAY, ends=NOW + 9 * DAY)
    assert "is the clock right?" in (await talk(server, pin=pin)).refused()


@pytest_twisted.ensureDeferred
async def test_self_signed_without_a_pin() -> None:
    """With neither pin nor authority a self-signed relay is refused."""
    server, _ = self_signed()
    why = (await talk(server)).refused()
    assert why.startswith("the relay's certificate is not signed by an authority")


@pytest_twisted.ensureDeferred
async def test_a_ca_file(tmp_path: Path) -> None:
    """The authorities of a file are trusted, for the right name only, and in place of others."""
    server = signed_by_authority(tmp_path / "ca.pem")
    assert (await talk(server, ca_file=tmp_path / "ca.pem")).answer == b"welcome"
    outcome = await talk(server, "other.example", tmp_path / "ca.pem")
    assert "is for relay.example, not for other.example" in outcome.refused()
    signed_by_authority(tmp_path / "another.pem")
    outcome = await talk(server, ca_file=tmp_path / "another.pem")
    assert "not signed by an authority" in outcome.refused()


@pytest_twisted.ensureDeferred
async def test_the_relays_own_certificate_as_ca_file(tmp_path: Path) -> None:
    """A self-signed certificate can be given as the file instead of its pin."""
    identity = ServerIdentity.self_signed(tmp_path, "example.org")
    outcome = await talk(identity.context, "example.org", tmp_path / "tls.crt")
    assert outcome.answer == b"welcome"


@pytest_twisted.ensureDeferred
async def test_expired_without_a_pin(tmp_path: Path) -> None:
    """An expired certificate is refused where its chain is trusted."""
    key = new_key()
    certificate = make_certificate(
        key, [x509.DNSName("relay.example")], NOW - 9 * DAY, NOW - 2 * DAY
    )
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    outcome = await talk(ServerContext(key, [certificate]), ca_file=tmp_path / "ca.pem")
    assert "expired on" in outcome.refused()


@pytest_twisted.ensureDeferred
async def test_old_versions_are_refused_by_the_client() -> None:
    """A relay that has no TLS 1.2 is refused."""
    from zope.interface import implementer

    key = new_key()
    certificate = make_certificate(key, [x509.DNSName("relay.example")], NOW - DAY, NOW + DAY)

    @implementer(IOpenSSLServerConnectionCreator)
    class Old:
        def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            context.set_max_proto_version(SSL.TLS1_1_VERSION)
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
            context.use_privatekey(key)
            context.use_certificate(certificate)
            return SSL.Connection(context, None)

    outcome = await talk(Old(), pin=spki_pin(certificate))
    assert outcome.refused() == "the two sides have no version or cipher of TLS in common"


@pytest.mark.parametrize(
    ("version", "accepted"), [(SSL.TLS1_1_VERSION, False), (SSL.TLS1_2_VERSION, True)]
)
@pytest_twisted.ensureDeferred
async def test_old_versions_are_refused_by_the_server(version: int, accepted: bool) -> None:
    """The relay speaks TLS 1.2 and later only."""
    server, _ = self_signed()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(context, None)
    client.set_connect_state()
    other = server.serverConnectionForTLS(None)  # type: ignore[arg-type]
    other.set_accept_state()
    assert shake(client, other) is accepted


def test_alpn_falls_back_to_none() -> None:
    """A client that offers other protocols only gets no answer, and a connection."""
    server, _ = self_signed()
    for offered, chosen in (([b"h2"], b""), ([b"h2", b"http/1.1"], b"http/1.1")):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos(offered)
        client = SSL.Connection(context, None)
        client.set_connect_state()
        other = server.serverConnectionForTLS(None)  # type: ignore[arg-type]
        other.set_accept_state()
        assert shake(client, other)
        assert client.get_alpn_proto_negotiated() == chosen


def shake(client: SSL.Connection, server: SSL.Connection) -> bool:
    """Whether a handshake in memory succeeds."""
    done: set[SSL.Connection] = set()
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                done.add(one)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return False
            try:
                other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                pass
    return len(done) == 2


@pytest_twisted.ensureDeferred
async def test_no_tls_at_all() -> None:
    """What does not speak TLS is named so."""

    class Plain(Echo):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.transport.loseConnection()

    from twisted.internet import reactor

    async with listening(Factory.forProtocol(lambda: Plain(bytearray()))) as number:
        creator = client_connection_creator("relay.example", pin=format_pin(bytes(32)))
        endpoint = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, "127.0.0.1", number))
        client: Any = await endpoint.connect(Factory.forProtocol(Client))
        (reason,) = await client.done
    assert explain_tls_failure(reason) == "what answers there does not speak TLS"


def test_other_failures_are_not_explained() -> None:
    """What is not TLS's doing is left to others."""
    assert explain_tls_failure(Failure(ConnectionDone())) is None
    assert explain_tls_failure(Failure(socket.gaierror())) is None


def test_a_useless_ca_file(tmp_path: Path) -> None:
    """A CA file that is missing or holds nothing is said at once, with its name."""
    with pytest.raises(OSError, match=r"none\.pem"):
        client_connection_creator("a.example", tmp_path / "none.pem")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ValueError, match=r"empty\.pem"):
        client_connection_creator("a.example", tmp_path / "empty.pem")


def test_contexts_are_kept(tmp_path: Path) -> None:
    """Dialling the same relay again takes the same context; another relay, another pin or a new CA
    file takes another."""
    first = tmp_path / "ca.pem"
    signed_by_authority(first)

    def by_file() -> Any:
        return client_connection_creator("a.example", first)

    def by_pin(host: str, number: int) -> Any:
        return client_connection_creator(host, pin=format_pin(bytes([number]) * 32))

    kept = by_file()
    assert by_file() is kept
    replacement = tmp_path / "new.pem"
    signed_by_authority(replacement)
    replacement.replace(first)
    assert by_file() is not kept
    pinned = by_pin("a.example", 1)
    assert by_pin("a.example", 1) is pinned
    assert by_pin("a.example", 2) is not pinned
    assert by_pin("b.example", 1) is not pinned
    by_system = client_connection_creator("a.example")
    assert client_connection_creator("a.example") is not by_system
