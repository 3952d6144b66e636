"""Pins: how a server is known by its key, without an authority (RFC 7469, 2.4)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_PIN_LENGTH: Final = 43
"""Characters of base64 of 32 bytes, without the padding."""


def spki_pin(certificate: x509.Certificate) -> str:
    """``sha256:`` and the base64 of the hash of a certificate's SubjectPublicKeyInfo."""
    return format_pin(spki_hash(certificate))


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


def spki_hash(certificate: x509.Certificate) -> bytes:
    """SHA-256 of a certificate's SubjectPublicKeyInfo."""
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).digest()
