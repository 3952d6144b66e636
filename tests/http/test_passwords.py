"""Passwords of basic authentication."""

from __future__ import annotations

import base64

import pytest

from srrrs.http.passwords import (
    MAX_CREDENTIALS,
    STAND_IN,
    credentials,
    hash_password,
    is_hash,
    verify,
)


def test_a_hash_knows_its_password_and_no_other() -> None:
    """Each has a salt of its own."""
    stored = hash_password("correct horse")
    assert is_hash(stored)
    assert "horse" not in stored
    assert stored != hash_password("correct horse")
    assert verify(stored, b"correct horse")
    assert not verify(stored, b"correct horse ")


def test_nobody_has_the_stand_ins_password() -> None:
    """It costs as much as a real one."""
    assert is_hash(STAND_IN)
    assert not verify(STAND_IN, b"")


@pytest.mark.parametrize(
    "text", ["", "secret", "scrypt-20-8-1$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="]
)
def test_no_other_cost_is_paid(text: str) -> None:
    """Whoever registers a service cannot make the relay work harder."""
    assert not is_hash(text)


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"Basic " + encoded("alice:secret"), ("alice", b"secret")),
        (b"basic   " + encoded("alice:a:b"), ("alice", b"a:b")),
        (b"BASIC " + encoded(":"), ("", b"")),
        (b"Basic " + encoded("zoë:café"), ("zoë", "café".encode())),
        (b"Basic " + encoded("alice"), None),
        (b"Basic", None),
        (b"", None),
        (b"Bearer abc", None),
        (b"Basic !!!", None),
        (b"Basic " + encoded("alice:secret")[:-1], None),
        (b"Basic " + base64.b64encode(b"\xff:x"), None),
        (b"Basic " + encoded("a:" + "b" * MAX_CREDENTIALS), None),
    ],
)
def test_credentials(value: bytes, found: tuple[str, bytes] | None) -> None:
    """RFC 7617, 2: the first colon ends the user; UTF-8."""
    assert credentials(value) == found
