"""TLS: the relay's own certificate, and how an agent knows its relay.

An agent checks chain, host name and dates, always. A pin (the SHA-256 of the certificate's
SubjectPublicKeyInfo, RFC 7469, 2.4) stands in for the chain only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from service_identity.exceptions import CertificateError as SubjectError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

KEY_FILE: Final = "relay.key"
CERTIFICATE_FILE: Final = "relay.crt"
LIFETIME: Final = timedelta(days=3650)
"""Of a self-signed certificate: agents know it by its pin, and check the dates."""
RENEW_BEFORE: Final = timedelta(days=90)
"""A certificate with less life than this is made anew, with the same key and so the same pin."""


class PeerRejected(Exception):
    """The relay's certificate is not one to trust; one line that says why."""


def spki_pin(certificate: x509.Certificate) -> str:
    """``sha256:`` and the base64 of the SHA-256 of the SubjectPublicKeyInfo (RFC 7469, 2.4)."""
    return "sha256:" + base64.b64encode(_spki_digest(certificate)).decode()


def _spki_digest(certificate: x509.Certificate) -> bytes:
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()


# --- the relay's side -------------------------------------------------------------------------


class ServerIdentity:
    """A key and a certificate that the relay made for itself.

    :ivar pin: what agents are given to know it by.
    :ivar context: for ``TLSMemoryBIOFactory``: TLS 1.2 and later.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.certificate = certificate
        self.pin = spki_pin(certificate)
        self.context = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )

    @classmethod
    def self_signed(cls, data_dir: Path, domain: str) -> ServerIdentity:
        """The one kept in the data folder, or a new one; the key, once made, stays.

        :raises OSError: the files cannot be read or written.
        :raises ValueError: they do not hold a key and a certificate.
        """
        key_path, certificate_path = data_dir / KEY_FILE, data_dir / CERTIFICATE_FILE
        key: Any
        if key_path.exists():
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            _write_private(
                key_path,
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            )
        names = _alternative_names(domain)
        certificate = None
        if certificate_path.exists():
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        if certificate is None or not _is_good(certificate, key, names):
            certificate = make_certificate(key, domain, names)
            _write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(key, certificate)


def make_certificate(
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    names: list[x509.GeneralName],
    start: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> x509.Certificate:
    """A self-signed server certificate (RFC 5280)."""
    start = start or datetime.now(UTC) - timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _alternative_names(domain: str) -> list[x509.GeneralName]:
    try:
        return [x509.IPAddress(ip_address(domain))]
    except ValueError:
        names: list[x509.GeneralName] = [x509.DNSName(domain)]
        if "." in domain:  # Verifiers refuse "*.localhost" and the like (RFC 6125, 7.2).
            names += [x509.DNSName(f"*.{domain}")]
        return names


def _is_good(certificate: x509.Certificate, key: Any, names: list[x509.GeneralName]) -> bool:
    if certificate.public_key() != key.public_key():
        return False
    if certificate.not_valid_after_utc - datetime.now(UTC) < RENEW_BEFORE:
        return False
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(extension.value) == names


def _write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, with mode 0600."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    draft.replace(path)


# --- the agent's side -------------------------------------------------------------------------


def parse_pin(pin: str) -> bytes:
    """The 32 bytes of a pin: ``sha256:`` (or nothing) and base64 or hexadecimal.

    :raises ValueError: it is none.
    """
    text = pin.removeprefix("sha256:")
    raw = bytes.fromhex(text) if len(text) == 64 else base64.b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError("a pin is 32 bytes")
    return raw


def client_connection_creator(
    host: str, *, ca_file: Path | None = None, pin: str | None = None
) -> IOpenSSLClientConnectionCreator:
    """What ``wrapClientTLS`` needs to dial a relay.

    :param ca_file: PEM certificates trusted instead of the system's.
    :param pin: stands in for the chain; name and dates are checked all the same.
    :raises OSError: the CA file cannot be read.
    :raises ValueError: it holds no certificate, or the pin is none.
    """
    if pin is not None:
        options = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2)
        return _ClientTLS(options.getContext, host, parse_pin(pin))
    if ca_file is None:
        root: Any = platformTrust()
    else:
        try:
            found = x509.load_pem_x509_certificates(ca_file.read_bytes())
        except ValueError:
            raise ValueError(f"{ca_file} holds no PEM certificate") from None
        root = trustRootFromCertificates(
            [Certificate(crypto.X509.from_cryptography(each)) for each in found]
        )
    options = CertificateOptions(trustRoot=root, raiseMinimumTo=TLSVersion.TLSv1_2)
    return _ClientTLS(options.getContext, host, None)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTLS:
    def __init__(self, context: Callable[[], SSL.Context], host: str, pin: bytes | None) -> None:
        self._context = context
        self._host = host
        self._pin = pin
        self._is_ip = _is_ip(host)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N803
        connection = SSL.Connection(self._context(), None)
        if not self._is_ip:
            connection.set_tlsext_host_name(self._host.encode("idna"))

        def verify(_: SSL.Connection, cert: crypto.X509, error: int, depth: int, ok: int) -> bool:
            try:
                if self._pin is None and not ok:
                    raise PeerRejected(_CHAIN.get(error, f"its certificate is bad ({error})"))
                if depth == 0:
                    self._check(cert.to_cryptography())
            except PeerRejected:
                tlsProtocol.failVerification(Failure())
                return False
            return True

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _check(self, certificate: x509.Certificate) -> None:
        """Pin, dates and name. :raises PeerRejected: one of them is wrong."""
        if self._pin is not None:
            digest = _spki_digest(certificate)
            if not hmac.compare_digest(digest, self._pin):
                raise PeerRejected(f"its key is not the pinned one: it has {spki_pin(certificate)}")
        now = datetime.now(UTC)
        if now > certificate.not_valid_after_utc:
            raise PeerRejected(_CHAIN[10])
        if now < certificate.not_valid_before_utc:
            raise PeerRejected(_CHAIN[9])
        try:
            if self._is_ip:
                verify_certificate_ip_address(certificate, self._host)
            else:
                verify_certificate_hostname(certificate, self._host.encode("idna").decode())
        except (VerificationError, SubjectError):
            raise PeerRejected(f"its certificate is not for {self._host}") from None


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


_CHAIN: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed; give its --pin, or the issuer as --ca-file",
    19: "its certificate comes from an issuer that is not trusted",
    20: "its certificate comes from an issuer that is not trusted",
    21: "its certificate comes from an issuer that is not trusted",
    26: "its certificate is not for a server",
}
"""Verification errors of OpenSSL (``x509_vfy.h``) in words."""


def explain_tls_failure(failure: Failure) -> str | None:
    """Why a TLS handshake failed, in a line; ``None`` where the failure is not TLS's."""
    problem = failure.value
    if isinstance(problem, PeerRejected):
        return str(problem)
    if isinstance(problem, VerificationError):
        return "its certificate is for another name"
    if isinstance(problem, SSL.Error):
        reasons = [str(entry[-1]) for entry in (problem.args[0] if problem.args else []) if entry]
        reason = reasons[-1] if reasons else "the handshake failed"
        if "wrong version number" in reason or "packet length" in reason:
            return "it does not speak TLS there (is it ws:// rather than wss://?)"
        return reason
    return None
