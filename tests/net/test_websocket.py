"""The production carrier: opening, messages, closing, and what a hostile peer gets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from srrrs.net.carrier import ICarrier, ICarrierHandler
from srrrs.net.websocket import (
    AgentCarrier,
    AgentCarrierFactory,
    Denial,
    HandshakeDenied,
    HandshakeFailed,
    RelayCarrier,
    RelayCarrierFactory,
)
from srrrs.net.websocket.base import CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT
from srrrs.protocol import handshake
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.handshake import Denied, Hello, Welcome
from srrrs.testing import BUFFER, Connection, FakeTransport, connect

TOKEN = "srrrs_secret_that_nobody_may_see"
HELLO = Hello("0" * 32, "machine", "srrrs/0", 15.0)
WELCOME = Welcome("1", 15.0, "localhost", "srrrs/0")
UPGRADE = (
    "GET /tunnel HTTP/1.1\r\nHost: localhost:8000\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)
SUBPROTOCOL = "Sec-WebSocket-Protocol: srrrs.v1\r\n"
BEARER = f"Authorization: Bearer {TOKEN}\r\n"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def say_hello(nonce: str) -> Hello:
    return HELLO


# --- a WebSocket peer made by hand ------------------------------------------------------------


def frame(
    opcode: int, payload: bytes, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """A frame (RFC 6455, 5.2) in the shortest form of its length."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))


def frames(data: bytes) -> Iterator[tuple[int, bytes, bytes | None]]:
    """The frames in ``data``: opcode, payload, mask."""
    while data:
        opcode, second = data[0] & 15, data[1]
        size, pos = second & 127, 2
        if size == 126:
            size, pos = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, pos = int.from_bytes(data[2:10], "big"), 10
        key = None
        if second & 128:
            key, pos = data[pos : pos + 4], pos + 4
        payload = data[pos : pos + size]
        if key is not None:
            payload = bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))
        yield opcode, payload, key
        data = data[pos + size :]


def close_code(data: bytes) -> int:
    """The code of the close frame in what was sent."""
    (payload,) = [payload for opcode, payload, _ in frames(data) if opcode == CLOSE]
    return int.from_bytes(payload[:2], "big")


@implementer(ICarrierHandler)
class Handler:
    """Writes down what a carrier tells."""

    def __init__(self) -> None:
        self.data = b""
        self.acks: list[int] = []
        self.pongs: list[bytes] = []
        self.flow: list[str] = []
        self.lost: list[tuple[int | None, str]] = []

    def session_data(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        self.data += data[start:end]

    def ack_received(self, count: int) -> None:
        self.acks.append(count)

    def ponged(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")

    def carrier_lost(self, code: int | None, reason: str) -> None:
        self.lost.append((code, reason))


class Relay:
    """A relay that lets in whoever has the token, and starts its carriers."""

    def __init__(self, clock: Any) -> None:
        self.answer: Welcome | Denied | None = WELCOME
        self.handler = Handler()
        self.hellos: list[Hello] = []
        self.asked: list[str | None] = []
        self.factory = RelayCarrierFactory(clock, self.authorize, self.greet)

    def authorize(self, token: str | None, peer: IAddress) -> str:
        self.asked.append(token)
        if token != TOKEN:
            raise Denial(401, "The token is not valid.")
        return "someone"

    def greet(self, carrier: RelayCarrier, identity: Any, hello: Hello) -> None:
        assert identity == "someone"
        self.hellos.append(hello)
        if self.answer is not None:
            carrier.answer(self.answer)
            if isinstance(self.answer, Welcome):
                carrier.start(self.handler)


class Raw:
    """The relay's carrier, with a peer made by hand."""

    def __init__(self, head: str | None = UPGRADE + SUBPROTOCOL + BEARER) -> None:
        self.clock = Clock()
        self.relay = Relay(self.clock)
        self.carrier: Any = self.relay.factory.buildProtocol(None)
        self.transport: Any = FakeTransport()
        self.transport.attach(self.carrier)
        if head is not None:
            self.say((head + "\r\n").encode())

    @property
    def handler(self) -> Handler:
        return self.relay.handler

    def say(self, data: bytes, piece: int | None = None) -> None:
        step = piece or max(1, len(data))
        for start in range(0, len(data), step):
            self.transport.receive(data[start : start + step])

    def heard(self) -> bytes:
        """What the relay has said since the last time."""
        return bytes(self.transport.drain())

    def opened(self) -> Raw:
        """Through the handshake; the answer is heard."""
        assert self.heard().startswith(b"HTTP/1.1 101 ")
        self.say(frame(TEXT, handshake.encode(HELLO)))
        ((opcode, payload, key),) = frames(self.heard())
        assert (opcode, key) == (TEXT, None)
        assert handshake.decode_answer(payload) == WELCOME
        return self

    def closes(self, code: int) -> None:
        """The relay closes with that code, and does not wait for ever."""
        assert close_code(self.heard()) == code
        self.clock.advance(CLOSE_TIMEOUT)
        self.transport.drain()
        assert not self.transport.connected
        assert self.clock.getDelayedCalls() == []


class Both:
    """An agent's carrier and a relay's, joined in memory."""

    def __init__(self, token: str = TOKEN, capacity: int = BUFFER) -> None:
        self.clock = Clock()
        self.relay = Relay(self.clock)
        self.handler = Handler()
        factory = AgentCarrierFactory(self.clock, "ws://localhost:8000/tunnel", token, say_hello)
        self.agent: Any = factory.buildProtocol(None)
        self.welcomed: list[Any] = []
        self.agent.welcomed.addCallback(self._start).addBoth(self.welcomed.append)
        self.carrier: Any = self.relay.factory.buildProtocol(None)
        self.connection: Connection = connect(self.agent, self.carrier, capacity=capacity)

    def _start(self, result: tuple[AgentCarrier, Welcome]) -> Welcome:
        carrier, welcome = result
        carrier.start(self.handler)
        return welcome

    def opened(self) -> Both:
        self.connection.flush()
        assert self.welcomed == [WELCOME]
        return self

    def over(self) -> bool:
        assert not self.connection.a.connected
        assert not self.connection.b.connected
        return self.clock.getDelayedCalls() == []


class Web:
    """An agent's carrier, with an HTTP server made by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        factory = AgentCarrierFactory(self.clock, "ws://localhost:8000", TOKEN, say_hello)
        self.agent: Any = factory.buildProtocol(None)
        self.welcomed: list[Any] = []
        self.agent.welcomed.addErrback(lambda failure: failure.value)
        self.agent.welcomed.addBoth(self.welcomed.append)
        self.transport: Any = FakeTransport()
        self.transport.attach(self.agent)

    def answer(self, data: bytes) -> Any:
        """What `welcomed` came to after this answer, and the connection's end."""
        self.transport.drain()
        self.transport.receive(data)
        self.transport.drain()
        self.transport.peer_half_close()
        self.clock.advance(CLOSE_TIMEOUT)
        self.transport.drain()
        assert not self.transport.connected
        assert self.clock.getDelayedCalls() == []
        (result,) = self.welcomed
        return result


# --- opening ----------------------------------------------------------------------------------


def test_a_handshake_and_what_follows() -> None:
    """Hello and welcome, then session bytes, acknowledgements and pings both ways."""
    both = Both().opened()
    assert verifyObject(ICarrier, both.agent)
    assert verifyObject(ICarrier, both.carrier)
    assert both.relay.hellos == [HELLO]
    assert both.relay.asked == [TOKEN]
    for carrier, handler in ((both.agent, both.relay.handler), (both.carrier, both.handler)):
        carrier.send([b"one ", b"two ", b"three"], 13)
        carrier.send_ack(1 << 40)
        carrier.ping(b"12345678")
        both.connection.flush()
        assert handler.data == b"one two three"
        assert handler.acks == [1 << 40]
    assert both.handler.pongs == both.relay.handler.pongs == [b"12345678"]
    assert both.clock.getDelayedCalls() == []


def test_a_bad_token() -> None:
    """401 with a challenge (RFC 9110, 15.5.2), as plain text, and nothing that tells why."""
    raw = Raw(UPGRADE + SUBPROTOCOL + "Authorization: Bearer wrong\r\n")
    head, _, body = raw.heard().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 401 Unauthorized"
    assert b'WWW-Authenticate: Bearer realm="srrrs"' in lines
    assert b"Connection: close" in lines
    assert b"Content-Length: %d" % len(body) in lines
    assert b"wrong" not in body
    assert b"<" not in body
    raw.clock.advance(CLOSE_TIMEOUT)
    raw.transport.drain()
    assert not raw.transport.connected
    assert raw.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("head", "token"),
    [
        ("", None),
        ("Authorization: Basic dTpw\r\n", None),
        ("Authorization: Bearer\r\n", ""),
        (f"Authorization: bearer   {TOKEN}  \r\n", TOKEN),
        (f"Authorization: {TOKEN}\r\n", None),
    ],
)
def test_what_is_taken_for_a_token(head: str, token: str | None) -> None:
    """Bearer, in any case (RFC 6750, 2.1; RFC 9110, 11.1); anything else is no token."""
    raw = Raw(UPGRADE + SUBPROTOCOL + head)
    assert [each or None for each in raw.relay.asked] == [token or None]
    raw.transport.peer_reset()


def test_the_agent_learns_of_a_bad_token() -> None:
    both = Both(token="wrong")
    both.connection.flush()
    (failure,) = both.welcomed
    assert failure.check(Denial)
    assert (failure.value.status, failure.value.message) == (401, "Unauthorized")
    assert both.over()


def test_no_subprotocol() -> None:
    """Whoever speaks something else is told so before the upgrade, and no token is looked at."""
    for other in ("", "Sec-WebSocket-Protocol: chat, srrrs.v0\r\n"):
        raw = Raw(UPGRADE + other + BEARER)
        answer = raw.heard()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"srrrs.v1" in answer
        assert raw.relay.asked == []
        raw.transport.peer_reset()


@pytest.mark.parametrize("query", ["", "?redirect=http%3A%2F%2Fexample.com&after=1"])
@pytest.mark.parametrize("headers", ["", BEARER])
def test_no_page_and_no_redirect(query: str, headers: str) -> None:
    """A request without an upgrade gets an error: never Autobahn's page, nor a redirect."""
    raw = Raw(f"GET /tunnel{query} HTTP/1.1\r\nHost: localhost\r\n{headers}")
    answer = raw.heard()
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"ocation" not in answer
    assert b"html" not in answer.lower()
    assert b"example.com" not in answer
    raw.transport.peer_reset()


@pytest.mark.parametrize(
    "head",
    [
        UPGRADE.replace("Version: 13", "Version: 8") + SUBPROTOCOL + BEARER,
        UPGRADE.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "") + SUBPROTOCOL,
        UPGRADE.replace("GET", "POST") + SUBPROTOCOL + BEARER,
        UPGRADE.replace("/tunnel", "http://localhost:x/#tunnel") + SUBPROTOCOL + BEARER,
    ],
)
def test_bad_upgrades(head: str) -> None:
    """Anything that is no WebSocket of version 13 is refused and forgotten."""
    raw = Raw(head)
    assert raw.heard()[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5")
    raw.clock.advance(HANDSHAKE_TIMEOUT + CLOSE_TIMEOUT)
    raw.transport.drain()
    assert not raw.transport.connected
    assert raw.clock.getDelayedCalls() == []


def test_denied() -> None:
    """A denial after the upgrade reaches the agent whole, then the carrier closes."""
    both = Both()
    both.relay.answer = Denied("limit", "too many tunnels", True)
    both.connection.flush()
    (failure,) = both.welcomed
    assert failure.check(HandshakeDenied)
    assert failure.value.denied == both.relay.answer
    assert both.over()


PAGES = {
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: https://example.com/\r\n\r\n",
    "a proxy": b"HTTP/1.1 502 Bad \xff\x1b[31mGateway\r\n\r\n",
    "a status alone": b"HTTP/1.1 503\r\n\r\n",
}


@pytest.mark.parametrize("page", PAGES)
def test_http_answers(page: str) -> None:
    """A status that is not 101 is told as such, its text only where it is fit to print."""
    problem = Web().answer(PAGES[page])
    assert isinstance(problem, Denial)
    assert problem.status == int(PAGES[page][9:12])
    assert problem.message.isprintable()


NO_RELAYS = {
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "nonsense": b"\x00\x01\x02\r\n\r\n",
    "no accept key": b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "too long": b"HTTP/1.1 101 x\r\nX: " + b"x" * 40_000,
    "too long, with an end": b"HTTP/1.1 101 x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("nonsense", NO_RELAYS)
def test_no_relay(nonsense: str) -> None:
    """Whatever answers nonsense is no relay; nothing else of it is kept."""
    problem = Web().answer(NO_RELAYS[nonsense])
    assert isinstance(problem, HandshakeFailed)


def test_an_answer_without_our_subprotocol() -> None:
    """A WebSocket server that is not a relay of this version is told from one."""
    web = Web()
    request = web.transport.drain().decode()
    key = next(
        line[19:] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key: ")
    )
    from base64 import b64encode
    from hashlib import sha1

    accept = b64encode(sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
    head = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    problem = web.answer(head + accept + b"\r\n\r\n")
    assert isinstance(problem, HandshakeFailed)
    assert "srrrs.v1" in str(problem)


def test_a_connection_that_ends_early() -> None:
    """Before the welcome, `welcomed` errs with what ended the connection."""
    web = Web()
    web.transport.peer_half_close()
    assert isinstance(web.welcomed[0], ConnectionDone)
    assert web.clock.getDelayedCalls() == []


def test_cancelling_a_dial() -> None:
    """Who no longer wants the tunnel cancels `welcomed`, and the connection is aborted."""
    web = Web()
    web.agent.welcomed.cancel()
    web.transport.drain()
    assert not web.transport.connected
    assert web.transport.lost.check(ConnectionAborted)
    assert isinstance(web.welcomed[0], CancelledError | ConnectionAborted)
    assert web.clock.getDelayedCalls() == []


def test_a_welcome_that_nobody_takes() -> None:
    """A carrier whose welcome starts nothing is aborted, not left open."""
    clock = Clock()
    relay = Relay(clock)
    agent: Any = AgentCarrierFactory(clock, "ws://localhost", TOKEN, say_hello).buildProtocol(None)
    connection = connect(agent, relay.factory.buildProtocol(None))
    connection.flush()
    assert not connection.a.connected
    assert relay.handler.lost
    assert clock.getDelayedCalls() == []


# --- time -------------------------------------------------------------------------------------


def test_a_late_head() -> None:
    """A connection that says nothing, or only half a head, is gone when the time is up."""
    for head in (b"", UPGRADE.encode()):
        raw = Raw(None)
        raw.say(head)
        raw.clock.advance(HANDSHAKE_TIMEOUT - 0.1)
        raw.transport.drain()
        assert raw.transport.connected
        raw.clock.advance(0.1)
        raw.transport.drain()
        assert not raw.transport.connected
        assert raw.clock.getDelayedCalls() == []


def test_a_late_hello() -> None:
    """An agent that upgrades and does not say hello is closed with 4008."""
    raw = Raw()
    raw.heard()
    raw.clock.advance(HANDSHAKE_TIMEOUT - 0.1)
    assert raw.heard() == b""
    raw.say(frame(TEXT, b'{"type":', fin=False))
    raw.clock.advance(0.1)
    raw.closes(CloseCode.HANDSHAKE_TIMEOUT)


def test_a_relay_that_does_not_answer() -> None:
    """The agent's handshake has its deadline, too."""
    both = Both()
    both.relay.answer = None
    both.connection.flush()
    assert both.welcomed == []
    both.clock.advance(HANDSHAKE_TIMEOUT)
    both.connection.flush()
    assert len(both.welcomed) == 1
    both.clock.advance(CLOSE_TIMEOUT)
    both.connection.flush()
    assert both.over()


def test_the_closing_handshake_has_a_deadline() -> None:
    """A peer that never answers our close is cut off."""
    raw = Raw().opened()
    raw.carrier.close(CloseCode.SHUTDOWN, "stopping")
    assert close_code(raw.heard()) == CloseCode.SHUTDOWN
    raw.clock.advance(CLOSE_TIMEOUT - 0.1)
    raw.transport.drain()
    assert raw.transport.connected
    raw.clock.advance(0.1)
    raw.transport.drain()
    assert not raw.transport.connected
    assert raw.handler.lost == [(None, "stopping")]


@pytest.mark.parametrize("paused", [False, True])
def test_a_close_while_the_peer_does_not_read(paused: bool) -> None:
    """The deadline holds with a full buffer, on which a TLS transport would wait for ever."""
    raw = Raw().opened()
    if paused:
        raw.carrier.send([b"x" * (BUFFER * 2)], BUFFER * 2)
        assert raw.handler.flow == ["pause"]
    raw.carrier.close(CloseCode.SHUTDOWN, "stopping")
    raw.clock.advance(CLOSE_TIMEOUT)
    raw.transport.drain()
    assert not raw.transport.connected
    assert raw.transport.lost.check(ConnectionAborted)
    assert len(raw.handler.lost) == 1


def test_the_peers_close_is_answered() -> None:
    """A close of the agent's is answered, and told with its code and reason."""
    both = Both().opened()
    both.agent.close(CloseCode.SHUTDOWN, "going home")
    both.connection.flush()
    assert both.relay.handler.lost == [(CloseCode.SHUTDOWN, "going home")]
    assert len(both.handler.lost) == 1
    both.clock.advance(CLOSE_TIMEOUT)
    both.connection.flush()
    assert both.over()


def test_the_relays_close() -> None:
    """And the other way."""
    both = Both().opened()
    both.carrier.close(CloseCode.REVOKED, "the token was revoked")
    both.connection.flush()
    assert both.handler.lost == [(CloseCode.REVOKED, "the token was revoked")]
    assert both.over()


def test_after_the_end() -> None:
    """A carrier that is over takes everything and does nothing."""
    both = Both().opened()
    both.agent.abort()
    both.connection.flush()
    assert both.over()
    for carrier in (both.agent, both.carrier):
        carrier.send([b"x"], 1)
        carrier.send_ack(1)
        carrier.ping(b"x")
        carrier.close(CloseCode.SHUTDOWN, "x")
        carrier.abort()
    assert both.clock.getDelayedCalls() == []
    assert len(both.handler.lost) == len(both.relay.handler.lost) == 1


def test_a_carrier_that_ended_before_it_was_started() -> None:
    """`start` tells of an end that came before."""
    raw = Raw()
    raw.transport.peer_reset()
    handler = Handler()
    raw.carrier.start(handler)
    assert len(handler.lost) == 1


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65534, 65535, 65536, 200_000])
def test_every_length_form(size: int) -> None:
    """Payloads around each boundary of the length's forms arrive, cut anywhere."""
    payload = bytes(range(256)) * (size // 256 + 1)
    data = frame(BINARY, b"\0" + payload[:size]) + frame(BINARY, b"\0end")
    for piece in (None, 1) if size < 1000 else (None, 1, 1000):
        raw = Raw().opened()
        raw.say(data, piece)
        assert raw.handler.data == payload[:size] + b"end"
        assert raw.heard() == b""


@pytest.mark.parametrize("size", [0, 1, 124, 125, 65534, 65535, 70_000])
def test_what_we_send_has_every_length_form(size: int) -> None:
    """Our own frames, of both ends, are read by a reader made after the RFC."""
    both = Both(capacity=1 << 30).opened()
    both.connection.a.sent.clear()
    both.connection.b.sent.clear()
    payload = b"abc" * (size // 3 + 1)
    for carrier, transport in (
        (both.agent, both.connection.a),
        (both.carrier, both.connection.b),
    ):
        carrier.send([payload[:size]], size)
        both.connection.flush()
        ((opcode, got, key),) = frames(bytes(transport.sent))
        assert (opcode, got) == (BINARY, b"\0" + payload[:size])
        assert (key is not None) == (carrier is both.agent)


def test_empty_frames() -> None:
    """Frames and messages without a payload are nothing."""
    raw = Raw().opened()
    raw.say(frame(BINARY, b""))
    raw.say(frame(BINARY, b"", fin=False) + frame(0, b"", fin=False) + frame(0, b"\0x"))
    raw.say(frame(BINARY, b"\0") + frame(BINARY, b"\0y"))
    assert raw.handler.data == b"xy"


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_fragments_with_control_frames_between(piece: int | None) -> None:
    """A fragmented message is taken as it comes; pings between its parts are answered."""
    raw = Raw().opened()
    raw.say(frame(BINARY, b"\0one ", fin=False) + frame(PING, b"p" * 125), piece)
    assert raw.handler.data == b"one "
    assert list(frames(raw.heard())) == [(PONG, b"p" * 125, None)]
    raw.say(frame(0, b"two ", fin=False) + frame(PONG, b"q") + frame(PING, b""), piece)
    raw.say(frame(0, b"three") + frame(BINARY, b"\1" + bytes(7) + b"\5"), piece)
    assert raw.handler.data == b"one two three"
    assert raw.handler.pongs == [b"q"]
    assert raw.handler.acks == [5]
    assert list(frames(raw.heard())) == [(PONG, b"", None)]


def test_bytes_right_behind_the_hello() -> None:
    """An agent that does not wait for the welcome loses nothing."""
    raw = Raw()
    raw.heard()
    raw.say(frame(TEXT, handshake.encode(HELLO)) + frame(BINARY, b"\0early") + frame(PING, b"x"))
    assert raw.handler.data == b"early"
    assert [opcode for opcode, _, _ in frames(raw.heard())] == [TEXT, PONG]


def test_bytes_right_behind_the_welcome() -> None:
    """The same for a relay that speaks in the same breath as it welcomes."""
    both = Both()
    greet = both.relay.factory.greet

    def eager(carrier: RelayCarrier, identity: Any, hello: Hello) -> None:
        greet(carrier, identity, hello)
        carrier.ping(b"at once")
        carrier.send([b"early"], 5)

    both.relay.factory.greet = eager
    both.opened()
    assert both.handler.data == b"early"
    assert both.relay.handler.pongs == [b"at once"]


def test_heads_that_are_no_utf_8() -> None:
    """Bytes beyond ASCII in a head are refused, quietly."""
    raw = Raw(None)
    raw.say(UPGRADE.encode() + b"X: \xff\r\n\r\n")
    assert raw.heard().startswith(b"HTTP/1.1 400 ")
    raw.clock.advance(CLOSE_TIMEOUT)
    raw.transport.drain()
    assert not raw.transport.connected
    assert raw.clock.getDelayedCalls() == []


def test_a_fragmented_hello() -> None:
    """The handshake message may come in pieces, a ping between them."""
    raw = Raw()
    raw.heard()
    hello = handshake.encode(HELLO)
    raw.say(frame(TEXT, hello[:9], fin=False) + frame(PING, b"x") + frame(0, hello[9:]), 3)
    assert raw.relay.hellos == [HELLO]
    assert [opcode for opcode, _, _ in frames(raw.heard())] == [PONG, TEXT]


@pytest.mark.parametrize("kind", [128, 200, 255])
def test_kinds_to_come(kind: int) -> None:
    """Unknown kinds from 128 on are skipped (``SPEC.md``, *Messages*)."""
    raw = Raw().opened()
    raw.say(frame(BINARY, bytes([kind]) + b"x" * 100) + frame(BINARY, b"\0y"))
    assert raw.handler.data == b"y"


VIOLATIONS = {
    "text after the handshake": (frame(TEXT, b"{}"), 4000),
    "a reserved kind": (frame(BINARY, b"\2"), 4000),
    "a long acknowledgement": (frame(BINARY, b"\1" + bytes(9)), 4000),
    "a short acknowledgement": (frame(BINARY, b"\1" + bytes(7)), 4000),
    "no mask": (frame(BINARY, b"\0x", masked=False), 4000),
    "reserved bits": (frame(BINARY, b"\0x", reserved=4), 4000),
    "a reserved opcode": (frame(3, b"\0x"), 4000),
    "a reserved control opcode": (frame(11, b""), 4000),
    "a long ping": (b"\x89\xfe\x00\x7e", 4000),
    "a fragmented ping": (frame(PING, b"", fin=False), 4000),
    "a continuation of nothing": (frame(0, b"x"), 4000),
    "a message within a message": (
        frame(BINARY, b"\0x", fin=False) + frame(BINARY, b"\0y"),
        4000,
    ),
    "a frame that is too long": (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4), 4006),
    "the longest frame": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 4006),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_violations(violation: str) -> None:
    """Whoever breaks the protocol is closed with the code, at the header where it shows."""
    data, code = VIOLATIONS[violation]
    for piece in (None, 1):
        raw = Raw().opened()
        raw.say(data, piece)
        raw.closes(code)
        assert len(raw.handler.lost) == 1


HANDSHAKE_VIOLATIONS = {
    "binary before the handshake": (frame(BINARY, b"\0x"), 4000),
    "no JSON": (frame(TEXT, b"hello?"), 4000),
    "JSON, but no hello": (frame(TEXT, b'{"type": "welcome"}'), 4000),
    "another version": (
        frame(TEXT, handshake.encode(HELLO).replace(b'"version":1', b'"version":2')),
        4005,
    ),
    "too long a frame": (b"\x81\xff" + (1 << 30).to_bytes(8, "big") + bytes(4), 4006),
    "too many fragments": (
        frame(TEXT, b" " * 9000, fin=False) + frame(0, b" " * 9000),
        4006,
    ),
}


@pytest.mark.parametrize("violation", HANDSHAKE_VIOLATIONS)
def test_handshake_violations(violation: str) -> None:
    """The same before the handshake is done; nothing of it is collected beyond the limit."""
    data, code = HANDSHAKE_VIOLATIONS[violation]
    for piece in (None, 1):
        raw = Raw()
        raw.heard()
        raw.say(data, piece)
        raw.closes(code)
        assert raw.relay.hellos == []


def test_a_broken_welcome() -> None:
    """The agent gives up on a relay whose answer makes no sense, and says so."""
    both = Both()
    both.carrier.handshake_message = lambda payload: both.carrier.sendMessage(b"{}")
    both.connection.flush()
    (failure,) = both.welcomed
    assert failure.check(HandshakeFailed)
    assert both.over()


# --- backpressure, masks, secrets -------------------------------------------------------------


def test_backpressure() -> None:
    """The transport's fullness is told to the tunnel, and its end."""
    raw = Raw().opened()
    raw.carrier.send([b"x" * BUFFER], BUFFER)
    raw.carrier.send([b"x"], 1)
    assert raw.handler.flow
    assert set(raw.handler.flow) == {"pause"}
    raw.heard()
    assert raw.handler.flow[-1] == "resume"


def test_a_ping_flood() -> None:
    """While the peer does not read, one pong waits, for the latest ping (RFC 6455, 5.5.3)."""
    raw = Raw().opened()
    raw.carrier.send([b"x" * (BUFFER * 2)], BUFFER * 2)
    before = raw.transport.buffered
    for number in range(10_000):
        raw.say(frame(PING, b"%d" % number))
    assert raw.transport.buffered == before
    raw.heard()
    assert list(frames(raw.heard())) == [(PONG, b"9999", None)]


def test_every_mask_is_new() -> None:
    """Each binary frame of an agent has a mask of its own, from the system's random source."""
    both = Both(capacity=1 << 30).opened()
    both.connection.a.sent.clear()
    for _ in range(200):
        both.agent.send([b"same"], 4)
    both.connection.flush()
    keys = [key for _, _, key in frames(bytes(both.connection.a.sent))]
    assert None not in keys
    assert len(set(keys)) > 195


def test_masks_stay_on_without_tls() -> None:
    """Whatever an agent claims: where there is no TLS that both ends share, it must mask."""
    raw = Raw()
    raw.heard()
    raw.say(frame(TEXT, handshake.encode(replace(HELLO, binding="0" * 64))))
    ((_, payload, _),) = frames(raw.heard())
    welcome = handshake.decode_answer(payload)
    assert isinstance(welcome, Welcome)
    assert welcome.binding is None
    raw.say(frame(BINARY, b"\0x", masked=False))
    raw.closes(CloseCode.PROTOCOL)


def test_masks_stay_on_for_a_relay_that_lies() -> None:
    """An agent goes on masking where the welcome's binding is not its own."""
    both = Both(capacity=1 << 30)
    both.carrier._binding = "0" * 64
    both.connection.flush()
    both.connection.a.sent.clear()
    both.agent.send([b"x"], 1)
    both.connection.flush()
    ((_, _, key),) = frames(bytes(both.connection.a.sent))
    assert key is not None


def test_nothing_secret_is_logged() -> None:
    """At debug level no event holds the token: not of a good handshake, nor a bad one."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    try:
        both = Both().opened()
        both.agent.send([b"x"], 1)
        both.connection.flush()
        both.agent.close(CloseCode.SHUTDOWN, "bye")
        both.connection.flush()
        for head in (
            UPGRADE + SUBPROTOCOL + f"Authorization: Bearer {TOKEN}x\r\n",
            UPGRADE + BEARER,
            BEARER + UPGRADE,
            UPGRADE.replace("13", "99") + SUBPROTOCOL + BEARER,
        ):
            raw = Raw(head)
            raw.transport.peer_reset()
        web = Web()
        web.answer(b"HTTP/1.1 401 " + TOKEN.encode() + b"\r\n\r\n")
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
    for event in events:
        assert TOKEN not in eventAsText(event)
        assert TOKEN not in repr(event)


# --- over real sockets ------------------------------------------------------------------------


@pytest.mark.integration
@pytest_twisted.ensureDeferred
async def test_over_tcp() -> None:
    """Handshake, a megabyte each way, a refusal and a close, over loopback TCP."""
    from twisted.internet import reactor

    relay = Relay(reactor)
    over: Deferred[None] = Deferred()

    class Counting(Handler):
        def session_data(
            self, data: bytes | bytearray, start: int = 0, end: int | None = None
        ) -> None:
            super().session_data(data, start, end)
            if len(self.data) == len(megabyte):
                done[self].callback(None)

        def carrier_lost(self, code: int | None, reason: str) -> None:
            super().carrier_lost(code, reason)
            if self is relay.handler:
                over.callback(None)

    megabyte = bytes(range(256)) * 4096
    near = relay.handler = Counting()
    far = Counting()
    done: dict[Any, Deferred[None]] = {near: Deferred(), far: Deferred()}
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(relay.factory)
    try:
        number = port.getHost().port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)

        async def dial(token: str) -> Any:
            factory = AgentCarrierFactory(reactor, f"ws://127.0.0.1:{number}", token, say_hello)
            agent: Any = await endpoint.connect(factory)
            result: Deferred[Any] = agent.welcomed

            def start(welcomed: tuple[AgentCarrier, Welcome]) -> AgentCarrier:
                welcomed[0].start(far)
                return welcomed[0]

            return await result.addCallback(start)

        with pytest.raises(Denial) as denial:
            await dial("wrong")
        assert denial.value.status == 401
        agent = await dial(TOKEN)
        for start in range(0, len(megabyte), 1 << 17):
            agent.send([megabyte[start : start + (1 << 17)]], 1 << 17)
        await done[near]
        assert near.data == megabyte
        agent.close(CloseCode.SHUTDOWN, "bye")
        await over
        assert near.lost == [(CloseCode.SHUTDOWN, "bye")]
        assert relay.asked == ["wrong", TOKEN]
    finally:
        await port.stopListening()
