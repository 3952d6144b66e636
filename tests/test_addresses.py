"""IP addresses: however one is written, it is the same one."""

from __future__ import annotations

import pytest

from srrrs.addresses import parse_address


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
    ],
)
def test_addresses(text: str, plain: str) -> None:
    """IPv4 is IPv4 in either spelling, and a zone is this machine's affair."""
    assert str(parse_address(text)) == plain


@pytest.mark.parametrize("text", ["", "a.example", "192.0.2", "192.0.2.1:80", "[::1]", "caf\xe9"])
def test_what_is_none(text: str) -> None:
    assert parse_address(text) is None
