"""What readers tell beside the messages, and how they treat their callers."""

from __future__ import annotations

import pytest

from srrrs.http.errors import BadRequest, BadResponse
from srrrs.http.head import (
    CHUNKED,
    END,
    NO_BODY,
    UNTIL_CLOSE,
    End,
    Framing,
    HeadLimits,
    Kind,
    RequestHead,
    ResponseHead,
)
from srrrs.http.request import RequestReader
from srrrs.http.response import ResponseReader
from tests.http.corpus import HELLO, NEXT, chunked, get, lines, ok, post


def read_head(data: bytes, limits: HeadLimits | None = None) -> RequestHead:
    """The head of a request."""
    reader = RequestReader(limits or HeadLimits())
    reader.feed(data)
    head = reader.next()
    assert isinstance(head, RequestHead)
    return head


def read_response(
    data: bytes, method: bytes = b"GET", upgrade: bytes | None = None
) -> ResponseHead:
    """The head of a response."""
    reader = ResponseReader(HeadLimits())
    reader.expect(method, upgrade)
    reader.feed(data)
    head = reader.next()
    assert isinstance(head, ResponseHead)
    return head


def test_what_a_request_says() -> None:
    """Method, target, version, host as routed and as sent, and every field, in lower case."""
    head = read_head(
        lines("POST /p?q=1 HTTP/1.1", "Host: A.Example.:8000", "X-One: 1 ", "x-one:2", FIVE)
    )
    assert (head.method, head.target, head.version) == (b"POST", b"/p?q=1", (1, 1))
    assert (head.host, head.authority) == ("a.example", b"A.Example.:8000")
    assert head.values(b"x-one") == [b"1", b"2"]
    assert head.framing == Framing(Kind.LENGTH, 5)
    assert head.keep_alive
    assert not head.expect_continue
    assert head.upgrade is None


FIVE = "Content-Length: 5"


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: keep-alive, Close"], False),
        ("1.1", ["Connection: x", "Connection: CLOSE"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: Keep-Alive"], True),
        ("1.0", ["Connection: keep-alive, close"], False),
    ],
)
def test_when_a_connection_is_kept(version: str, fields: list[str], keep_alive: bool) -> None:
    """As RFC 9112, 9.3, says, for either side."""
    assert read_head(get(*fields, line=f"GET / HTTP/{version}")).keep_alive is keep_alive
    response = ok("Content-Length: 0", *fields, line=f"HTTP/{version} 200 OK")
    assert read_response(response).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (["Connection: Upgrade", "Upgrade: websocket"], b"websocket"),
        (["Connection: keep-alive, Upgrade", "Upgrade: WebSocket"], b"websocket"),
        (["Connection: upgrade", "Upgrade: h2c"], None),
        (["Connection: upgrade", "Upgrade: H2C, websocket"], b"websocket"),
        (["Connection: upgrade", "Upgrade: HTTP/2.0"], None),
        (["Connection: upgrade", "Upgrade: TLS/1.2, HTTP/1.1"], None),
        (["Connection: upgrade", "Upgrade: SPDY/3.1"], b"spdy/3.1"),
        (["Connection: upgrade", "Upgrade:"], None),
        (["Connection: upgrade"], None),
        (["Upgrade: websocket"], None),
    ],
)
def test_what_is_changed_to(fields: list[str], upgrade: bytes | None) -> None:
    """Never another version of HTTP, whose requests no edge would see; never without Connection."""
    assert read_head(get(*fields)).upgrade == upgrade
    assert read_head(get(*fields, line="GET / HTTP/1.0")).upgrade is None


def test_who_waits_for_100() -> None:
    """A request with a body, of a version that knows of it."""
    expect = "Expect: 100-continue"
    assert read_head(post(expect, FIVE)).expect_continue
    assert read_head(chunked(b"", expect)).expect_continue
    assert not read_head(get(expect)).expect_continue
    assert not read_head(post(expect, "Content-Length: 0")).expect_continue
    assert not read_head(get(expect, FIVE, line="POST / HTTP/1.0")).expect_continue


@pytest.mark.parametrize(
    ("data", "method", "framing", "keep_alive"),
    [
        (ok(FIVE), b"GET", Framing(Kind.LENGTH, 5), True),
        (ok(FIVE), b"HEAD", NO_BODY, True),
        (ok("Transfer-Encoding: chunked"), b"GET", CHUNKED, True),
        (ok(), b"GET", UNTIL_CLOSE, False),
        (ok(), b"HEAD", NO_BODY, True),
        (ok(line="HTTP/1.1 204 No Content"), b"GET", NO_BODY, True),
        (ok("Content-Length: 0", line="HTTP/1.1 204 No Content"), b"GET", NO_BODY, True),
        (ok(FIVE, line="HTTP/1.1 204 No Content"), b"GET", NO_BODY, False),
        (ok("Transfer-Encoding: chunked", line="HTTP/1.1 204 -"), b"GET", NO_BODY, False),
        (ok(FIVE, line="HTTP/1.1 304 Not Modified"), b"GET", NO_BODY, True),
        (ok("Connection: keep-alive", line="HTTP/1.0 200 OK"), b"GET", UNTIL_CLOSE, False),
    ],
)
def test_what_ends_a_response(
    data: bytes, method: bytes, framing: Framing, keep_alive: bool
) -> None:
    """One rule each (RFC 9112, 6.3). Where a service says two things, its connection ends."""
    head = read_response(data, method)
    assert (head.framing, head.keep_alive) == (framing, keep_alive)


def test_small_messages_take_three_steps() -> None:
    """One feed, then head, body and end; all of it is then gone."""
    reader = RequestReader(HeadLimits())
    reader.feed(post(FIVE, body=b"hello"))
    assert isinstance(reader.next(), RequestHead)
    assert [reader.next(), reader.next(), reader.next()] == [b"hello", END, None]
    assert reader.pending == 0


def test_pieces_of_a_body_are_not_copied() -> None:
    """What was fed whole is given as it is."""
    reader = ResponseReader(HeadLimits())
    reader.expect(b"GET")
    reader.feed(ok("Content-Length: 200000"))
    assert isinstance(reader.next(), ResponseHead)
    for _ in range(2):
        piece = bytes(100_000)
        reader.feed(piece)
        assert reader.next() is piece


def test_chunks_that_came_together_are_given_together() -> None:
    reader = RequestReader(HeadLimits())
    reader.feed(chunked(b"1\r\nh\r\n4\r\nello\r\n3\r\nyo"))
    assert isinstance(reader.next(), RequestHead)
    assert [reader.next(), reader.next()] == [b"helloyo", None]
    reader.feed(b"u\r\n0\r\nX: 1\r\nY_Z:  2 \r\n\r\n")
    assert [reader.next(), reader.next()] == [b"u", End([(b"x", b"1"), (b"y_z", b"2")])]


def test_pipelined_requests_wait() -> None:
    """Nothing of the next request is looked at before it is asked for."""
    reader = RequestReader(HeadLimits())
    first, second = get(line="GET /1 HTTP/1.1"), b"\x00 is no request"
    reader.feed(first + second)
    assert isinstance(reader.next(), RequestHead)
    assert [reader.next(), reader.next()] == [END, None]
    assert reader.pending == len(second)
    reader.next_message()
    with pytest.raises(BadRequest):
        reader.next()


def begun(reader: RequestReader | ResponseReader) -> bool:
    return reader.begun


def test_a_message_has_begun_with_its_first_byte() -> None:
    """And not with the empty line before it; so an idle connection can be told from a slow one."""
    reader = RequestReader(HeadLimits())
    assert not begun(reader)
    for byte in b"\r\n":
        reader.feed(bytes([byte]))
        assert reader.next() is None
    assert not begun(reader)
    reader.feed(b"G")
    assert reader.next() is None
    assert begun(reader)
    reader.feed(get()[1:])
    assert isinstance(reader.next(), RequestHead)
    assert reader.next() is END
    assert begun(reader)
    reader.next_message()
    assert not begun(reader)


def test_a_response_has_begun_with_its_first_byte() -> None:
    """An interim one counts: the request was seen, and is not sent again."""
    reader = ResponseReader(HeadLimits())
    reader.expect(b"GET")
    assert not begun(reader)
    reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    head = reader.next()
    assert isinstance(head, ResponseHead)
    assert head.interim
    assert begun(reader)
    reader.feed(NEXT)
    while reader.next() is not END:
        pass
    reader.expect(b"GET")
    assert not begun(reader)


def test_after_a_switch_the_rest_is_another_protocols() -> None:
    """Of both sides: what the visitor sent early, and what followed the 101."""
    requests = RequestReader(HeadLimits())
    requests.feed(get("Connection: upgrade", "Upgrade: websocket") + b"\x81\x00")
    assert isinstance(requests.next(), RequestHead)
    assert requests.next() is END
    assert (requests.rest(), requests.pending) == (b"\x81\x00", 0)
    responses = ResponseReader(HeadLimits())
    responses.expect(b"GET", b"websocket")
    responses.feed(ok("Upgrade: WebSocket", line="HTTP/1.1 101 -") + b"\x82")
    head = responses.next()
    assert isinstance(head, ResponseHead)
    assert (head.status, head.interim, head.upgrade) == (101, False, b"websocket")
    assert responses.next() is None
    responses.feed(b"\x00")
    assert (responses.next(), responses.rest()) == (None, b"\x82\x00")


def test_bytes_before_the_next_request_make_a_response_of_their_own() -> None:
    """A service that says more than it was asked for is believed nothing more."""
    for late in (True, False):
        reader = ResponseReader(HeadLimits())
        reader.expect(b"GET")
        reader.feed(NEXT if late else NEXT + NEXT)
        while reader.next() is not END:
            pass
        if late:
            reader.feed(NEXT)
        reader.expect(b"GET")
        with pytest.raises(BadResponse):
            reader.next()


def test_an_error_stays() -> None:
    """Nothing is read after what could not be understood, and the end does not change that."""
    reader = RequestReader(HeadLimits())
    reader.feed(b"\x00")
    for _ in range(3):
        with pytest.raises(BadRequest) as caught:
            reader.next()
        assert caught.value.status == 400
        reader.feed(get())
    with pytest.raises(BadRequest):
        reader.eof()


def test_errors_hold_nothing_that_was_sent() -> None:
    """They reach pages and logs."""
    reader = RequestReader(HeadLimits())
    reader.feed(get("Authorization : s3cret"))
    with pytest.raises(BadRequest) as caught:
        reader.next()
    assert "s3cret" not in caught.value.text + str(caught.value)


def test_secrets_do_not_show() -> None:
    """The repr of what is read, which may end up in a log, holds no field."""
    assert "s3cret" not in repr(read_head(get("Authorization: s3cret")))
    assert "s3cret" not in repr(read_response(ok("Set-Cookie: s3cret")))
    assert "s3cret" not in repr(End([(b"x", b"s3cret")]))


def test_readers_hold_their_callers_to_the_order() -> None:
    reader = RequestReader(HeadLimits())
    with pytest.raises(ValueError, match="not over"):
        reader.next_message()
    responses = ResponseReader(HeadLimits())
    responses.expect(b"GET")
    with pytest.raises(ValueError, match="not over"):
        responses.expect(b"GET")


@pytest.mark.parametrize(
    ("limits", "data", "status"),
    [
        (HeadLimits(target=10), get(line="GET /123456789 HTTP/1.1"), None),
        (HeadLimits(target=10), get(line="GET /1234567890 HTTP/1.1"), 414),
        (HeadLimits(fields=2), get("X: 1"), None),
        (HeadLimits(fields=2), get("X: 1", "Y: 2"), 431),
        (HeadLimits(head_bytes=len(get())), get(), None),
        (HeadLimits(head_bytes=len(get()) - 1), get(), 431),
    ],
)
def test_limits(limits: HeadLimits, data: bytes, status: int | None) -> None:
    """To the byte, with the status that says which."""
    if status is None:
        read_head(data, limits)
        return
    with pytest.raises(BadRequest) as caught:
        read_head(data, limits)
    assert caught.value.status == status


def test_trailers_are_bounded_as_heads_are() -> None:
    limits = HeadLimits(fields=2)
    for trailers, fine in ((b"X: 1\r\nY: 2\r\n", True), (b"X: 1\r\n" * 3, False)):
        reader = RequestReader(limits)
        reader.feed(chunked(b"0\r\n" + trailers + b"\r\n"))
        assert isinstance(reader.next(), RequestHead)
        if fine:
            assert isinstance(reader.next(), End)
        else:
            with pytest.raises(BadRequest) as caught:
                reader.next()
            assert caught.value.status == 431


def test_a_visitor_that_half_closes_between_requests_is_fine() -> None:
    """And one whose whole request still waits; not one that broke off."""
    reader = RequestReader(HeadLimits())
    reader.eof()
    reader.feed(get())
    assert isinstance(reader.next(), RequestHead)
    reader.eof()
    assert reader.next() is END
    reader.next_message()
    reader.feed(chunked(HELLO[:-1]))
    while reader.next() is not None:
        pass
    with pytest.raises(BadRequest):
        reader.eof()
