"""What is written stays in its place, and is read as what it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.http.errors import BadResponse
from srrrs.http.forwarding import response_fields
from srrrs.http.head import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    End,
    Fields,
    Framing,
    HeadLimits,
    Kind,
    RequestHead,
    ResponseHead,
)
from srrrs.http.request import RequestReader
from srrrs.http.response import ResponseReader
from srrrs.http.writing import (
    encode_chunk,
    encode_last_chunk,
    encode_request,
    encode_response,
    visitor_framing,
)
from tests.http.corpus import REQUESTS, RESPONSES, Case, get, lines, ok
from tests.http.passing import mutations, pass_on

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-!#$%&'*+.^`|~", min_size=1, max_size=12).map(
    str.encode
)
NAMES = TOKENS.map(b"z-".__add__)
VALUES = st.binary(max_size=20).map(
    lambda data: bytes(each for each in data if each >= 32 and each != 127).strip(b" ")
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
PATHS = st.text("abc/?=&%.~*", max_size=12).map(lambda text: b"/" + text.encode())
BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


LARGER = HeadLimits(head_bytes=64 * 1024, fields=200)
"""What the first edge added fits, too."""


def written(framing: Framing, pieces: list[bytes], trailers: Fields) -> bytes:
    """A body as it goes out."""
    if framing is not CHUNKED:
        return b"".join(pieces)
    chunks = [part for piece in pieces for part in encode_chunk(piece)]
    return b"".join(chunks) + encode_last_chunk(trailers)


def framings(pieces: list[bytes]) -> list[Framing]:
    """How these may be sent."""
    length = sum(map(len, pieces))
    return [CHUNKED, Framing(Kind.LENGTH, length)] + ([] if length else [NO_BODY])


def cuts(data: bytes, draw: st.DataObject) -> list[bytes]:
    at = draw.draw(st.lists(st.integers(0, len(data)), max_size=5).map(sorted), label="cuts")
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


@settings(max_examples=200)
@given(
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"DELETE", b"PROPFIND"]),
    PATHS,
    FIELDS,
    BODIES,
    FIELDS,
    st.data(),
)
def test_a_request_that_is_written_is_read_as_it_was(
    method: bytes,
    target: bytes,
    fields: Fields,
    pieces: list[bytes],
    trailers: Fields,
    draw: st.DataObject,
) -> None:
    """Reader after writer gives the same message, and nothing more, wherever it is cut."""
    framing = draw.draw(st.sampled_from(framings(pieces)), label="framing")
    data = encode_request(method, target, [(b"host", b"a.example"), *fields], framing)
    reader = RequestReader(HeadLimits())
    body, ends = b"", []
    head: RequestHead | None = None
    for piece in cuts(data + written(framing, pieces, trailers), draw):
        reader.feed(piece)
        while (item := reader.next()) is not None:
            if isinstance(item, RequestHead):
                head = item
            elif isinstance(item, End):
                ends.append(item)
            else:
                body += item
    assert head is not None
    assert (head.method, head.target, head.framing) == (method, target, framing)
    own = {b"host", b"content-length", b"transfer-encoding"}
    assert [each for each in head.fields if each[0] not in own] == fields
    assert body == b"".join(pieces)
    assert [list(end.trailers) for end in ends] == [trailers if framing is CHUNKED else []]
    assert reader.pending == 0


@settings(max_examples=200)
@given(
    st.sampled_from([200, 201, 206, 302, 404, 500, 599]),
    VALUES,
    FIELDS,
    BODIES,
    FIELDS,
    st.data(),
)
def test_a_response_that_is_written_is_read_as_it_was(
    status: int,
    reason: bytes,
    fields: Fields,
    pieces: list[bytes],
    trailers: Fields,
    draw: st.DataObject,
) -> None:
    """Reader after writer gives the same message, and nothing more, wherever it is cut."""
    choices = [each for each in framings(pieces) if each is not NO_BODY]
    framing = draw.draw(st.sampled_from([*choices, UNTIL_CLOSE]), label="framing")
    keep_alive = False if framing is UNTIL_CLOSE else draw.draw(st.sampled_from([None, False]))
    data = encode_response(status, reason, fields, framing, keep_alive)
    reader = ResponseReader(HeadLimits())
    reader.expect(b"GET")
    body, ends = b"", []
    head: ResponseHead | None = None

    def read() -> None:
        nonlocal head, body
        while (item := reader.next()) is not None:
            if isinstance(item, ResponseHead):
                head = item
            elif isinstance(item, End):
                ends.append(item)
            else:
                body += item

    for piece in cuts(data + written(framing, pieces, trailers), draw):
        reader.feed(piece)
        read()
    reader.eof()
    read()
    assert head is not None
    assert (head.status, head.reason, head.framing) == (status, reason, framing)
    assert head.keep_alive is (keep_alive is None)
    own = {b"connection", b"content-length", b"transfer-encoding"}
    assert [each for each in head.fields if each[0] not in own] == fields
    assert body == b"".join(pieces)
    assert [list(end.trailers) for end in ends] == [trailers if framing is CHUNKED else []]


@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_what_is_passed_on_is_passed_on_alike(case: Case) -> None:
    """A second edge behind the first changes nothing but what it says of itself: what goes out is
    as canonical as can be."""
    once = pass_on(case.data).data
    assert pass_on(once, LARGER).data == once


@settings(max_examples=500)
@given(st.sampled_from(REQUESTS), st.data())
def test_mutated_requests_are_passed_on_alike(case: Case, draw: st.DataObject) -> None:
    """So is what becomes of the corpus when bytes of it change."""
    once = pass_on(draw.draw(mutations(case.data))).data
    assert pass_on(once, LARGER).data == once


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ([(b"x", b"1\r\ny: 2")], b"/"),
        ([(b"x", b"1\ny: 2")], b"/"),
        ([(b"x", b"1\ry: 2")], b"/"),
        ([(b"x", b"\x00")], b"/"),
        ([(b"x\r\ny", b"1")], b"/"),
        ([], b"/ HTTP/1.1\r\nX: y"),
        ([], b"/ HTTP/1.1"),
        ([], b"/a b"),
    ],
)
def test_nothing_leaves_its_place(fields: Fields, target: bytes) -> None:
    """Whoever adds fields: no writer writes a line more than it was given."""
    with pytest.raises(ValueError, match="holds"):
        encode_request(b"GET", target, fields, NO_BODY)
    if fields:
        with pytest.raises(ValueError, match="holds"):
            encode_response(200, b"OK", fields, NO_BODY)
        with pytest.raises(ValueError, match="holds"):
            encode_last_chunk(fields)


def test_an_empty_chunk_is_never_written() -> None:
    """It would end the body."""
    with pytest.raises(ValueError, match="last"):
        encode_chunk(b"")


def test_heads() -> None:
    """To the byte."""
    assert (
        encode_request(b"POST", b"/x", [(b"host", b"a.example")], Framing(Kind.LENGTH, 0))
        == b"POST /x HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n"
    )
    assert encode_request(b"GET", b"*", [(b"te", b"trailers")], CHUNKED) == (
        b"GET * HTTP/1.1\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert encode_request(b"GET", b"/", [], NO_BODY, b"websocket") == (
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert encode_response(200, b"", [], NO_BODY) == b"HTTP/1.1 200 \r\n\r\n"
    assert encode_response(200, b"OK", [], UNTIL_CLOSE, False) == (
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    )
    assert encode_response(200, b"OK", [], Framing(Kind.LENGTH, 3), True) == (
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\n"
    )
    assert encode_response(101, b"-", [], NO_BODY, None, b"websocket") == (
        b"HTTP/1.1 101 -\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert encode_last_chunk([(b"x", b"1")]) == b"0\r\nx: 1\r\n\r\n"
    assert b"".join(encode_chunk(b"x" * 16)) == b"10\r\n" + b"x" * 16 + b"\r\n"


@pytest.mark.parametrize(
    ("line", "response", "framing"),
    [
        ("GET / HTTP/1.1", ok("Content-Length: 5"), Framing(Kind.LENGTH, 5)),
        ("GET / HTTP/1.1", ok("Transfer-Encoding: chunked"), CHUNKED),
        ("GET / HTTP/1.1", ok(), CHUNKED),
        ("GET / HTTP/1.1", ok(line="HTTP/1.1 304 -"), NO_BODY),
        ("GET / HTTP/1.0", ok("Content-Length: 5"), Framing(Kind.LENGTH, 5)),
        ("GET / HTTP/1.0", ok("Transfer-Encoding: chunked"), UNTIL_CLOSE),
        ("GET / HTTP/1.0", ok(), UNTIL_CLOSE),
    ],
)
def test_how_a_body_goes_on_to_the_visitor(line: str, response: bytes, framing: Framing) -> None:
    """So that a visitor of 1.1 can tell a whole body from a cut one, and one of 1.0 can read it."""
    requests, responses = RequestReader(HeadLimits()), ResponseReader(HeadLimits())
    requests.feed(get(line=line))
    responses.expect(b"GET")
    responses.feed(response)
    request, answer = requests.next(), responses.next()
    assert isinstance(request, RequestHead)
    assert isinstance(answer, ResponseHead)
    assert visitor_framing(request, answer) == framing


def test_what_a_response_to_head_states_goes_on() -> None:
    """Its length describes the body of a GET."""
    for data, method, stays in [
        (ok("Content-Length: 5"), b"HEAD", True),
        (ok("Content-Length: 5", line="HTTP/1.1 304 -"), b"GET", True),
        (ok("Content-Length: 5", line="HTTP/1.1 204 -"), b"GET", False),
        (ok("Content-Length: 0", line="HTTP/1.1 103 -"), b"GET", False),
        (ok("Content-Length: 5"), b"GET", False),
    ]:
        reader = ResponseReader(HeadLimits())
        reader.expect(method)
        reader.feed(data)
        head = reader.next()
        assert isinstance(head, ResponseHead)
        assert (b"content-length" in dict(response_fields(head, "a.example"))) is stays


@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_no_response_splits_what_a_visitor_is_sent(case: Case) -> None:
    """Whatever head is taken from a service can be written."""
    reader = ResponseReader(HeadLimits())
    reader.expect((case.to or (b"GET",))[0], case.upgrade)
    reader.feed(case.data)
    try:
        head = reader.next()
    except BadResponse:
        return
    if isinstance(head, ResponseHead):
        fields = response_fields(head, "a.example")
        data = encode_response(head.status, head.reason, fields, head.framing, False)
        assert data.count(b"\r\n\r\n") == 1
        assert lines(data.split(b"\r\n")[0], *data.split(b"\r\n")[1:-2]) == data
