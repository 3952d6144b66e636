"""HTTP visitors on real streams: answers, and pages where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from srrrs.net.splice import CLOSE_TIMEOUT
from srrrs.protocol.errors import ResetCode
from srrrs.protocol.flow import BASE_WINDOW
from srrrs.protocol.mux import Limits
from srrrs.relay.edge.closing import LINGER
from tests.edge.h1kit import split
from tests.edge.kit import Site
from tests.net.kit import reset_code

HEAD = b"POST /x?y=%20&z HTTP/1.1\r\nHost: site.example\r\nContent-Length: 8\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"
BOTH = pytest.mark.parametrize("tls", [False, True])


def asked(tls: bool = False, sent: bytes = b"12345678") -> tuple[Site, Any]:
    """A site, and a visitor who has sent a head and the first bytes of a body."""
    site = Site()
    visitor = site.connect(site.edge(), tls)
    visitor.receive(HEAD + sent)
    site.settle(visitor)
    return site, visitor


def body_of(backend: Any) -> bytes:
    """What came after the latest head."""
    return bytes(backend.data).rpartition(b"\r\n\r\n")[2]


@BOTH
def test_requests_and_their_answers(tls: bool) -> None:
    """The backend gets target, query and all, and a body that came in parts, once; its connection
    serves the next one, too."""
    site = Site()
    visitor = site.connect(site.edge(), tls)
    visitor.receive(HEAD[:10])
    visitor.receive(HEAD[10:] + b"half")
    site.settle(visitor)
    (backend,) = site.backends
    assert backend.data.startswith(b"POST /x?y=%20&z HTTP/1.1\r\nhost: site.example\r\n")
    assert body_of(backend) == b"half"
    visitor.receive(b" and")
    site.settle(visitor)
    assert body_of(backend) == b"half and"
    backend.transport.write(ANSWER)
    site.settle(visitor)
    visitor.receive(HEAD + b"12345678")
    site.settle(visitor)
    assert body_of(backend) == b"12345678"
    backend.transport.write(ANSWER)
    backend.transport.loseConnection()
    site.settle(visitor)
    visitor.peer_half_close()
    site.settle(visitor)
    assert visitor.sent == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer" * 2
    assert not visitor.connected
    assert site.over()


def test_a_visitor_that_half_closes() -> None:
    """Its request is whole, and it gets its answer (as from ``nc -N``)."""
    site = Site()
    visitor = site.connect(site.edge())
    visitor.receive(HEAD + b"12345678")
    visitor.peer_half_close()
    site.settle(visitor)
    (backend,) = site.backends
    assert body_of(backend) == b"12345678"
    assert "readConnectionLost" not in backend.events
    backend.transport.write(ANSWER)
    backend.transport.loseConnection()
    site.settle(visitor)
    assert split(visitor.sent)[2] == b"answer"
    assert not visitor.connected
    assert site.over()


STATUSES = {
    ResetCode.REFUSED: 502,
    ResetCode.TIMEOUT: 502,
    ResetCode.OVERLOAD: 503,
    ResetCode.UNKNOWN_SERVICE: 503,
    ResetCode.WITHDRAWN: 503,
    ResetCode.GONE: 503,
    ResetCode.INTERNAL: 502,
    ResetCode.CANCEL: 502,
}


@BOTH
@pytest.mark.parametrize("code", list(ResetCode))
def test_no_answer_at_all(code: ResetCode, tls: bool) -> None:
    """A stream that is reset before any byte of an answer ends with a page, not cut short; the
    visitor's connection goes on."""
    site, visitor = asked(tls)
    site.backends[0].transport.reset(code)
    site.settle(visitor)
    status, fields, body = split(visitor.sent)
    assert status == STATUSES[code]
    assert ("retry-after" in fields) == (STATUSES[code] == 503)
    assert b"</html>" in body
    assert visitor.connected
    visitor.peer_half_close()
    site.settle(visitor)
    assert not visitor.connected
    assert site.over()


def test_a_page_for_head() -> None:
    """The answer to HEAD has a length and no body."""
    site = Site()
    visitor = site.connect(site.edge())
    visitor.receive(b"HEAD / HTTP/1.1\r\nHost: site.example\r\n\r\n")
    site.settle(visitor)
    site.backends[0].transport.reset(ResetCode.REFUSED)
    site.settle(visitor)
    visitor.peer_half_close()
    site.settle(visitor)
    status, fields, body = split(visitor.sent)
    assert (status, body) == (502, b"")
    assert int(fields["content-length"]) > 0
    assert site.over()


@BOTH
def test_part_of_a_head(tls: bool) -> None:
    """Nothing of it was passed on: there is still room for a page."""
    site, visitor = asked(tls)
    site.backends[0].transport.write(b"H")
    site.settle(visitor)
    site.backends[0].transport.reset(ResetCode.CANCEL)
    site.settle(visitor)
    assert split(visitor.sent)[0] == 502
    visitor.peer_half_close()
    site.settle(visitor)
    assert site.over()


@BOTH
def test_part_of_an_answer(tls: bool) -> None:
    """After the head no page can follow: the visitor sees the connection end too early."""
    site, visitor = asked(tls)
    site.backends[0].transport.write(ANSWER[:-1])
    site.settle(visitor)
    site.backends[0].transport.reset(ResetCode.REFUSED)
    site.settle(visitor)
    assert split(visitor.sent)[2] == b"answe"
    assert not visitor.connected
    assert site.over()


def test_the_tunnels_end() -> None:
    """The agent goes away while the visitor waits: 503, and to try again."""
    site, visitor = asked()
    site.pair.agent_carrier.cut()
    visitor.drain()
    visitor.peer_half_close()
    visitor.drain()
    status, fields, _ = split(visitor.sent)
    assert (status, fields["retry-after"]) == (503, "5")
    assert not visitor.connected
    site.shared.stop()
    assert site.clock.getDelayedCalls() == []


def test_a_page_reaches_a_visitor_that_still_sends() -> None:
    """An upload to a backend that is down is read and dropped, so that the page is not lost."""
    site = Site()
    visitor = site.connect(site.edge())
    visitor.receive(HEAD.replace(b": 8", b": 8000000"))
    site.settle(visitor)
    site.backends[0].transport.reset(ResetCode.REFUSED)
    site.pair.settle()
    for _ in range(100):
        visitor.receive(b"x" * 65536)
    visitor.drain()
    assert split(visitor.sent)[0] == 502
    assert visitor.held == 0
    visitor.peer_half_close()
    visitor.drain()
    visitor.drain()
    assert not visitor.connected
    assert site.over()


def test_a_page_that_nobody_takes() -> None:
    """A visitor that neither reads nor closes is aborted at the deadline."""
    site = Site()
    visitor = site.connect(site.edge())
    visitor.receive(HEAD.replace(b"Host", b"Hose"))
    site.pair.pass_time(LINGER - 0.5)
    assert not visitor.aborted
    site.pair.pass_time(1)
    assert visitor.aborted
    visitor.drain()
    assert site.over()


@BOTH
def test_a_long_answer_to_a_slow_visitor(tls: bool) -> None:
    """Nothing of a long answer is lost after the backend's close, however slowly it is taken."""
    site = Site(Limits(window=BASE_WINDOW))
    visitor = site.connect(site.edge(), tls, buffer_size=4096)
    visitor.receive(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"12345678")
    site.pair.settle()
    body = bytes(range(256)) * 1024
    site.backends[0].transport.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
    site.backends[0].transport.loseConnection()
    for _ in range(1000):
        site.pair.settle()
        if not visitor.drain(1024):
            break
        site.pair.pass_time(0.5)
    visitor.peer_half_close()
    site.settle(visitor)
    assert split(visitor.sent)[2] == body
    assert not visitor.connected
    assert site.over()


def test_a_visitor_that_stops_reading() -> None:
    """The last bytes wait for as long as the deadline allows."""
    site = Site()
    visitor = site.connect(site.edge(), buffer_size=100)
    visitor.receive(HEAD + b"12345678")
    visitor.peer_half_close()
    site.pair.settle()
    site.backends[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n" + bytes(600))
    site.backends[0].transport.loseConnection()
    site.pair.settle()
    visitor.drain(10)
    site.pair.pass_time(CLOSE_TIMEOUT + 1, step=10)
    assert visitor.aborted
    visitor.drain()
    assert site.over()


def test_a_visitor_that_goes_away() -> None:
    """The backend learns of it."""
    site, visitor = asked(sent=b"1234")
    visitor.peer_reset()
    site.settle()
    assert reset_code(site.backends[0]) == ResetCode.CANCEL
    assert site.over()
