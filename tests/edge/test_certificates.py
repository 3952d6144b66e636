"""A folder of certificates: which one is shown, and what becomes of new and of broken files."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.logger import Logger

from srrrs.net.selfsigned import ServerIdentity, make_certificate
from srrrs.relay.edge.certificates import MAX_FILE, Certificates

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)
H2 = (b"h2", b"http/1.1")


def wall() -> float:
    return NOW.timestamp()


def write(
    folder: Path, name: str, *names: str, days: float = 90, key: Any = None, live: bool = False
) -> x509.Certificate:
    """Put a pair into the folder."""
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    certificate = make_certificate(
        ec.generate_private_key(ec.SECP256R1())
        if not isinstance(key, ec.EllipticCurvePrivateKey)
        else key,
        [x509.DNSName(each) for each in names],
        NOW - 99 * DAY,
        NOW + days * DAY,
    )
    if live:
        (folder / name).mkdir(parents=True)
    chain = folder / name / "fullchain.pem" if live else folder / f"{name}.crt"
    own = folder / name / "privkey.pem" if live else folder / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(Encoding.PEM))
    own.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate


class Talk:
    """A handshake in memory."""

    def __init__(
        self,
        certificates: Certificates,
        name: str | None,
        protocols: tuple[bytes, ...] = (),
        session: Any = None,
        context: SSL.Context | None = None,
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD) if context is None else context
        if protocols:
            context.set_alpn_protos(list(protocols))
        self.client = SSL.Connection(context, None)
        if name is not None:
            self.client.set_tlsext_host_name(name.encode())
        if session is not None:
            self.client.set_session(session)
        self.client.set_connect_state()
        tls: Any = None
        self.server = certificates.serverConnectionForTLS(tls)
        self.server.set_accept_state()
        for _ in range(4):
            for here, there in ((self.client, self.server), (self.server, self.client)):
                try:
                    here.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    there.bio_write(here.bio_read(65536))
                except SSL.WantReadError:
                    pass
        for end in (self.client, self.server):
            with pytest.raises(SSL.WantReadError):
                end.recv(1)  # Takes the tickets.

    @property
    def shown(self) -> x509.Certificate:
        certificate = self.client.get_peer_certificate()
        assert certificate is not None
        return certificate.to_cryptography()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as an error."""
    lines: list[str] = []

    def error(self: Logger, form: str, **values: Any) -> None:
        lines.append(form.format(**values))

    monkeypatch.setattr(Logger, "error", error)
    return lines


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("a.example", "a"),
        ("A.Example", "a"),
        ("b.a.example", "wild"),
        ("c.b.a.example", "default"),
        ("exact.a.example", "exact"),
        ("old.example", "new"),
        ("nobody.example", "default"),
        ("example", "default"),
        (None, "default"),
    ],
)
def test_the_name_decides(tmp_path: Path, asked: str | None, expected: str) -> None:
    """The whole name before a wildcard, which is one label; the one valid longer of two; else the
    default. The names are those that the certificate says."""
    made = {
        "a": write(tmp_path, "a", "a.example"),
        "wild": write(tmp_path, "0-wild", "*.A.example"),
        "exact": write(tmp_path, "exact", "exact.a.example", live=True),
        "old": write(tmp_path, "1-old", "old.example", days=30),
        "new": write(tmp_path, "2-new", "x.example", "old.example", days=60),
        "default": write(tmp_path, "default", "other.example", live=True),
    }
    certificates = Certificates(tmp_path, wall)
    talk = Talk(certificates, asked)
    assert talk.shown == made[expected]
    assert talk.client.get_protocol_version_name() == "TLSv1.3"
    assert certificates.covers("b.a.example")
    assert not certificates.covers("nobody.example")


def test_the_default_is_that_of_the_domain(tmp_path: Path) -> None:
    """Where none is called so; and without one for it, the first."""
    first = write(tmp_path, "a", "a.example")
    other = write(tmp_path, "b", "relay.example")
    assert Talk(Certificates(tmp_path, wall, domain="relay.example"), None).shown == other
    assert Talk(Certificates(tmp_path, wall, domain="x.example"), None).shown == first


def test_protocols_after_a_change_of_certificate(tmp_path: Path) -> None:
    """What is spoken inside does not depend on the certificate; a stranger's protocol is left."""
    write(tmp_path, "a", "a.example")
    write(tmp_path, "b", "b.example")
    certificates = Certificates(tmp_path, wall, H2)
    for name in ("a.example", "b.example", None):
        for offered, expected in (
            ((b"http/1.1", b"h2"), b"h2"),
            ((b"http/1.1",), b"http/1.1"),
            ((b"x",), b""),
            ((), b""),
        ):
            assert Talk(certificates, name, offered).client.get_alpn_proto_negotiated() == expected


def test_what_binds_an_agent_to_its_connection(tmp_path: Path) -> None:
    """Both ends derive the same secret, after a change of certificate too (RFC 9266)."""
    write(tmp_path, "a", "a.example")
    write(tmp_path, "b", "b.example")
    talk = Talk(Certificates(tmp_path, wall), "b.example")
    secrets = {
        end.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        for end in (talk.client, talk.server)
    }
    assert len(secrets) == 1


def test_sessions_are_resumed(tmp_path: Path) -> None:
    """By the same name, whichever certificate it has."""
    write(tmp_path, "a", "a.example")
    write(tmp_path, "b", "b.example")
    certificates = Certificates(tmp_path, wall)
    for name in ("a.example", "b.example"):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        first = Talk(certificates, name, context=context)
        again = Talk(certificates, name, session=first.client.get_session(), context=context)
        assert SSL._lib.SSL_session_reused(again.client._ssl)  # type: ignore[attr-defined]


def test_coalesced_names(tmp_path: Path) -> None:
    """A connection may carry requests for the hosts of the certificate that it was shown."""
    write(tmp_path, "a", "a.example", "*.a.example")
    write(tmp_path, "b", "b.example")
    certificates = Certificates(tmp_path, wall)
    assert certificates.same("a.example", "x.a.example")
    assert certificates.same(None, "b.example")
    assert not certificates.same("a.example", "b.example")
    assert certificates.same("nobody.example", "a.example")  # The default is a's.


def test_the_relays_own(tmp_path: Path) -> None:
    """Shown at the hosts where agents know it by its pin, and where nothing else is."""
    folder = tmp_path / "tls"
    folder.mkdir()
    site = write(folder, "site", "relay.example", "*.relay.example")
    identity = ServerIdentity.self_signed(tmp_path, "relay.example", NOW)
    certificates = Certificates(folder, wall)
    certificates.add_own(identity, frozenset({"relay.example"}))
    for name, expected in (
        ("relay.example", identity.certificate),
        ("site.relay.example", site),
        ("nobody.example", identity.certificate),
        (None, identity.certificate),
    ):
        assert Talk(certificates, name).shown == expected
    assert certificates.covers("relay.example")
    assert not certificates.same("site.relay.example", "relay.example")


def test_nothing_to_show(tmp_path: Path) -> None:
    """An empty folder is no mistake: the first certificate may need the relay to be there."""
    certificates = Certificates(tmp_path, wall)
    assert not certificates.usable
    write(tmp_path, "a", "a.example")
    certificates.look()
    assert certificates.usable


def test_a_new_one_is_taken(tmp_path: Path) -> None:
    """Also behind a link, as certbot renews; and one that goes is used no more."""
    archive = tmp_path / "archive"
    archive.mkdir()
    first = write(archive, "1", "a.example")
    second = write(archive, "2", "a.example")
    live = tmp_path / "live"
    (live / "a").mkdir(parents=True)

    def link(number: int) -> None:
        for name, kind in (("fullchain.pem", "crt"), ("privkey.pem", "key")):
            (live / "a" / "new").symlink_to(archive / f"{number}.{kind}")
            (live / "a" / "new").rename(live / "a" / name)

    link(1)
    certificates = Certificates(live, wall)
    assert Talk(certificates, "a.example").shown == first
    link(2)
    assert Talk(certificates, "a.example").shown == first
    certificates.look()
    assert Talk(certificates, "a.example").shown == second
    (live / "a" / "privkey.pem").unlink()
    certificates.look()
    assert not certificates.usable


def garble(folder: Path) -> None:
    (folder / "a.crt").write_text("nothing")


def cut(folder: Path) -> None:
    (folder / "a.crt").write_bytes((folder / "a.crt").read_bytes()[:200])


def mismatch(folder: Path) -> None:
    write(folder.parent, "other", "a.example")
    (folder / "a.crt").write_bytes((folder.parent / "other.crt").read_bytes())


def no_key(folder: Path) -> None:
    (folder / "a.key").write_text("")


def too_long(folder: Path) -> None:
    (folder / "a.crt").write_bytes(bytes(MAX_FILE + 1))


def no_file(folder: Path) -> None:
    (folder / "a.crt").unlink()
    (folder / "a.crt").symlink_to("nowhere")


@pytest.mark.parametrize("breaks", [garble, cut, mismatch, no_key, too_long, no_file])
def test_a_broken_one_changes_nothing(tmp_path: Path, said: list[str], breaks: Any) -> None:
    """It is said in one line, once, and what was in use stays so; a good one is taken again."""
    folder = tmp_path / "tls"
    folder.mkdir()
    first = write(folder, "a", "a.example")
    other = write(folder, "b", "b.example")
    certificates = Certificates(folder, wall)
    breaks(folder)
    for _ in range(3):
        certificates.look()
    (line,) = said
    assert "a.crt cannot be used" in line
    assert "\n" not in line
    assert Talk(certificates, "a.example").shown == first
    assert Talk(certificates, "b.example").shown == other
    (folder / "a.crt").unlink()
    again = write(folder, "a", "a.example")
    certificates.look()
    assert Talk(certificates, "a.example").shown == again
    assert len(said) == 1


def test_broken_ones_at_the_start(tmp_path: Path, said: list[str]) -> None:
    """The others are used all the same."""
    write(tmp_path, "a", "a.example")
    garble(tmp_path)
    write(tmp_path, "c", "c.example", key=ed25519.Ed25519PrivateKey.generate())
    other = write(tmp_path, "b", "b.example")
    certificates = Certificates(tmp_path, wall)
    assert len(said) == 2
    assert Talk(certificates, "a.example").shown == other


def test_what_is_no_pair(tmp_path: Path, said: list[str]) -> None:
    """Other files, and folders too deep, are nobody's business."""
    write(tmp_path, "a", "a.example")
    (tmp_path / "README").write_text("x")
    (tmp_path / "lonely.crt").write_text("x")
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden", "h", "h.example")
    write(tmp_path / "one" / "two", "deep", "deep.example", live=True)
    certificates = Certificates(tmp_path, wall)
    assert not said
    assert not certificates.covers("deep.example")
    assert not certificates.covers("h.example")


def test_a_folder_that_goes(tmp_path: Path, said: list[str]) -> None:
    """What is in use stays so, as for a broken file."""
    folder = tmp_path / "tls"
    folder.mkdir()
    write(folder, "a", "a.example")
    certificates = Certificates(folder, wall)
    os.rename(folder, tmp_path / "gone")
    certificates.look()
    certificates.look()
    assert certificates.covers("a.example")
    assert len(said) == 1


def test_rsa(tmp_path: Path) -> None:
    """Authorities give these, too."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "a.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "a.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    assert Talk(Certificates(tmp_path, wall), "a.example").shown == certificate
