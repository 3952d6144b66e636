"""HTTP/2 connections: a client of hyper-h2's against the visitor's side; exchanges are scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hyperframe.frame import HeadersFrame
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from srrrs.http.head import NO_BODY, UNTIL_CLOSE, Framing, Kind, RequestHead, ResponseHead
from srrrs.relay.edge import h2, h2stream
from srrrs.relay.edge.closing import LINGER
from srrrs.relay.edge.h2 import (
    CONNECTION_WINDOW,
    DRAINED,
    STREAM_WINDOW,
    STREAMS,
    Http2Visitor,
)
from srrrs.relay.edge.patience import PATIENCE
from srrrs.relay.edge.site import ConnectionInfo, Site
from srrrs.testing import FakeTransport

PEER = IPv4Address("TCP", "192.0.2.1", 50000)
GET = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "a.example"),
    (":path", "/"),
]
POST = [(":method", "POST"), *GET[1:]]


class Script:
    """An exchange that does what the test says."""

    def __init__(self, context: object, responder: Any, head: RequestHead) -> None:
        self.responder = responder
        self.head = head
        self.body = b""
        self.trailers: Sequence[tuple[bytes, bytes]] | None = None
        self.gone = False
        self.paused: list[bool] = []
        MADE.append(self)

    def start(self) -> None:
        pass

    def request_data(self, data: bytes) -> None:
        self.body += data

    def request_end(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        assert self.trailers is None
        self.trailers = trailers

    def visitor_gone(self) -> None:
        assert not self.gone
        self.gone = True

    def pause_response(self) -> None:
        self.paused.append(True)

    def resume_response(self) -> None:
        self.paused.append(False)

    def answer(self, body: bytes = b"hello", framing: Framing | None = None) -> None:
        """A whole response."""
        self.respond(framing or Framing(Kind.LENGTH, len(body)))
        self.responder.write(body)
        self.responder.finish(())

    def respond(self, framing: Framing, status: int = 200) -> None:
        fields = [(b"content-type", b"text/plain")]
        self.responder.respond(ResponseHead(status, b"OK", (1, 1), fields, framing))


MADE: list[Script] = []


class Client:
    """A visitor: hyper-h2's other end, joined to the visitor's side by a bounded transport."""

    def __init__(self, buffer_size: int = 1 << 20) -> None:
        self.clock = Clock()
        self.site = Site(self.clock)
        info = ConnectionInfo(PEER, PEER, secure=True, sni="a.example")
        self.visitor = Http2Visitor(self.site, info)
        self.transport = FakeTransport(peer=PEER, tls=True)
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()
        self.transport.attach(self.visitor)
        self.events: list[Event] = []
        self.turn()

    def turn(self) -> list[Event]:
        """Bytes both ways until nothing moves; the events that are new."""
        new: list[Event] = []
        while True:
            sent = self.h2.data_to_send()
            if sent and self.transport.connected:
                self.transport.receive(sent)
            got = self.transport.drain()
            if got:
                new += self.h2.receive_data(got)
            if not sent and not got:
                self.events += new
                return new

    def ask(self, headers: list[tuple[str, str]] = GET, end: bool = True) -> tuple[int, Script]:
        """Make a request; its stream and its exchange."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=end)
        self.turn()
        return stream, MADE[-1]

    def of(self, kind: type) -> list[Any]:
        """All events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def body(self, stream: int) -> bytes:
        """What has come of a response."""
        return b"".join(each.data for each in self.of(DataReceived) if each.stream_id == stream)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A connection whose exchanges are scripts."""
    monkeypatch.setattr(h2stream, "Exchange", Script)
    MADE.clear()
    client = Client()
    yield client
    if client.transport.connected:
        client.transport.peer_reset()
    client.site.stop()
    assert not client.clock.getDelayedCalls()


def test_a_request_and_its_response(client: Client) -> None:
    """Heads, body and ends arrive, each once; a response in one go needs no more frames."""
    stream, exchange = client.ask()
    assert (exchange.head.host, exchange.head.version) == ("a.example", (2, 0))
    assert exchange.trailers == ()
    exchange.answer()
    client.turn()
    [response] = client.of(ResponseReceived)
    assert dict(response.headers) == {
        b":status": b"200",
        b"content-type": b"text/plain",
        b"content-length": b"5",
    }
    assert client.body(stream) == b"hello"
    assert len(client.of(StreamEnded)) == 1


def test_an_empty_response_ends_with_its_head(client: Client) -> None:
    """No DATA frame for nothing."""
    _, exchange = client.ask()
    exchange.respond(NO_BODY, 304)
    exchange.responder.finish(())
    events = client.turn()
    assert [type(event) for event in events] == [ResponseReceived, StreamEnded]


def test_interim_responses_come_first(client: Client) -> None:
    """103 and the like go out at once, before the final head."""
    _, exchange = client.ask()
    exchange.responder.interim(ResponseHead(103, b"", (1, 1), [(b"link", b"</x>")], NO_BODY))
    exchange.responder.flush()
    assert [type(each) for each in client.turn()] == [InformationalResponseReceived]
    exchange.answer()
    client.turn()
    assert len(client.of(ResponseReceived)) == 1


def test_a_head_goes_out_by_a_flush(client: Client) -> None:
    """Server-sent events: the visitor hears of the response before its first byte."""
    stream, exchange = client.ask()
    exchange.respond(UNTIL_CLOSE)
    assert not client.turn()
    exchange.responder.flush()
    assert [type(each) for each in client.turn()] == [ResponseReceived]
    exchange.responder.write(b"data: 1\n\n")
    exchange.responder.flush()
    client.turn()
    assert client.body(stream) == b"data: 1\n\n"


def test_a_request_body_with_trailers(client: Client) -> None:
    """Body and trailers reach the exchange; the windows are credited."""
    stream, exchange = client.ask(POST, end=False)
    sent = 0
    while sent < 2 * CONNECTION_WINDOW:
        size = min(client.h2.local_flow_control_window(stream), 16384)
        assert size, "the window is not credited"
        client.h2.send_data(stream, b"x" * size)
        sent += size
        client.turn()
    client.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
    client.turn()
    assert len(exchange.body) == sent
    assert exchange.trailers == [(b"x-sum", b"1")]


def test_a_paused_request_is_not_credited(client: Client) -> None:
    """One upload whose backend is slow stops at its window, and only it."""
    slow, exchange = client.ask(POST, end=False)
    exchange.responder.pause_request()
    while size := min(client.h2.local_flow_control_window(slow), 16384):
        client.h2.send_data(slow, b"x" * size)
        client.turn()
    assert len(exchange.body) == STREAM_WINDOW
    other, quick = client.ask(POST, end=False)
    for _ in range(64):
        client.h2.send_data(other, b"y" * 16384)
        client.turn()
    assert len(quick.body) == 64 * 16384
    exchange.responder.resume_request()
    client.turn()
    assert client.h2.local_flow_control_window(slow) >= STREAM_WINDOW // 2


def test_a_visitor_that_does_not_credit_pauses_its_backend_alone(client: Client) -> None:
    """What waits for credit is bounded, and goes on where it stopped."""
    stream, exchange = client.ask()
    exchange.respond(UNTIL_CLOSE)
    whole = bytes(range(256)) * 1024
    exchange.responder.write(whole)
    exchange.responder.flush()
    client.turn()
    assert exchange.paused == [True]
    assert len(client.body(stream)) == 65_535
    _, other = client.ask()
    assert other.paused == []
    client.h2.increment_flow_control_window(1 << 20)
    client.h2.increment_flow_control_window(1 << 20, stream)
    client.turn()
    assert exchange.paused == [True, False]
    exchange.responder.finish([(b"x-sum", b"2")])
    client.turn()
    assert client.body(stream) == whole
    assert dict(client.of(TrailersReceived)[0].headers) == {b"x-sum": b"2"}


def test_streams_take_turns(client: Client) -> None:
    """A small response does not wait for the end of a large one."""
    client.h2.increment_flow_control_window(1 << 24)
    client.h2.update_settings({4: 1 << 24})
    client.turn()
    large, first = client.ask()
    small, second = client.ask()
    first.respond(UNTIL_CLOSE)
    client.visitor.pauseProducing()
    first.responder.write(b"x" * (1 << 20))
    second.answer()
    client.visitor.resumeProducing()
    client.turn()
    order = [each.stream_id for each in client.of(DataReceived)]
    assert order.index(small) < 3
    assert len(client.body(large)) == 1 << 20


def test_a_broken_response_is_reset(client: Client) -> None:
    """The visitor cannot take it for a whole one."""
    _, exchange = client.ask()
    exchange.respond(UNTIL_CLOSE)
    exchange.responder.write(b"half")
    exchange.responder.broken()
    client.turn()
    [reset] = client.of(StreamReset)
    assert reset.error_code is ErrorCodes.INTERNAL_ERROR


def test_a_request_that_ends_soon_after_its_response(client: Client) -> None:
    """Both are complete, and nothing is reset."""
    stream, exchange = client.ask(POST, end=False)
    exchange.answer()
    client.turn()
    for _ in range(DRAINED // 16384 - 1):
        client.h2.send_data(stream, b"x" * 16384)
        client.turn()
    # The last of what is dropped, and the end, at once.
    client.h2.send_data(stream, b"x" * 16384)
    client.h2.end_stream(stream)
    client.turn()
    assert client.body(stream) == b"hello"
    assert not client.of(StreamReset)
    assert not exchange.body
    _, next_one = client.ask()
    next_one.answer()
    client.turn()
    assert len(client.of(StreamEnded)) == 2


def test_an_early_response_ends_the_request(client: Client) -> None:
    """RFC 9113, 8.1: some more of it goes to nobody, credited as ever; then a reset without an
    error asks for no more."""
    stream, exchange = client.ask(POST, end=False)
    exchange.answer()
    client.turn()
    for _ in range(DRAINED // 16384):
        assert not client.of(StreamReset)
        client.h2.send_data(stream, b"x" * 16384)
        client.turn()
    [reset] = client.of(StreamReset)
    assert reset.error_code is ErrorCodes.NO_ERROR
    assert client.body(stream) == b"hello"
    assert not exchange.gone
    _, next_one = client.ask()
    next_one.answer()
    client.turn()
    assert len(client.of(StreamEnded)) == 2


def test_a_reset_by_the_visitor(client: Client) -> None:
    """The exchange hears of it, once; the others go on."""
    stream, exchange = client.ask()
    _, other = client.ask()
    client.h2.reset_stream(stream, ErrorCodes.CANCEL)
    client.turn()
    assert exchange.gone
    assert not other.gone


def test_the_end_of_the_connection(client: Client) -> None:
    """Every exchange hears of it."""
    client.ask()
    client.ask(POST, end=False)
    client.transport.peer_reset()
    assert [each.gone for each in MADE] == [True, True]


def test_a_malformed_request_is_answered_and_harms_no_other(client: Client) -> None:
    """400, and the connection stands."""
    _, other = client.ask()
    bad = client.h2.get_next_available_stream_id()
    client.h2.send_headers(bad, [*GET[:3], (":path", "/#x")], end_stream=True)
    client.turn()
    [response] = client.of(ResponseReceived)
    assert dict(response.headers)[b":status"] == b"400"
    assert len(MADE) == 1
    other.answer()
    client.turn()
    assert len(client.of(ResponseReceived)) == 2


def test_a_host_that_is_served_by_another_certificate(client: Client) -> None:
    """421: a browser that put two hosts on one connection asks again by another."""
    client.site.same_certificate = lambda sni, host: host == "b.example"
    stream, exchange = client.ask([*GET[:2], (":authority", "b.example"), GET[3]])
    assert exchange.head.host == "b.example"
    stream = client.h2.get_next_available_stream_id()
    foreign = [*GET[:2], (":authority", "c.example"), GET[3]]
    client.h2.send_headers(stream, foreign, end_stream=True)
    client.turn()
    assert len(MADE) == 1
    [response] = client.of(ResponseReceived)
    assert dict(response.headers)[b":status"] == b"421"


# --- what makes work and carries nothing ----------------------------------------------------


def calm(client: Client) -> bool:
    """Whether the visitor was told to calm down, and its connection ends."""
    return [each.error_code for each in client.of(ConnectionTerminated)] == [
        ErrorCodes.ENHANCE_YOUR_CALM
    ] and client.transport.disconnecting


def test_rapid_reset(client: Client) -> None:
    """CVE-2023-44487: requests that are taken back at once end the connection before long, and
    every exchange was told."""
    for _ in range(int(PATIENCE) + 2):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, GET, end_stream=True)
        client.h2.reset_stream(stream)
        client.turn()
        if client.transport.disconnecting:
            break
    assert calm(client)
    assert all(each.gone for each in MADE)
    assert len(MADE) <= PATIENCE + 1


def test_pings_without_end(client: Client) -> None:
    """CVE-2019-9512: their answers do not pile up."""
    client.h2.ping(b"12345678")
    ping = client.h2.data_to_send()
    client.transport.receive(ping * (int(PATIENCE) + 2))
    client.turn()
    assert calm(client)


def test_settings_without_end(client: Client) -> None:
    """CVE-2019-9515."""
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    client.transport.receive(settings * 60)
    client.events += client.h2.receive_data(client.transport.drain()[:-17])
    assert client.transport.disconnecting


def test_empty_data_without_end(client: Client) -> None:
    """CVE-2019-9518: frames that carry nothing."""
    stream, _ = client.ask(POST, end=False)
    client.h2.send_data(stream, b"")
    frame = client.h2.data_to_send()
    client.transport.receive(frame * (int(PATIENCE) + 2))
    client.turn()
    assert calm(client)


def test_continuation_without_end(client: Client) -> None:
    """CVE-2024-27316 and its kin: a head that never ends is cut off at a bound."""
    client.h2.send_headers(1, GET)
    client.h2.data_to_send()
    opening = b"\x00\x00\x00\x01\x00\x00\x00\x00\x03"
    more = b"\x00\x40\x00\x09\x00\x00\x00\x00\x03" + b"\x00" * 16384
    client.transport.receive(opening)
    count = 0
    while not client.transport.disconnecting:
        client.transport.receive(more)
        count += 1
        assert count < 80
    assert not MADE


def test_a_head_that_is_too_long(client: Client) -> None:
    """Beyond the bytes of a head nothing is unpacked."""
    stream = client.h2.get_next_available_stream_id()
    fields = [(f"x-{n}", "y" * 4000) for n in range(12)]
    client.h2.send_headers(stream, [*GET, *fields], end_stream=True)
    client.turn()
    assert not MADE
    assert client.transport.disconnecting or client.of(ResponseReceived)


def test_too_many_streams(client: Client) -> None:
    """A visitor that does not keep to the limit it was told is not served beyond it."""
    for number in range(STREAMS + 1):
        frame = HeadersFrame(2 * number + 1, client.h2.encoder.encode(GET))
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        client.transport.receive(frame.serialize())
    assert len(MADE) == STREAMS
    assert client.transport.disconnecting


def test_a_body_longer_than_its_length(client: Client) -> None:
    """RFC 9113, 8.1.1: what follows could be another request to the backend."""
    stream, exchange = client.ask([*POST, ("content-length", "3")], end=False)
    client.h2.send_data(stream, b"abcdef", end_stream=True)
    client.turn()
    assert b"abcdef" not in exchange.body
    assert exchange.gone


def test_a_body_shorter_than_its_length(client: Client) -> None:
    """The exchange never takes it for complete."""
    stream, exchange = client.ask([*POST, ("content-length", "30")], end=False)
    client.h2.send_data(stream, b"abc", end_stream=True)
    client.turn()
    assert exchange.trailers is None
    assert exchange.gone


# --- deadlines ------------------------------------------------------------------------------


def test_a_connection_without_a_request(client: Client) -> None:
    """It ends after the time for a head; and at once where it does not close."""
    client.clock.advance(client.site.limits.head_timeout)
    assert client.transport.disconnecting
    client.turn()
    assert [each.error_code for each in client.of(ConnectionTerminated)] == [ErrorCodes.NO_ERROR]


def test_an_idle_connection(client: Client) -> None:
    """It ends after its time; one with a request under way does not."""
    _, exchange = client.ask()
    client.clock.advance(client.site.limits.idle_timeout * 3)
    assert not client.transport.disconnecting
    exchange.answer()
    client.turn()
    client.clock.advance(client.site.limits.idle_timeout)
    assert client.transport.disconnecting


def test_a_visitor_that_does_not_close(client: Client) -> None:
    """Its last words wait for it no longer than the time to linger."""
    client.clock.advance(client.site.limits.head_timeout)
    before = client.transport.aborted
    client.clock.advance(LINGER)
    assert (before, client.transport.aborted) == (False, True)
    client.turn()


def test_a_visitor_that_is_slow_to_take_its_last_answer(client: Client) -> None:
    """The end of the connection waits for it, as over HTTP/1."""
    stream, exchange = client.ask()
    client.transport.buffer_size = 1000
    exchange.answer(b"x" * 5000)
    client.visitor.end_if_idle()
    client.clock.advance(2 * LINGER)
    assert client.transport.disconnecting
    assert not client.transport.aborted
    client.turn()
    assert len(client.body(stream)) == 5000
    assert not client.transport.connected


def test_rubbish(client: Client) -> None:
    """A frame of 16 MiB is refused at its header, and nothing of it collected."""
    client.transport.receive(b"\xff" * 100)
    assert client.transport.disconnecting
    client.turn()
    [end] = client.of(ConnectionTerminated)
    assert end.error_code is ErrorCodes.FRAME_SIZE_ERROR


def test_the_module_names_its_caps() -> None:
    """What waits here is bounded by them."""
    assert h2.STREAMS * h2stream.QUEUE <= 16 << 20
    assert STREAM_WINDOW <= CONNECTION_WINDOW
