"""Policies: what they may say, and that they come through a registration as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.http.passwords import hash_password
from srrrs.http.policy import (
    MAX_EDITS,
    MAX_NETWORKS,
    MAX_USERS,
    Policy,
    PolicyError,
    Rate,
    decode,
    encode,
    format_rate,
    parse_edit,
    parse_host,
    parse_network,
    parse_rate,
)
from srrrs.protocol.frames import MAX_POLICY

HASH = hash_password("secret", b"0123456789abcdef")

FULL = Policy(
    users={"alice": HASH},
    allow=(parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")),
    deny=(parse_network("192.0.2.7"),),
    rate=parse_rate("10/s:50"),
    total_rate=parse_rate("1000/h"),
    host="localhost:3000",
    request_fields=(parse_edit("X-A: b: c"), parse_edit("+X-B: d"), parse_edit("-Cookie")),
    response_fields=(parse_edit("-Set-Cookie"),),
    max_body=0,
)


def test_a_policy_comes_through_a_registration() -> None:
    """As JSON and back it is the same, and it says what kinds of things it asks for."""
    assert decode(json.loads(json.dumps(encode(FULL)))) == FULL
    assert FULL.asks() == {"basic-auth", "ip", "rate", "host", "headers", "body"}
    assert encode(Policy()) == {}
    assert Policy().asks() == frozenset()


def test_no_secret_shows() -> None:
    """Neither a hash nor a field's value is in a policy's text, which may come into a log."""
    policy = Policy(users={"alice": HASH}, request_fields=(parse_edit("X-Key: hush"),))
    assert HASH not in repr(policy)
    assert "hush" not in repr(policy)


@pytest.mark.parametrize(
    "members",
    [
        {"unknown": 1},
        {"basic_auth": {}},
        {"basic_auth": {"alice": "secret"}},
        {"basic_auth": {"alice": HASH.replace("14-8-1", "20-8-1")}},
        {"basic_auth": {"a:b": HASH}},
        {"basic_auth": {"alice": 1}},
        {"basic_auth": {f"u{n}": HASH for n in range(MAX_USERS + 1)}},
        {"basic_auth": ["alice"]},
        {"allow": "192.0.2.0/24"},
        {"allow": []},
        {"allow": [1]},
        {"deny": ["192.0.2.1/24"]},
        {"deny": ["example.com"]},
        {"deny": ["192.0.2.1"] * (MAX_NETWORKS + 1)},
        {"rate": 10},
        {"rate": "0/s"},
        {"rate": "10/d"},
        {"rate": "10/s:0"},
        {"rate": "9999999/s"},
        {"total_rate": "-1/s"},
        {"host": ""},
        {"host": "a b"},
        {"host": "example.com\r\nX: y"},
        {"request_headers": ["X-A: b"] * (MAX_EDITS + 1)},
        {"request_headers": ["X-A: b\r\nX-C: d"]},
        {"response_headers": ["Set-Cookie: a=b; Domain=example.com"]},
        {"max_body": -1},
        {"max_body": True},
        {"max_body": "1"},
    ],
)
def test_what_cannot_be_is_refused(members: dict[str, Any]) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(PolicyError) as caught:
        decode(members)
    assert "\n" not in str(caught.value)
    assert HASH not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Connection: close", "Content-Length: 1", "-Content-Length", "Transfer-Encoding: chunked",
        "Host: x", "-Host", "X-Forwarded-For: 1.2.3.4", "-X-Forwarded-Proto", "Forwarded: for=x",
        "X-Request-Id: 1", "Upgrade: x", "TE: trailers", "Trailer: x", "Keep-Alive: 1",
        "Proxy-Connection: close", "Proxy-Authorization: x", "Expect: 100-continue", "Via: x",
        "Sec-WebSocket-Key: x", "Alt-Svc: h3", "X-Real-IP: ::1", "Proxy: x", "-X-A: b", ": x",
        "X_Forwarded_For: x", "X-A", "X-A:", "X-A: ",
        "X A: b", "X-A: b\x00", "X-A: \xe9", "X-A: a\nb", "+", "-", "",
    ],
)  # fmt: skip
def test_fields_that_agents_may_not_change(text: str) -> None:
    """What says where a message ends, who asked, or how a connection is used; and what is none."""
    with pytest.raises(PolicyError):
        parse_edit(text)


def test_edits() -> None:
    edits = [parse_edit(text) for text in ("X-A:  b c ", "+x-a: d", "-Server")]
    assert [(each.how, each.name, each.value) for each in edits] == [
        ("set", b"x-a", b"b c"),
        ("add", b"x-a", b"d"),
        ("remove", b"server", b""),
    ]
    assert [str(each) for each in edits] == ["x-a: b c", "+x-a: d", "-server"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3000", "[::1]:80", "a_b.example.com"])
def test_hosts(host: str) -> None:
    assert parse_host(host) == host.lower()


def test_networks() -> None:
    """An IPv4 network in IPv6's clothes is an IPv4 network."""
    assert str(parse_network("::ffff:192.0.2.0/120")) == "192.0.2.0/24"
    assert str(parse_network("192.0.2.1")) == "192.0.2.1/32"


def test_only_http_has_more_than_networks_and_rates() -> None:
    for kind in ("tcp", "ssh", "tls"):
        Policy(deny=(parse_network("::/0"),), rate=parse_rate("1/s")).check_kind(kind)
        with pytest.raises(PolicyError, match="basic-auth"):
            FULL.check_kind(kind)
    FULL.check_kind("http")


@given(st.integers(1, 1_000_000), st.sampled_from("smh"), st.none() | st.integers(1, 1_000_000))
def test_rates(count: int, unit: str, burst: int | None) -> None:
    """Without a burst as many as the rate says may come at once."""
    rate = parse_rate(f"{count}/{unit}" + ("" if burst is None else f":{burst}"))
    assert rate == Rate(count, {"s": 1.0, "m": 60.0, "h": 3600.0}[unit], burst or count)
    assert parse_rate(format_rate(rate)) == rate


def test_the_largest_that_is_likely_fits() -> None:
    """Twenty users and a hundred networks."""
    policy = Policy(
        users={f"user-{n}": HASH for n in range(20)},
        allow=tuple(parse_network(f"2001:db8:{n:x}::/48") for n in range(100)),
    )
    assert len(json.dumps(encode(policy), separators=(",", ":"))) < MAX_POLICY
