"""The relay's own certificate: self-signed, made on its first run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

from srrrs.net.pins import spki_pin
from srrrs.net.tls import ServerContext

LIFETIME: Final = timedelta(days=3650)
"""How long a self-signed certificate is valid: agents know it by its key, and renewing it takes
no more than a restart."""
RENEW_BEFORE: Final = timedelta(days=365)
"""A restart renews a certificate that has less left than this; its key, and so its pin, stays."""
BACKDATED: Final = timedelta(days=1)
"""For devices whose clock is a little behind."""
KEY_FILE: Final = "tls.key"
CERTIFICATE_FILE: Final = "tls.crt"
MAX_COMMON_NAME: Final = 64
"""Characters (RFC 5280, appendix A.1, ub-common-name)."""


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
