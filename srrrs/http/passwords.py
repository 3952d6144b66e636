"""Passwords of basic authentication (RFC 7617): as hashes, and compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Final

_SCHEME: Final = "scrypt-14-8-1"
# RFC 7914, 2: 2**14 rounds of 8 blocks take 16 MiB and some 30 ms.
_N: Final = 2**14
_R: Final = 8
_P: Final = 1
_SALT: Final = 16
_HASH: Final = 32
_STORED: Final = re.compile(re.escape(_SCHEME) + r"\$[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=")

MAX_CREDENTIALS: Final = 1024
"""Bytes of an Authorization field that are looked at."""
STAND_IN: Final = f"{_SCHEME}${'A' * 22}==${'A' * 43}="
"""What an unknown user's password is compared with, so that the time tells nobody who is known."""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """A password as it is kept: scrypt's parameters, a salt and the hash. Takes some 30 ms.

    :param salt: 16 bytes; default: random ones.
    """
    salt = os.urandom(_SALT) if salt is None else salt
    parts = (base64.b64encode(each).decode() for each in (salt, _scrypt(password.encode(), salt)))
    return "$".join((_SCHEME, *parts))


def is_hash(text: str) -> bool:
    """Whether a text is what :func:`hash_password` makes. No other cost is ever paid for it."""
    return _STORED.fullmatch(text) is not None


def verify(stored: str, password: bytes) -> bool:
    """Whether a password is the one that was hashed. As slow as that, and lets other threads run.

    :param stored: for which :func:`is_hash` holds.
    """
    _, salt, wanted = stored.split("$")
    found = _scrypt(password, base64.b64decode(salt))
    return hmac.compare_digest(found, base64.b64decode(wanted))


def credentials(value: bytes) -> tuple[str, bytes] | None:
    """User and password of an Authorization field, or None where it holds none (RFC 7617, 2)."""
    scheme, _, rest = value.strip(b" \t").partition(b" ")
    if len(value) > MAX_CREDENTIALS or scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(b" "), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _scrypt(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=_N, r=_R, p=_P, dklen=_HASH, maxmem=2 * 128 * _N * _R
    )
