"""`LoopReactor.connect_to`: connections for a protocol that is there already."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from srrrs.net.reactor import tcp
from tests.reactor.kit import Recorder, Server, turns, until

ensure = pytest_twisted.ensureDeferred


class Attempt:
    """One connection that is asked for."""

    def __init__(self, reactor: Any, host: str, port: int, timeout: float = 30.0) -> None:
        self.protocol = Recorder()
        self.failed: Deferred[BaseException] = Deferred()
        self.link = reactor.connect_to(host, port, self.protocol, self._fail, timeout)

    def _fail(self, reason: Failure) -> None:
        self.failed.callback(reason.value)


@ensure
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_connects(loop_reactor: Any, host: str) -> None:
    """The protocol is connected as it is, and closed by the link."""
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface=host)
    attempt = Attempt(loop_reactor, host, port.getHost().port)
    assert not attempt.protocol.made.called
    await attempt.protocol.made
    transport = attempt.protocol.transport
    assert transport.getPeer() == port.getHost()
    transport.write(b"?")
    await until(loop_reactor, lambda: factory.protocols)
    served = factory.protocols[0]
    assert await served.received(1) == b"?"
    served.transport.write(b"!")
    assert await attempt.protocol.received(1) == b"!"
    attempt.link.disconnect()
    await attempt.protocol.lost
    assert isinstance(attempt.protocol.reason.value, error.ConnectionDone)
    await until(loop_reactor, lambda: served.reason)
    assert not attempt.failed.called
    assert transport not in loop_reactor.streams
    attempt.link.disconnect()  # Harmless by now.
    await port.stopListening()


@ensure
async def test_refused(loop_reactor: Any) -> None:
    """Nobody listening is ConnectionRefusedError, with its errno."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        attempt = Attempt(loop_reactor, *taken.getsockname())
        problem = await attempt.failed
    assert isinstance(problem, error.ConnectionRefusedError)
    assert problem.osError == errno.ECONNREFUSED
    assert not attempt.protocol.made.called


@ensure
@pytest.mark.parametrize("how", ["time", "disconnect"])
async def test_no_answer(loop_reactor: Any, how: str) -> None:
    """An attempt ends by its timeout, or when it is given up; once only."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        timeout = 0.05 if how == "time" else 30.0
        attempt = Attempt(loop_reactor, "127.0.0.1", listener.getsockname()[1], timeout)
        if how == "disconnect":
            await turns(loop_reactor)
            attempt.link.disconnect()
            attempt.link.disconnect()
        problem = await attempt.failed
        for filler in fillers:
            filler.close()
    assert isinstance(problem, error.TimeoutError if how == "time" else error.UserError)
    assert attempt.link.transport is None


@ensure
async def test_given_up_at_once(loop_reactor: Any) -> None:
    """Also before it has begun."""
    attempt = Attempt(loop_reactor, "127.0.0.1", 9)
    attempt.link.disconnect()
    assert isinstance(await attempt.failed, error.UserError)
    await turns(loop_reactor)


@ensure
async def test_out_of_files(loop_reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket it fails, but not before it was returned."""

    def none_left(family: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tcp, "stream_socket", none_left)
    attempt = Attempt(loop_reactor, "127.0.0.1", 9)
    assert not attempt.failed.called
    problem = await attempt.failed
    assert isinstance(problem, error.ConnectBindError)
    assert problem.osError == errno.EMFILE
