"""TLS: the relay's own certificate, and how an agent knows its relay.

Without a pin the chain, the dates and the name are checked, always. With one, the pin (RFC 7469,
2.4: SHA-256 of the SubjectPublicKeyInfo) stands in for the chain alone: the name and the dates are
still checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.address import is_ip_address

LIFETIME: Final = timedelta(days=3650)
"""How long a self-signed certificate is valid: agents know it by its key, and renewing it takes
no more than a restart."""
RENEW_BEFORE: Final = timedelta(days=365)
"""A restart renews a certificate that has less left than this; its key, and so its pin, stays."""
BACKDATED: Final = timedelta(days=1)
"""For devices whose clock is a little behind."""
KEY_FILE: Final = "tls.key"
CERTIFICATE_FILE: Final = "tls.crt"
ALPN: Final = b"http/1.1"
"""The only protocol spoken inside TLS (RFC 7301, 6)."""
CONTEXTS_KEPT: Final = 8
"""Clients' contexts, each for a relay."""
MAX_COMMON_NAME: Final = 64
"""Characters (RFC 5280, appendix A.1, ub-common-name)."""

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325, 4.2). TLS 1.3 has no
others."""

_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""For TLS 1.3: all that OpenSSL has by default, in the order of RFC 8446, 9.1, instead of by key
size."""


# --- the relay ---------------------------------------------------------------------------


class ServerIdentity:
    """A key and its certificate, as the relay shows them.

    :ivar pin: what agents can know it by, ``sha256:<base64>``.
    :ivar context: makes the server's end of TLS connections.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate
        self.pin = spki_pin(certificate)
        self.context: IOpenSSLServerConnectionCreator = ServerContext(key, [certificate])

    @classmethod
    def self_signed(
        cls, data_dir: Path, domain: str, now: datetime | None = None
    ) -> ServerIdentity:
        """The identity kept in ``data_dir``, made there the first time.

        The key (mode 0600) is made once; the certificate is made again when the domain has changed
        or its end is near.

        :param domain: a DNS name, or an IP address; a name's subdomains are covered too.
        :raises OSError: it cannot be read or written.
        :raises ValueError: what is there is no usable key or certificate.
        """
        now = datetime.now(UTC) if now is None else now
        key = _kept_key(data_dir / KEY_FILE)
        path = data_dir / CERTIFICATE_FILE
        names = _subject_alternative_names(domain)
        if path.exists():
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
            except ValueError:
                raise ValueError(f"{path} holds no certificate") from None
            if _still_good(certificate, key, names, now):
                return cls(key, certificate)
        certificate = make_certificate(key, names, now - BACKDATED, now + LIFETIME)
        _write(path, certificate.public_bytes(Encoding.PEM), 0o644)
        return cls(key, certificate)


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        return key
    try:
        loaded = load_pem_private_key(text, None)
    except (ValueError, TypeError):
        raise ValueError(f"{path} holds no private key") from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds a key of another kind than the relay makes")
    return loaded


def _write(path: Path, content: bytes, mode: int) -> None:
    """Put a whole file in place, or none: never half of one, never readable by others first."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _subject_alternative_names(domain: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ip_address(domain.strip("[]")))]
    except ValueError:
        names = [domain, f"relay.{domain}"]
        if "." in domain:
            # A wildcard directly under a top-level name makes clients refuse the whole certificate.
            names.append(f"*.{domain}")
        return [x509.DNSName(name) for name in names]


def make_certificate(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    not_before: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """A self-signed end-entity certificate for ``names``."""
    common = str(names[0].value)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common)] if len(common) <= MAX_COMMON_NAME else []
    )
    public = key.public_key()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        # An empty subject makes the names critical (RFC 5280, 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName(names), critical=not len(subject.rdns))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _still_good(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    now: datetime,
) -> bool:
    if certificate.public_key() != key.public_key():
        return False
    try:
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return list(shown.value) == list(names) and begins <= now < ends - RENEW_BEFORE


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes the server's end of TLS connections: TLS 1.2 or later, nothing that is out of use.

    :param chain: the certificate first, then those that vouch for it.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> None:
        context = _context(SSL.TLS_SERVER_METHOD)
        context.use_privatekey(key)
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_session_id(os.urandom(32))
        context.set_alpn_select_callback(_select)
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def _select(_: SSL.Connection, offered: list[bytes]) -> Any:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_cipher_list(_CIPHERS)
    prefer_fast_ciphers(context)
    # Thousands of idle connections: their buffers are given back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def prefer_fast_ciphers(context: SSL.Context) -> None:
    """Put the fastest of TLS 1.3's ciphers, all of which are safe, first.

    Before pyOpenSSL 25.2 OpenSSL's own order stays.
    """
    choose = getattr(context, "set_tls13_ciphersuites", None)
    if choose is not None:
        choose(_SUITES)


# --- pins --------------------------------------------------------------------------------

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_PIN_LENGTH: Final = 43
"""Characters of base64 of 32 bytes, without the padding."""


def spki_pin(certificate: x509.Certificate) -> str:
    """``sha256:`` and the base64 of the hash of a certificate's SubjectPublicKeyInfo."""
    return format_pin(_spki_hash(certificate))


def format_pin(digest: bytes) -> str:
    """A pin as it is shown and pasted."""
    return f"sha256:{base64.b64encode(digest).decode()}"


def parse_pin(text: str) -> bytes:
    """The 32 bytes of a pin: ``sha256:`` (may be left out) and base64, or 64 hex digits.

    :raises ValueError: it is neither.
    """
    value = text.strip().removeprefix("sha256:").rstrip("=")
    if len(value) != _PIN_LENGTH:
        # As some write it. A digest may begin like this, too.
        value = value.removeprefix("//")
    if _HEX.fullmatch(value):
        return bytes.fromhex(value)
    try:
        digest = base64.b64decode(value + "=", validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("a pin is sha256: and the base64 of 32 bytes")
    return digest


def _spki_hash(certificate: x509.Certificate) -> bytes:
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).digest()


# --- the agent ---------------------------------------------------------------------------


class CertificateProblem(SSL.Error):
    """The relay's certificate is not accepted; ``str()`` is one line that says why."""

    def __init__(self, why: str) -> None:
        # As OpenSSL's own errors look, for those who handle both.
        super().__init__([("srrrs", "", why)])
        self.why = why

    def __str__(self) -> str:
        return self.why


def client_connection_creator(
    host: str, ca_file: Path | str | None = None, pin: str | None = None
) -> IOpenSSLClientConnectionCreator:
    """Makes the agent's end of TLS connections to ``host``, which has to prove who it is.

    :param host: a DNS name or an IP address, as the user wrote it.
    :param ca_file: PEM file of the authorities to trust instead of the system's.
    :param pin: what stands in for the chain: see :func:`parse_pin`.
    :raises OSError: the file cannot be read.
    :raises ValueError: it holds no certificate, or the pin is none.
    """
    if pin is not None:
        return _kept_context(host, None, None, parse_pin(pin))
    if ca_file is not None:
        status = Path(ca_file).stat()
        return _kept_context(
            host, ca_file, (status.st_ino, status.st_size, status.st_mtime_ns), None
        )
    # The system's authorities lie in many places, and may change: they are read each time.
    return ClientContext(host, None, None)


@lru_cache(maxsize=CONTEXTS_KEPT)
def _kept_context(
    host: str, ca_file: Path | str | None, version: tuple[int, ...] | None, pin: bytes | None
) -> ClientContext:
    """A context costs a third of what a handshake does. An agent that dials again, and another one
    to the same relay, get the same; ``version`` tells of a new file."""
    return ClientContext(host, ca_file, pin)


@implementer(IOpenSSLClientConnectionCreator)
class ClientContext:
    """See :func:`client_connection_creator`.

    The chain is judged by OpenSSL during the handshake; name, pin and a pinned certificate's dates
    when the handshake is done and before any byte of the application has left.
    """

    def __init__(self, host: str, ca_file: Path | str | None, pin: bytes | None) -> None:
        self._host = host.strip("[]").rstrip(".")
        self._pin = pin
        self._is_address = is_ip_address(self._host)
        context = _context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([ALPN])
        context.set_verify(SSL.VERIFY_PEER, _judge if pin is None else _leave_to_pin)
        if pin is None:
            _trust(context, ca_file)
        context.set_info_callback(self._progress)
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(tlsProtocol)
        if not self._is_address:  # RFC 6066, 3: no literals.
            connection.set_tlsext_host_name(_ascii(self._host).encode())
        return connection

    def _progress(self, connection: SSL.Connection, where: int, _: int) -> None:
        if not where & SSL.SSL_CB_HANDSHAKE_DONE:
            return
        try:
            self._check(connection)
        except Exception:
            # An exception from here is lost in OpenSSL: whatever it is, the connection ends.
            protocol = cast(TLSMemoryBIOProtocol, connection.get_app_data())
            protocol.failVerification(Failure())

    def _check(self, connection: SSL.Connection) -> None:
        shown = connection.get_peer_certificate()
        if shown is None:
            raise CertificateProblem("the relay showed no certificate")
        certificate = shown.to_cryptography()
        if self._pin is not None:
            actual = _spki_hash(certificate)
            if actual != self._pin:
                raise CertificateProblem(
                    f"the relay's key has the pin {format_pin(actual)}, "
                    f"not {format_pin(self._pin)} as expected"
                )
            _check_dates(certificate, datetime.now(UTC))
        try:
            if self._is_address:
                verify_ip_address(connection, self._host)
            else:
                verify_hostname(connection, _ascii(self._host))
        except (VerificationError, CertificateError):
            raise CertificateProblem(
                f"the relay's certificate is for {_names_of(certificate)}, not for {self._host}"
            ) from None


def _trust(context: SSL.Context, ca_file: Path | str | None) -> None:
    if ca_file is None:
        context.set_default_verify_paths()
        return
    try:
        certificates = x509.load_pem_x509_certificates(Path(ca_file).read_bytes())
    except ValueError:
        raise ValueError(f"{ca_file} holds no PEM certificates") from None
    store = context.get_cert_store()
    assert store is not None
    for certificate in certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))


def _judge(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, good: int) -> bool:
    """OpenSSL's verdict on a certificate of the chain, in words where it is a bad one."""
    if good:
        return True
    if error in (_NOT_YET_VALID, _EXPIRED) and depth == 0:
        _check_dates(shown.to_cryptography(), datetime.now(UTC))
    raise CertificateProblem(_VERDICTS.get(error, f"the relay's certificate is refused ({error})"))


def _leave_to_pin(_: SSL.Connection, _c: crypto.X509, _e: int, _d: int, _g: int) -> bool:
    return True


def _check_dates(certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise CertificateProblem(f"the relay's certificate expired on {ends:%Y-%m-%d}")
    if now < begins:
        raise CertificateProblem(
            f"the relay's certificate is valid from {begins:%Y-%m-%d} on: is the clock right?"
        )


_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = "the relay's certificate is not signed by an authority that is trusted here"
_VERDICTS: Final = {
    # X509_V_ERR_…, x509_vfy.h.
    2: _UNTRUSTED,
    7: _UNTRUSTED,
    _NOT_YET_VALID: "a certificate of the relay's chain is not valid yet: is the clock right?",
    _EXPIRED: "a certificate of the relay's chain has expired",
    18: f"{_UNTRUSTED}: it is self-signed, and no pin was given",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "the relay's certificate was revoked",
    24: "the relay's certificate is signed by one that may not sign others",
    26: "the relay's certificate is not one for servers",
}


def _ascii(host: str) -> str:
    """A DNS name in its ASCII form (RFC 5890); one that has none stays as it is."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host.encode("ascii", "replace").decode()


def _names_of(certificate: x509.Certificate) -> str:
    try:
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "no name at all"
    names = [str(name.value) for name in shown if isinstance(name, x509.DNSName | x509.IPAddress)]
    names = [name for name in names if name.isprintable()]
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "no name at all"


_NO_COMMON: Final = "the two sides have no version or cipher of TLS in common"
_NOT_TLS: Final = "what answers there does not speak TLS"
_REASONS: Final = {
    "unsupported protocol": _NO_COMMON,
    "no protocols available": _NO_COMMON,
    "no shared cipher": _NO_COMMON,
    "alert protocol version": _NO_COMMON,
    "alert handshake failure": _NO_COMMON,
    "alert insufficient security": _NO_COMMON,
    "alert no application protocol": _NO_COMMON,
    "no application protocol": _NO_COMMON,
    "wrong version number": _NOT_TLS,
    "packet length too long": _NOT_TLS,
    "record layer failure": _NOT_TLS,
    "http request": _NOT_TLS,
    "unrecognized name": "the relay does not know the name that was asked for",
    "certificate required": "the relay asks for a client certificate",
    "dh key too small": "the relay's TLS is too weak",
    "ee key too small": "the relay's key is too short",
    "ca md too weak": "the relay's certificate is signed by a hash that is out of use",
}


def explain_tls_failure(failure: Failure) -> str | None:
    """One line that says why TLS failed; ``None`` where something else did."""
    problem = failure.value
    if isinstance(problem, CertificateProblem):
        return problem.why
    if not isinstance(problem, SSL.Error):
        return None
    queue = problem.args[0] if problem.args else None
    reason = str(queue[-1][-1]) if isinstance(queue, list) and queue else ""
    for key, words in _REASONS.items():
        if key in reason.lower():
            return words
    return f"TLS failed: {reason or 'for no reason that OpenSSL gives'}"
