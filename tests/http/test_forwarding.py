"""Which fields go on, and what the relay says of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.http.forwarding import (
    Forwarder,
    narrow_cookie,
    response_fields,
    trailer_fields,
    visitor_address,
)
from srrrs.http.head import Fields, ResponseHead
from tests.http.corpus import CHUNKED, HOST, get, lines, ok
from tests.http.test_readers import read_head, read_response

OWN: Fields = [
    (b"host", b"a.example"),
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-forwarded-proto", b"http"),
    (b"x-forwarded-host", b"a.example"),
    (b"forwarded", b"for=192.0.2.1;host=a.example;proto=http"),
    (b"x-request-id", b"c-1"),
]


def passed(
    *fields: str | bytes,
    line: str = "GET / HTTP/1.1",
    host: str = HOST,
    address: str = "192.0.2.1",
    secure: bool = False,
    trusted: bool = False,
) -> Fields:
    """What a service is sent of these."""
    head = read_head(lines(line, host, *fields))
    forwarder = Forwarder(address, secure, trusted)
    return forwarder.request_fields(head, forwarder.request_id(head, b"c-1"))


def beside_own(*fields: str | bytes, **more: str) -> Fields:
    """What goes on of these, without what is always said."""
    assert [each for each in passed(*fields) if each in OWN] == OWN
    return [each for each in passed(*fields) if each not in OWN]


def test_what_is_said_of_every_visitor() -> None:
    assert passed() == OWN


def test_fields_go_on_in_their_order() -> None:
    assert beside_own("Cookie: a=b", "X-B: 2", "X-A: 1", "X-B: 1") == [
        (b"cookie", b"a=b"),
        (b"x-b", b"2"),
        (b"x-a", b"1"),
        (b"x-b", b"1"),
    ]


@pytest.mark.parametrize(
    "field",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "Proxy-Authenticate: Basic",
        "TE: trailers, gzip",
        "Trailer: X",
        "Upgrade: websocket",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "Proxy: http://evil.example",
        "Content-Length: 0",
        "Expect: 100-continue",
        "Connection: close",
        "X_Forwarded_For: 203.0.113.1",
        "Content_Length: 5",
        "_: 1",
    ],
)
def test_what_never_goes_on(field: str) -> None:
    """What is this hop's alone (RFC 9110, 7.6.1), and what could be taken for another field."""
    assert beside_own(field) == []


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 203.0.113.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b.example",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Client-Cert: x",
        "Forwarded: for=203.0.113.1",
        "X-Real-IP: 203.0.113.1",
        "X-Request-Id: 1",
    ],
)
def test_what_nobody_is_believed(field: str) -> None:
    """A visitor's word about itself is replaced, or dropped."""
    assert beside_own(field) == []


def test_what_connection_names_goes_no_further() -> None:
    """Before ours is added: a visitor can take away nothing that the relay says."""
    fields = beside_own(
        "X-A: 1",
        "X-B: 1",
        "Cookie: a=b",
        "Connection: x-a, Cookie, X-Forwarded-For, host, Forwarded",
    )
    assert fields == [(b"x-b", b"1")]


def test_who_can_take_trailers_says_so() -> None:
    """Where Connection names it (RFC 9110, 10.1.4)."""
    assert beside_own("TE: gzip, Trailers", "Connection: TE") == [(b"te", b"trailers")]
    assert beside_own("TE: gzip", "Connection: TE") == []


def test_what_announces_a_body_goes_on_with_it() -> None:
    fields = passed("Expect: 100-Continue", "Trailer: X-Sum", CHUNKED, line="POST / HTTP/1.1")
    assert (b"expect", b"100-continue") in fields
    assert (b"trailer", b"X-Sum") in fields


def test_a_host_with_a_port_is_quoted_where_it_must_be() -> None:
    """RFC 7239, 4: a colon is in no token."""
    fields = dict(passed(host="Host: A.example:8000", secure=True, address="2001:db8::1"))
    assert fields[b"host"] == b"A.example:8000"
    assert fields[b"forwarded"] == b'for="[2001:db8::1]";host="A.example:8000";proto=https'
    assert fields[b"x-forwarded-for"] == b"2001:db8::1"
    assert fields[b"x-forwarded-proto"] == b"https"


def test_a_visitor_without_an_address() -> None:
    fields = dict(passed(address=""))
    assert fields[b"forwarded"] == b"for=unknown;host=a.example;proto=http"
    assert b"x-forwarded-for" not in fields


def test_an_ipv4_address_in_an_ipv6_one_is_shown_as_what_it_is() -> None:
    assert dict(passed(address="::ffff:192.0.2.9"))[b"x-forwarded-for"] == b"192.0.2.9"


def test_a_trusted_proxy_is_believed() -> None:
    """Its lists are added to, the rest is kept."""
    fields = passed(
        "X-Forwarded-For: 203.0.113.1, 198.51.100.2",
        "X-Forwarded-For: 198.51.100.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Port: 443",
        "Forwarded: for=203.0.113.1;proto=https",
        "X-Request-Id: abc",
        "X-Real-IP: 203.0.113.1",
        trusted=True,
    )
    said = dict(fields)
    assert said[b"x-forwarded-for"] == b"203.0.113.1, 198.51.100.2, 198.51.100.3, 192.0.2.1"
    assert said[b"x-forwarded-proto"] == b"https"
    assert said[b"x-forwarded-host"] == b"shop.example"
    assert said[b"x-forwarded-port"] == b"443"
    assert said[b"x-real-ip"] == b"203.0.113.1"
    assert said[b"x-request-id"] == b"abc"
    assert said[b"forwarded"] == (
        b"for=203.0.113.1;proto=https, for=192.0.2.1;host=a.example;proto=http"
    )
    assert len(said) == len(fields)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["X-Forwarded-For: 203.0.113.1"], b"for=203.0.113.1;host=a.example;proto=http"),
        (
            ["X-Forwarded-For: 203.0.113.1", "X-Forwarded-Proto: https"],
            b"for=203.0.113.1;host=a.example;proto=https",
        ),
        (
            ["X-Forwarded-For: 2001:db8::1, 198.51.100.7:80", "X-Forwarded-Host: b.example:1"],
            b'for="[2001:db8::1]";host="b.example:1";proto=http, for=198.51.100.7',
        ),
        (
            ["X-Forwarded-For: who knows", 'X-Forwarded-Host: "; for=1']
            + ["X-Forwarded-Proto: a;b"],
            b"for=unknown",
        ),
    ],
)
def test_forwarded_tells_what_a_trusted_proxy_told_otherwise(given: list[str], told: bytes) -> None:
    """Both tell the same story, whichever of the two a proxy speaks."""
    fields = dict(passed(*given, trusted=True))
    assert fields[b"forwarded"] == told + b", for=192.0.2.1;host=a.example;proto=http"


def test_where_a_trusted_proxy_is_silent_the_relay_speaks() -> None:
    assert sorted(passed(trusted=True)) == sorted(OWN)
    assert sorted(passed("X-Request-Id: " + "x" * 129, trusted=True)) == sorted(OWN)
    fields = passed("X-Forwarded-For: 203.0.113.1", trusted=True)
    assert (b"x-forwarded-proto", b"http") in fields
    assert (b"x-forwarded-host", b"a.example") in fields


@pytest.mark.parametrize(
    ("given", "trusted", "secure", "expected"),
    [
        ([], False, False, False),
        ([], False, True, True),
        (["X-Forwarded-Proto: https"], False, False, False),
        (["X-Forwarded-Proto: https"], True, False, True),
        (["X-Forwarded-Proto: HTTP"], True, True, False),
        (["X-Forwarded-Proto: wss"], True, False, True),
        (["X-Forwarded-Proto: https, http"], True, False, False),
        (["X-Forwarded-Proto: https"] * 2, True, False, False),
    ],
)
def test_who_came_by_tls(given: list[str], trusted: bool, secure: bool, expected: bool) -> None:
    """As seen here, or as a trusted proxy says in a way that is not ambiguous."""
    assert Forwarder("192.0.2.1", secure, trusted).is_secure(read_head(get(*given))) is expected


@pytest.mark.parametrize(
    ("chain", "peer", "visitor"),
    [
        ([], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.1"], "192.0.2.1", "192.0.2.1"),
        (["203.0.113.1"], "10.0.0.1", "203.0.113.1"),
        (["9.9.9.9, 203.0.113.1"], "10.0.0.1", "203.0.113.1"),
        (["9.9.9.9", "203.0.113.1"], "10.0.0.1", "203.0.113.1"),
        (["203.0.113.1, 10.0.0.2"], "10.0.0.1", "203.0.113.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.1", "10.0.0.3"),
        (["203.0.113.1:5000"], "10.0.0.1", "203.0.113.1"),
        (["[2001:DB8::1]:5000"], "10.0.0.1", "2001:db8::1"),
        (["2001:db8::1"], "10.0.0.1", "2001:db8::1"),
        (["::ffff:203.0.113.1"], "10.0.0.1", "203.0.113.1"),
        (["203.0.113.1, unknown"], "10.0.0.1", "10.0.0.1"),
        (["203.0.113.1, , 10.0.0.2"], "10.0.0.1", "10.0.0.2"),
        (["caf\xe9"], "10.0.0.1", "10.0.0.1"),
    ],
)
def test_who_asks(chain: list[str], peer: str, visitor: str) -> None:
    """The last address that no trusted proxy has; what a visitor writes before it is nothing."""
    head = read_head(get(*(f"X-Forwarded-For: {each}" for each in chain)))
    assert visitor_address(head, peer, lambda address: address.startswith("10.")) == visitor


# --- responses ----------------------------------------------------------------------------------


def to_visitor(*fields: str | bytes, line: str = "HTTP/1.1 200 OK") -> Fields:
    return response_fields(read_response(ok(*fields, line=line)), "shop.t.example")


@pytest.mark.parametrize(
    "field",
    [
        "Connection: close",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Proxy-Authenticate: Basic",
        "Proxy-Authentication-Info: x",
        "TE: trailers",
        "Trailer: X",
        "Upgrade: h2c",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        'Alt-Svc: h3=":8443"',
    ],
)
def test_what_no_visitor_is_sent(field: str) -> None:
    assert [name for name, _ in to_visitor(field, "X: 1") if name != b"trailer"] == [b"x"]


def test_what_a_services_connection_names_goes_no_further() -> None:
    assert to_visitor("X-A: 1", "X_B: 2", "Connection: x-a") == [(b"x_b", b"2")]


def test_trailers_are_announced() -> None:
    assert to_visitor("Trailer: X-Sum", CHUNKED) == [(b"trailer", b"X-Sum")]


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=b", "a=b"),
        ("a=b; Path=/; Secure; HttpOnly", "a=b; Path=/; Secure; HttpOnly"),
        ("a=b; Domain=t.example; Path=/", "a=b; Path=/"),
        ("a=b; Path=/; Domain=t.example", "a=b; Path=/"),
        ("a=b; Domain=.t.example", "a=b"),
        ("a=b; domain=T.Example", "a=b"),
        ("a=b;DOMAIN = t.example ;Secure", "a=b;Secure"),
        ("a=b; Domain=example", "a=b"),
        ("a=b; Domain=other.t.example", "a=b"),
        ("a=b; Domain=t.example.", "a=b"),
        ('a=b; Domain="t.example"', "a=b"),
        ("a=b; Domain=", "a=b"),
        ("a=b; Domain", "a=b"),
        ("a=b; Domain=xshop.t.example", "a=b"),
        ("a=b; Domain=t.example; Domain=shop.t.example", "a=b; Domain=shop.t.example"),
        ("a=b; Domain=shop.t.example; Domain=t.example", "a=b; Domain=shop.t.example"),
        ("a=b; Domain=shop.t.example", "a=b; Domain=shop.t.example"),
        ("a=b; Domain=.SHOP.t.example", "a=b; Domain=.SHOP.t.example"),
        ("a=b; Domain=x.shop.t.example", "a=b; Domain=x.shop.t.example"),
        ("a=b; Domain=\xe4.t.example", "a=b"),
        ("domain=t.example", "domain=t.example"),
        ("a=domain=t.example", "a=domain=t.example"),
        ("a=b; DomainX=t.example", "a=b; DomainX=t.example"),
        ("; Domain=t.example", ""),
    ],
)
def test_cookies_reach_no_wider_than_the_service(cookie: str, expected: str) -> None:
    """Another tenant of the same domain would be sent them (RFC 6265, 5.3); what a browser might
    read otherwise is dropped, too."""
    assert narrow_cookie(cookie.encode("latin-1"), "shop.t.example") == expected.encode("latin-1")
    assert to_visitor(f"Set-Cookie: {cookie}") == [
        (b"set-cookie", expected.strip().encode("latin-1"))
    ]


@given(st.text(";= \tdomaint.exple", max_size=60))
def test_no_cookie_has_a_wide_domain(text: str) -> None:
    """However its attributes are spaced: a reader of RFC 6265, 5.2, finds none but a narrow one."""
    value = narrow_cookie(text.encode(), "shop.t.example").decode()
    for part in value.split(";")[1:]:
        name, _, domain = part.partition("=")
        if name.strip(" \t").lower() == "domain":
            plain = domain.strip(" \t").lower().removeprefix(".")
            assert f".{plain}".endswith(".shop.t.example")


def test_trailers_that_say_too_much_go_no_further() -> None:
    """RFC 9110, 6.5.1."""
    trailers = [
        (b"x-sum", b"1"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"b.example"),
        (b"connection", b"close"),
        (b"set-cookie", b"a=b"),
        (b"authorization", b"x"),
        (b"x-forwarded-for", b"203.0.113.1"),
        (b"x_sum", b"1"),
        (b"grpc-status", b"0"),
    ]
    assert trailer_fields(trailers) == [(b"x-sum", b"1"), (b"grpc-status", b"0")]


def test_an_interim_response_is_cleaned_as_any() -> None:
    head = read_response(ok("Link: <x>", "Connection: x", "X: 1", line="HTTP/1.1 103 Early Hints"))
    assert isinstance(head, ResponseHead)
    assert response_fields(head, "a.example") == [(b"link", b"<x>")]
