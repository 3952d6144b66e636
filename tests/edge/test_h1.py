"""HTTP/1 visitors: each request goes its own way, and each gets its own answer."""

from __future__ import annotations

import pytest

from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge.closing import LINGER
from srrrs.relay.edge.h1 import DRAINED, PIPELINED
from srrrs.relay.edge.interfaces import ServiceAway, ServiceParked
from srrrs.relay.edge.site import SiteLimits
from srrrs.testing import FakeTransport
from tests.edge.h1kit import OK, Lab, get, split


def is_there(transport: FakeTransport) -> bool:
    return transport.connected


def is_read(transport: FakeTransport) -> bool:
    return transport.reading


def is_finished(transport: FakeTransport) -> bool:
    return transport.write_closed


def was_aborted(transport: FakeTransport) -> bool:
    return transport.aborted


STEPS = pytest.mark.parametrize("step", [1, 7, 100_000])


def test_two_hosts_on_one_connection() -> None:
    """The second request goes to the service of its own host, and not to the first one's."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/a"))
    lab.settle(visitor)
    lab.channel.receive(OK)
    visitor.receive(get("/b", "other.example"))
    lab.settle(visitor)
    assert b"GET /a HTTP/1.1\r\nhost: site.example\r\n" in lab.channel.sent
    assert b"/b" not in lab.channel.sent
    (other,) = lab.other.channels
    assert other.sent.startswith(b"GET /b HTTP/1.1\r\nhost: other.example\r\n")
    other.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    # The third goes by the connection that the first has left.
    visitor.receive(get("/c"))
    lab.settle(visitor)
    assert len(lab.service.channels) == 1
    assert b"GET /c " in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert visitor.sent.count(b"HTTP/1.1 200 OK") == 3
    assert [entry.id for entry in lab.log.requests] == ["c-1", "c-2", "c-3"]
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    lab.assert_nothing_left()


@STEPS
def test_pipelined_requests_are_answered_in_order(step: int) -> None:
    """Requests that came at once are served one after the other, cut anywhere."""
    lab = Lab()
    visitor = lab.connect()
    data = get("/1") + get("/2", "other.example") + get("/3", "nobody.example") + get("/4")
    for at in range(0, len(data), step):
        visitor.receive(data[at : at + step])
    lab.settle(visitor)
    assert not lab.other.channels
    lab.channel.receive(OK)
    lab.settle(visitor)
    lab.other.channels[0].receive(OK.replace(b"answer", b"second"))
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    sent = bytes(visitor.sent)
    assert sent.index(b"answer") < sent.index(b"second") < sent.index(b"No such site")
    assert sent.endswith(b"answer")
    visitor.peer_half_close()
    lab.settle(visitor)
    assert [entry.status for entry in lab.log.requests] == [200, 200, 404, 200]
    lab.assert_nothing_left()


def test_pipelined_bytes_are_bounded() -> None:
    """Who sends requests without end while one is answered is not read any more."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/1"))
    for _ in range(4):
        visitor.receive(get("/2") * (PIPELINED // len(get("/2")) // 2))
    assert not visitor.reading
    assert visitor.held
    for _ in range(100_000):
        lab.settle(visitor)
        if len(lab.log.requests) > 10:
            break
        lab.channel.receive(OK)
    assert visitor.sent.count(b"answer") > 10
    visitor.peer_reset()
    lab.assert_nothing_left()


@STEPS
def test_a_body_of_known_length(step: int) -> None:
    """It reaches the service as it came, and the connection goes on after it."""
    lab = Lab()
    visitor = lab.connect()
    data = b"POST /x HTTP/1.1\r\nHost: site.example\r\nContent-Length: 8\r\n\r\n12345678"
    for at in range(0, len(data), step):
        visitor.receive(data[at : at + step])
    lab.settle(visitor)
    head, _, body = bytes(lab.channel.sent).partition(b"\r\n\r\n")
    assert b"content-length: 8" in head
    assert body == b"12345678"
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    visitor.peer_half_close()
    lab.settle(visitor)
    assert lab.log.requests[0].received == 8
    assert lab.log.requests[0].sent == 6
    lab.assert_nothing_left()


@STEPS
def test_chunks_both_ways_with_trailers(step: int) -> None:
    """Chunked bodies are framed anew, and trailers go on."""
    lab = Lab()
    visitor = lab.connect()
    data = (
        b"POST / HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4;x=y\r\nwiki\r\n5\r\npedia\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    for at in range(0, len(data), step):
        visitor.receive(data[at : at + step])
    lab.settle(visitor)
    sent = bytes(lab.channel.sent)
    assert b"transfer-encoding: chunked\r\n" in sent
    assert sent.endswith(b"\r\n0\r\nx-sum: 7\r\n\r\n")
    assert b"x=y" not in sent
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n"
    )
    for at in range(0, len(answer), step):
        lab.channel.receive(answer[at : at + step])
    lab.settle(visitor)
    status, fields, body = split(visitor.sent)
    assert (status, fields["transfer-encoding"]) == (200, "chunked")
    assert body.endswith(b"0\r\nx-end: 1\r\n\r\n")
    assert visitor.connected
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_visitor_of_http_1_0() -> None:
    """It gets chunks undone, and its connection closes; with keep-alive and a length it stays."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/", "site.example", "Connection: keep-alive", version="1.0"))
    lab.settle(visitor)
    assert b" HTTP/1.1\r\n" in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[1]["connection"] == "keep-alive"
    visitor.sent.clear()
    visitor.receive(get("/", "site.example", "Connection: keep-alive", version="1.0"))
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    lab.channel.receive(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    lab.settle(visitor)
    status, fields, body = split(visitor.sent)
    assert (status, body) == (200, b"abc")
    assert "transfer-encoding" not in fields
    assert fields["connection"] == "close"
    assert not visitor.connected
    lab.assert_nothing_left()


@pytest.mark.parametrize(
    ("method", "answer", "whole"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"content-length: 6"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b" 204 "),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"content-length: 9"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"content-length: 0"),
    ],
)
def test_answers_without_a_body(method: str, answer: bytes, whole: bytes) -> None:
    """The answer ends with its head, and what follows is the next one."""
    lab = Lab()
    visitor = lab.connect()
    for _ in range(2):
        visitor.sent.clear()
        visitor.receive(get().replace(b"GET", method.encode()))
        lab.settle(visitor)
        lab.channel.receive(answer)
        lab.settle(visitor)
        assert whole in visitor.sent
        assert visitor.sent.endswith(b"\r\n\r\n")
    assert len(lab.service.channels) == 1
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_body_that_ends_with_the_connection() -> None:
    """Without a length: the visitor gets chunks, and its connection stays."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.0 200 OK\r\n\r\nabc")
    lab.channel.peer_half_close()
    lab.settle(visitor)
    _, fields, body = split(visitor.sent)
    assert fields["transfer-encoding"] == "chunked"
    assert body == b"3\r\nabc\r\n0\r\n\r\n"
    visitor.receive(get())
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_breaks_off_is_not_whole_for_the_visitor(
    answer: bytes, version: str
) -> None:
    """A reset in the midst: the connection ends without the end of the body."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get(version=version))
    lab.settle(visitor)
    lab.channel.receive(answer)
    lab.settle(visitor)
    lab.channel.peer_resets(ResetCode.CANCEL)
    lab.settle(visitor)
    assert not visitor.connected
    assert not visitor.sent.endswith(b"0\r\n\r\n")
    if b"content-length" not in visitor.sent and b"chunked" not in visitor.sent:
        assert visitor.aborted
    assert lab.log.requests[0].closed != "done"
    lab.assert_nothing_left()


@pytest.mark.parametrize(
    ("cut", "status"),
    [(b"", 502), (b"HTTP/1.1 2", 502), (b"HTTP/1.1 103 Early Hints\r\n\r\n", 502)],
)
def test_no_answer_is_a_page(cut: bytes, status: int) -> None:
    """Where no head of an answer was passed on there is still room for a page."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(cut)
    lab.channel.peer_half_close()
    lab.settle(visitor)
    assert b"HTTP/1.1 %d " % status in visitor.sent
    assert visitor.connected
    visitor.receive(get())
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    """What cannot be read in one way only is not passed on, and its connection not used again."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(answer)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 502
    assert lab.channel.resets
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_interim_answers_and_a_body_that_waits_for_100() -> None:
    """``Expect`` goes to the service, its 100 to the visitor, and then the body to the service."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(
        b"PUT / HTTP/1.1\r\nHost: site.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    lab.settle(visitor)
    assert b"expect: 100-continue\r\n" in lab.channel.sent
    lab.channel.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    lab.settle(visitor)
    assert visitor.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    visitor.receive(b"abc")
    lab.settle(visitor)
    assert lab.channel.sent.endswith(b"\r\n\r\nabc")
    lab.channel.receive(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    lab.settle(visitor)
    assert b"103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK" in visitor.sent
    assert visitor.connected
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_refusal_instead_of_100() -> None:
    """Nobody knows whether the body comes: the connection closes with the answer."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(
        b"PUT / HTTP/1.1\r\nHost: site.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    lab.settle(visitor)
    assert split(visitor.sent)[1]["connection"] == "close"
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    lab.assert_nothing_left()


def test_an_early_answer_and_a_short_rest() -> None:
    """What is left of a short request is dropped, and the connection goes on."""
    lab = Lab()
    visitor = lab.connect()
    head = b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 10\r\n\r\n"
    visitor.receive(head + b"12345")
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    assert lab.channel.resets
    visitor.receive(b"67890" + get("/next"))
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    assert lab.channel.sent.startswith(b"GET /next ")
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_early_answer_and_a_long_rest(chunked: bool) -> None:
    """What is left of a long request is read for a moment, so that the answer is not lost."""
    lab = Lab()
    visitor = lab.connect()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000000"
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\n" + framing + b"\r\n\r\n")
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    lab.settle(visitor)
    for _ in range(2 * DRAINED // 65536):
        visitor.receive((b"10000\r\n" if chunked else b"") + b"x" * 65536 + b"\r\n" * chunked)
        visitor.drain()
    assert split(visitor.sent)[0] == 413
    assert visitor.held == 0
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    lab.assert_nothing_left()


def test_who_sends_before_it_reads() -> None:
    """What is left of a request is dropped also while its early answer is not taken: else each
    would wait for the other."""
    lab = Lab()
    visitor = lab.connect(buffer_size=1000)
    framing = b"Transfer-Encoding: chunked\r\n\r\n"
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\n" + framing)
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000))
    visitor.receive(b"4\r\nbody\r\n0\r\n\r\n")
    assert not visitor.held
    lab.settle(visitor)
    visitor.receive(get("/next"))
    lab.settle(visitor)
    assert lab.channel.sent.startswith(b"GET /next ")
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_a_kept_connection_that_died_is_not_the_visitors_trouble() -> None:
    """A request without a body is sent once more, by a fresh connection; no third time."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(OK)
    visitor.receive(get("/again"))
    lab.settle(visitor)
    lab.channel.peer_resets(ResetCode.CANCEL)
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    assert lab.channel.sent.startswith(b"GET /again ")
    lab.channel.peer_resets(ResetCode.CANCEL)
    lab.settle(visitor)
    assert b"HTTP/1.1 502 " in visitor.sent
    assert len(lab.service.channels) == 2
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_what_may_not_be_asked_twice_is_not() -> None:
    """A POST on a kept connection that died: 502, for it may have been done."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(OK)
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n")
    lab.settle(visitor)
    assert len(lab.service.channels) == 1
    lab.channel.peer_resets(ResetCode.CANCEL)
    lab.settle(visitor)
    assert b"HTTP/1.1 502 " in visitor.sent
    assert len(lab.service.channels) == 1
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_what_may_not_be_asked_twice_goes_by_a_fresh_connection() -> None:
    """A kept one of some seconds' age may be about to be closed."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.clock.advance(5)
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n")
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("early", [False, True])
def test_surplus_bytes_of_a_service(early: bool) -> None:
    """They are nobody's answer: that connection is not used again, and they go to nobody."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    if early:
        lab.channel.receive(OK + evil)
    else:
        lab.channel.receive(OK)
        lab.channel.receive(evil)
    visitor.receive(get())
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert b"evil" not in visitor.sent
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_service_that_closes_after_its_answer() -> None:
    """Its connection is not kept."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    lab.settle(visitor)
    assert "connection" not in split(visitor.sent)[1]
    visitor.receive(get())
    lab.settle(visitor)
    assert len(lab.service.channels) == 2
    visitor.peer_reset()
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_idle_connections_end() -> None:
    """The visitor's after the idle time, and the service's with it; nothing is said."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    lab.clock.advance(76)
    lab.clock.advance(1)
    lab.settle(visitor)
    assert not visitor.connected
    assert visitor.sent.endswith(b"answer")
    lab.clock.advance(61)
    lab.assert_nothing_left()


@pytest.mark.parametrize("first", [True, False])
def test_a_head_that_does_not_come(first: bool) -> None:
    """408 and closed, at the deadline, however slowly it trickles."""
    lab = Lab(SiteLimits(head_timeout=10))
    visitor = lab.connect()
    if not first:
        visitor.receive(get())
        lab.settle(visitor)
        lab.channel.receive(OK)
        lab.settle(visitor)
        visitor.sent.clear()
    for byte in get()[:12]:
        visitor.receive(bytes((byte,)))
        lab.clock.advance(0.9)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 408
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_tls_whose_end_the_visitor_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for no longer than the time to linger, though nothing is left to be sent."""
    monkeypatch.setattr(FakeTransport, "drained", True, raising=False)
    lab = Lab()
    visitor = lab.connect(tls=True)
    visitor.receive(b"what?\r\n\r\n")
    assert visitor.disconnecting
    assert is_there(visitor)
    lab.clock.advance(LINGER)
    assert was_aborted(visitor)
    visitor.drain()
    lab.assert_nothing_left()


def test_a_page_that_nobody_takes() -> None:
    """A visitor that was refused and neither reads nor closes is aborted at the deadline."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(b"GET / HTTP/1.1\r\n\r\n")
    lab.clock.advance(LINGER - 0.5)
    assert not was_aborted(visitor)
    lab.clock.advance(1)
    assert was_aborted(visitor)
    visitor.drain()
    lab.assert_nothing_left()


def test_a_visitor_that_stops_reading_holds_up_its_own_service_alone() -> None:
    """Its bytes are credited once they are taken; a page and others go on."""
    lab = Lab()
    visitor = lab.connect(buffer_size=1000)
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    lab.channel.receive(b"x" * 50_000)
    credited = lab.channel.credited
    lab.channel.receive(b"y" * 49_999)
    assert lab.channel.credited == credited < 60_000
    lab.settle(visitor)
    assert lab.channel.credited == lab.channel.delivered
    lab.channel.receive(b"z")
    lab.settle(visitor)
    assert split(visitor.sent)[2] == b"x" * 50_000 + b"y" * 49_999 + b"z"
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_the_end_of_a_long_answer_waits_for_a_slow_visitor() -> None:
    """Nothing of an answer is lost where its service has closed, and reset, meanwhile."""
    lab = Lab()
    visitor = lab.connect(buffer_size=1000)
    visitor.receive(get())
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 5000)
    lab.channel.receive(b"y" * 5000)
    lab.channel.peer_half_close()
    lab.channel.peer_resets(ResetCode.CANCEL)
    for _ in range(200):
        visitor.drain(100)
    lab.settle(visitor)
    assert visitor.sent.endswith(b"0\r\n\r\n")
    assert visitor.sent.count(b"y") == 5000
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_service_that_stops_reading_holds_up_its_own_visitor() -> None:
    """The visitor is not read while the stream is full."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 100000\r\n\r\n")
    lab.channel.buffer_size = 1000
    visitor.receive(b"x" * 2000)
    visitor.receive(b"x" * 2000)
    assert not is_read(visitor)
    lab.settle(visitor)
    assert is_read(visitor)
    visitor.receive(b"x" * 96_000)
    lab.settle(visitor)
    assert lab.channel.sent.count(b"x") >= 100_000
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_visitor_that_goes_away() -> None:
    """The service learns of it."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    visitor.peer_reset()
    assert lab.channel.resets == [ResetCode.CANCEL]
    assert lab.log.requests[0].closed == "the visitor went away"
    lab.assert_nothing_left()


def test_a_visitor_that_half_closes_gets_its_answer() -> None:
    """As from ``nc -N``; half a request gets none, and who has gone is not waited for."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get())
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert visitor.sent.endswith(b"answer")
    assert not visitor.connected
    half = lab.connect()
    half.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 10\r\n\r\n12")
    half.peer_half_close()
    lab.settle(half)
    assert not half.connected
    assert lab.channel.resets
    gone = lab.connect()
    gone.receive(get())
    gone.peer_half_close()
    lab.clock.advance(76)
    lab.settle(gone)
    assert not gone.connected
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_what_happens_before_the_end_of_the_relay() -> None:
    """Idle connections close at once, others with their answers, which say so."""
    lab = Lab()
    idle, busy = lab.connect(), lab.connect()
    idle.receive(get())
    lab.settle(idle)
    lab.channel.receive(OK)
    lab.settle(idle)
    busy.receive(get())
    lab.settle(busy)
    lab.site.drain()
    lab.settle(idle, busy)
    assert not is_there(idle)
    assert is_there(busy)
    lab.channel.receive(OK)
    lab.settle(busy)
    assert split(busy.sent)[1]["connection"] == "close"
    assert not is_there(busy)
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_connections_by_a_tunnel_that_is_about_to_end_are_not_kept() -> None:
    """Neither those that wait already, nor what a request leaves behind."""
    lab = Lab()
    idle, busy = lab.connect(), lab.connect()
    idle.receive(get())
    busy.receive(get())
    lab.settle(idle, busy)
    first, second = lab.service.channels
    first.receive(OK)
    lab.settle(idle)
    assert not is_finished(first)
    lab.service.leaving = True
    lab.site.let_go()
    lab.settle()
    assert is_finished(first)
    assert idle.connected
    second.receive(OK)
    lab.settle(busy)
    assert second.write_closed
    idle.peer_reset()
    busy.peer_reset()
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_an_upgrade() -> None:
    """With the 101 the two ends are joined, with what came before it on either side."""
    lab = Lab()
    visitor = lab.connect()
    ask = get("/ws", "site.example", "Connection: Upgrade", "Upgrade: websocket")
    visitor.receive(ask + b"early")
    lab.settle(visitor)
    assert b"early" not in lab.channel.sent
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in lab.channel.sent
    lab.channel.receive(
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
    )
    lab.settle(visitor)
    assert lab.channel.sent.endswith(b"\r\n\r\nearly")
    assert visitor.sent.endswith(b"\r\n\r\nhello")
    visitor.receive(b"GET / HTTP/1.1\r\n")
    lab.channel.receive(b"HTTP/1.1 ")
    lab.settle(visitor)
    assert lab.channel.sent.endswith(b"earlyGET / HTTP/1.1\r\n")
    assert visitor.sent.endswith(b"helloHTTP/1.1 ")
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.channel.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    entry = lab.log.requests[0]
    assert (entry.status, entry.received, entry.sent) == (101, 21, 14)
    lab.assert_nothing_left()


def test_an_upgrade_that_is_refused() -> None:
    """The answer is one like any other, and the connection goes on."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/ws", "site.example", "Connection: Upgrade", "Upgrade: websocket"))
    lab.settle(visitor)
    lab.channel.receive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    visitor.receive(get("/next"))
    lab.settle(visitor)
    assert b"GET /next " in lab.channel.sent
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_an_outage_is_waited_for() -> None:
    """A request to a parked service is held, with what its visitor sends, and then served."""
    lab = Lab()
    visitor = lab.connect()
    lab.service.problem = ServiceParked(lab.service)
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 4\r\n\r\n12")
    visitor.receive(b"34")
    assert not lab.service.channels
    lab.service.problem = None
    lab.service.waiting[0].callback(lab.service)
    lab.settle(visitor)
    assert lab.channel.sent.endswith(b"\r\n\r\n1234")
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_an_outage_that_lasts() -> None:
    """503 and when to try again; and nothing where the visitor has gone meanwhile."""
    lab = Lab()
    visitor, gone = lab.connect(), lab.connect()
    lab.service.problem = ServiceParked(lab.service)
    visitor.receive(get())
    gone.receive(get())
    gone.peer_reset()
    lab.service.waiting[0].errback(ServiceAway())
    lab.settle(visitor)
    status, fields, _ = split(visitor.sent)
    assert (status, fields["retry-after"]) == (503, "5")
    # An error of the relay's is no reason to close.
    assert visitor.connected
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_too_many_requests_under_way() -> None:
    """503, and nothing is opened."""
    lab = Lab()
    lab.service.most = 0
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 503
    assert not lab.service.channels
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_idle_connections_give_way() -> None:
    """Where a tunnel has no stream left, one that waits for another request is given up; where
    none does, it is 503."""
    lab = Lab()
    lab.service.most_streams = 1
    idle, busy, late = lab.connect(), lab.connect(), lab.connect()
    idle.receive(get())
    lab.settle(idle)
    lab.channel.receive(OK)
    lab.settle(idle)
    busy.receive(get())
    lab.settle(busy)
    first, second = lab.service.channels
    assert first.resets
    assert second.sent
    late.receive(get())
    lab.settle(late)
    assert split(late.sent)[0] == 503
    for visitor in (idle, busy, late):
        visitor.peer_reset()
    lab.assert_nothing_left()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(chunked: bool) -> None:
    """413: at once by its length, in chunks once it is."""
    lab = Lab(SiteLimits(body_bytes=10))
    visitor = lab.connect()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 11"
    visitor.receive(b"POST / HTTP/1.1\r\nHost: site.example\r\n" + framing + b"\r\n\r\n")
    if chunked:
        visitor.receive(b"6\r\nabcdef\r\n")
        lab.settle(visitor)
        assert not visitor.sent
        visitor.receive(b"6\r\nabcdef\r\n")
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 413
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_the_relay_itself_on_a_visitors_connection() -> None:
    """Its pages are answered; an agent's handshake is misdirected there."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(get("/", "relay.example"))
    visitor.receive(get("/tunnel", "relay.example", "Connection: Upgrade", "Upgrade: websocket"))
    lab.settle(visitor)
    assert b"HTTP/1.1 200 " in visitor.sent
    assert b"HTTP/1.1 421 " in visitor.sent
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


@pytest.mark.parametrize("tls", [False, True])
def test_what_is_no_request(tls: bool) -> None:
    """400 and closed; before it, what was asked properly is answered."""
    lab = Lab()
    visitor = lab.connect(tls=tls)
    visitor.receive(get() + b"nonsense \r\n\r\n")
    lab.settle(visitor)
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert visitor.sent.index(b"answer") < visitor.sent.index(b"HTTP/1.1 400 ")
    visitor.peer_half_close()
    lab.settle(visitor)
    assert not visitor.connected
    assert [entry.status for entry in lab.log.requests] == [200, 400]
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_chunks_that_go_wrong_within() -> None:
    """A body whose end cannot be told ends the request, and its stream."""
    lab = Lab()
    visitor = lab.connect()
    visitor.receive(
        b"POST / HTTP/1.1\r\nHost: site.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    visitor.receive(b"-1\r\n")
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 400
    assert lab.channel.resets
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()
