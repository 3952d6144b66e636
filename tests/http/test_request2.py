"""Heads of HTTP/2: what is no request of HTTP/1.1 either is refused."""

from __future__ import annotations

import pytest

from srrrs.http.errors import BadRequest
from srrrs.http.head import CHUNKED, NO_BODY, Framing, HeadLimits, Kind
from srrrs.http.request2 import request_head, trailers

LIMITS = HeadLimits()
GOOD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/"),
]


def with_(*fields: tuple[bytes, bytes], **pseudo: bytes) -> list[tuple[bytes, bytes]]:
    """The good request, with other pseudo-fields and more fields."""
    changed = [
        (name, pseudo.get(name[1:].decode(), value))
        for name, value in GOOD
        if pseudo.get(name[1:].decode(), value) != b"-"
    ]
    return [*changed, *fields]


def test_a_request_becomes_one_of_http_1() -> None:
    """Pseudo-fields become the request line and Host; the rest stays as it is."""
    head = request_head(with_((b"accept", b"*/*"), authority=b"A.Example:8443"), True, LIMITS)
    assert (head.method, head.target, head.version) == (b"GET", b"/", (2, 0))
    assert (head.host, head.authority) == ("a.example", b"A.Example:8443")
    assert head.fields == [(b"host", b"A.Example:8443"), (b"accept", b"*/*")]
    assert head.framing == NO_BODY
    assert head.upgrade is None


def test_a_host_field_may_stand_for_the_authority() -> None:
    """RFC 9113, 8.3.1: whoever turns HTTP/1 into HTTP/2 may leave ``:authority`` out."""
    head = request_head(with_((b"host", b"b.example"), authority=b"-"), True, LIMITS)
    assert head.host == "b.example"
    assert head.fields == [(b"host", b"b.example")]


@pytest.mark.parametrize(
    ("fields", "ended", "framing"),
    [
        ((), True, NO_BODY),
        ((), False, CHUNKED),
        (((b"content-length", b"5"),), False, Framing(Kind.LENGTH, 5)),
        (((b"content-length", b"0"),), True, Framing(Kind.LENGTH, 0)),
    ],
)
def test_how_a_body_is_framed(
    fields: tuple[tuple[bytes, bytes], ...], ended: bool, framing: Framing
) -> None:
    """By its length where it is stated, else in chunks."""
    assert request_head(with_(*fields), ended, LIMITS).framing == framing


@pytest.mark.parametrize(
    ("fields", "ended", "expects"),
    [
        ((), False, True),
        (((b"content-length", b"5"),), False, True),
        (((b"content-length", b"0"),), False, False),
        ((), True, False),
    ],
)
def test_whoever_waits_for_100(
    fields: tuple[tuple[bytes, bytes], ...], ended: bool, expects: bool
) -> None:
    """It does wherever a body follows, of a stated length or not; without one it waits for
    nothing (RFC 9110, 10.1.1)."""
    head = request_head(with_(*fields, (b"expect", b"100-continue")), ended, LIMITS)
    assert head.expect_continue is expects


BAD: dict[str, list[tuple[bytes, bytes]]] = {
    "no method": with_(method=b"-"),
    "no scheme": with_(scheme=b"-"),
    "no path": with_(path=b"-"),
    "no authority, no host": with_(authority=b"-"),
    "an empty authority": with_(authority=b""),
    "an empty path": with_(path=b""),
    "another scheme": with_(scheme=b"ftp"),
    "a path twice": [*GOOD, (b":path", b"/b")],
    "an unknown pseudo-field": [*GOOD, (b":protocol", b"websocket")],
    "a response's pseudo-field": [*GOOD, (b":status", b"200")],
    "a pseudo-field late": [*GOOD[:3], (b"accept", b"*/*"), GOOD[3]],
    "a pseudo-field after host": [*GOOD[:3], (b"host", b"a.example"), GOOD[3]],
    "CONNECT": with_(method=b"CONNECT"),
    "a method with a blank": with_(method=b"GET /x"),
    "a method with a line end": with_(method=b"GET\r\n"),
    "a method in lower case": with_(method=b"get"),
    "a path with a blank": with_(path=b"/a b"),
    "a path with a line end": with_(path=b"/ HTTP/1.1\r\nhost: b\r\n\r\n"),
    "a path with a NUL": with_(path=b"/\0"),
    "a path with a fragment": with_(path=b"/#x"),
    "a path beyond ASCII": with_(path=b"/\xc3\xa4"),
    "an absolute path": with_(path=b"http://b.example/"),
    "a path that is an authority": with_(path=b"b.example:443"),
    "a star, but not for OPTIONS": with_(path=b"*"),
    "an authority with a user": with_(authority=b"u@a.example"),
    "an authority with a line end": with_(authority=b"a.example\r\nx: y"),
    "an authority with a blank": with_(authority=b"a.example b"),
    "an authority with a path": with_(authority=b"a.example/b"),
    "an authority with a wrong port": with_(authority=b"a.example:99999"),
    "two authorities": [*GOOD, (b":authority", b"b.example")],
    "a host that disagrees": with_((b"host", b"b.example")),
    "a host whose port disagrees": with_((b"host", b"a.example:81")),
    "two hosts": with_((b"host", b"a.example"), (b"host", b"a.example")),
    "a name in capitals": with_((b"Accept", b"*/*")),
    "an empty name": with_((b"", b"x")),
    "a name with a blank": with_((b"x y", b"x")),
    "a name with a colon": with_((b"x:y", b"x")),
    "a name with a line end": with_((b"x\r\ny", b"x")),
    "a name beyond ASCII": with_((b"x\xe4", b"x")),
    "a value with CR": with_((b"x", b"a\rb")),
    "a value with LF": with_((b"x", b"a\nb")),
    "a value with CRLF": with_((b"x", b"a\r\ntransfer-encoding: chunked")),
    "a value with NUL": with_((b"x", b"a\0b")),
    "a value with DEL": with_((b"x", b"a\x7fb")),
    "a value that begins with a blank": with_((b"x", b" a")),
    "a value that ends with a tab": with_((b"x", b"a\t")),
    "transfer-encoding": with_((b"transfer-encoding", b"chunked")),
    "connection": with_((b"connection", b"close")),
    "keep-alive": with_((b"keep-alive", b"1")),
    "proxy-connection": with_((b"proxy-connection", b"close")),
    "upgrade": with_((b"upgrade", b"websocket")),
    "te that is not trailers": with_((b"te", b"gzip")),
    "a length with a sign": with_((b"content-length", b"+1")),
    "a length with a blank": with_((b"content-length", b"1 1")),
    "a length with an underscore": with_((b"content-length", b"1_1")),
    "a length in hex": with_((b"content-length", b"0x1")),
    "a list of lengths": with_((b"content-length", b"1, 1")),
    "two lengths": with_((b"content-length", b"1"), (b"content-length", b"1")),
    "an endless length": with_((b"content-length", b"9" * 30)),
    "an empty length": with_((b"content-length", b"")),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("ended", [True, False])
def test_what_is_malformed(name: str, ended: bool) -> None:
    """RFC 9113, 8.2 and 8.3, and what would break out of an HTTP/1.1 head."""
    with pytest.raises(BadRequest) as caught:
        request_head(BAD[name], ended, LIMITS)
    assert caught.value.status == 400


def test_a_length_without_a_body() -> None:
    """RFC 9113, 8.1.1: the length has to be the body's."""
    with pytest.raises(BadRequest):
        request_head(with_((b"content-length", b"1")), True, LIMITS)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (with_(path=b"/" + b"x" * 100), 414),
        (with_(*[(b"x-%d" % n, b"x") for n in range(11)]), 431),
        (with_((b"x", b"x" * 1000)), 431),
        (with_((b"expect", b"200-ok")), 417),
    ],
)
def test_limits(fields: list[tuple[bytes, bytes]], status: int) -> None:
    """Each has the status that names it."""
    limits = HeadLimits(head_bytes=500, fields=10, target=50)
    with pytest.raises(BadRequest) as caught:
        request_head(fields, False, limits)
    assert caught.value.status == status


def test_trailers() -> None:
    """They are held to the grammar of fields."""
    good = [(b"x-sum", b"1")]
    assert trailers(good, LIMITS) == good
    for bad in ([(b":path", b"/")], [(b"x", b"a\nb")], [(b"x", b"y")] * 200):
        with pytest.raises(BadRequest):
            trailers(bad, LIMITS)
