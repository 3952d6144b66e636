"""Certificates for relays under test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from srrrs.net.pins import spki_pin
from srrrs.net.selfsigned import make_certificate


def write_certificate(folder: Path, name: str, *, expired: bool = False) -> tuple[str, str]:
    """Make a key and a self-signed certificate for a host name.

    :return: the ``ssl:`` listener's string for them, and the pin of the key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    start = datetime.now(UTC) - timedelta(days=10)
    certificate = make_certificate(key, names, start, start + timedelta(days=5 if expired else 100))
    key_path, certificate_path = folder / "own.key", folder / "own.crt"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return (
        f"ssl:0:privateKey={key_path}:certKey={certificate_path}:interface=127.0.0.1",
        spki_pin(certificate),
    )


def write_pair(folder: Path, stem: str, *names: str) -> Path:
    """Make ``STEM.crt`` and ``STEM.key`` for host names, each put in place whole; the first."""
    folder.mkdir(exist_ok=True, parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC) - timedelta(days=10)
    certificate = make_certificate(
        key, [x509.DNSName(name) for name in names], start, start + timedelta(days=100)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    for kind, content in (("key", private), ("crt", public)):
        new = folder / f".{stem}.{kind}"
        new.write_bytes(content)
        new.rename(folder / f"{stem}.{kind}")
    return folder / f"{stem}.crt"
