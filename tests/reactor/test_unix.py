"""UNIX connections, lock files, and descriptors that are passed."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.python import lockfile
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.reactor.kit import Client, HalfCloser, Recorder, Server, turns, unix_pair, until

ensure = pytest_twisted.ensureDeferred
HUGE = 16 * 1024 * 1024


@implementer(IFileDescriptorReceiver)
class Receiver(Recorder):
    """Takes descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)


async def _exchanged(pair: Any) -> None:
    """Each end has read once."""
    pair.client.transport.write(b"?")
    await pair.server.received(1)
    pair.server.transport.write(b"!")
    await pair.client.received(1)


@ensure
async def test_becomes_the_loops(loop_reactor: Any, tmp_path: Path) -> None:
    """With its first bytes a connection moves to the loop; no byte is lost or turned round."""
    pair = await unix_pair(loop_reactor, str(tmp_path / "s"))
    for transport in (pair.server.transport, pair.client.transport):
        assert verifyObject(IUNIXTransport, transport)
        assert transport not in loop_reactor.streams
    pair.client.transport.write(b"1" * HUGE)
    pair.server.transport.write(b"2" * HUGE)
    assert await pair.server.received(HUGE) == b"1" * HUGE
    assert await pair.client.received(HUGE) == b"2" * HUGE
    for transport in (pair.server.transport, pair.client.transport):
        assert verifyObject(IUNIXTransport, transport)
        assert transport in loop_reactor.streams
    assert pair.client.transport.getPeer().name == os.fsencode(tmp_path / "s")
    await pair.close()


@ensure
async def test_half_close(reactor: Any, tmp_path: Path) -> None:
    """Each direction ends by itself, after the change to the loop too."""
    pair = await unix_pair(reactor, str(tmp_path / "s"), HalfCloser, HalfCloser)
    await _exchanged(pair)
    pair.client.transport.write(b"h" * HUGE)
    pair.client.transport.loseWriteConnection()
    await pair.server.read_lost
    assert len(pair.server.data) == 1 + HUGE
    pair.server.transport.write(b"answer")
    pair.server.transport.loseConnection()
    await pair.client.read_lost
    assert bytes(pair.client.data) == b"!answer"
    pair.client.transport.loseConnection()
    await until(reactor, lambda: pair.client.reason and pair.server.reason)
    await pair.close()


@ensure
async def test_abort(reactor: Any, tmp_path: Path) -> None:
    """An abort ends the connection for its own side as ConnectionAborted."""
    pair = await unix_pair(reactor, str(tmp_path / "s"))
    await _exchanged(pair)
    pair.server.transport.abortConnection()
    assert isinstance(await pair.server.lost, error.ConnectionAborted)
    await pair.client.lost
    await pair.close()


@ensure
@pytest.mark.parametrize("late", [False, True])
async def test_descriptors(reactor: Any, tmp_path: Path, late: bool) -> None:
    """Descriptors arrive in order and before the bytes that follow them, whether the connection is
    the loop's or not yet."""
    pair = await unix_pair(reactor, str(tmp_path / "s"), client=Receiver)
    start = 0
    if late:
        await _exchanged(pair)
        start = 1
    pipes = [os.pipe() for _ in range(3)]
    pair.server.transport.write(b"b" * 100_000)
    for _, end in pipes:
        pair.server.transport.sendFileDescriptor(end)
    pair.server.transport.write(b"abc")
    pair.server.transport.write(b"d" * HUGE)
    pair.server.transport.loseConnection()
    await pair.client.lost
    assert pair.client.data[start:] == b"b" * 100_000 + b"abc" + b"d" * HUGE
    assert len(pair.client.descriptors) == 3
    for number, descriptor in enumerate(pair.client.descriptors):
        os.write(descriptor, b"%d" % number)
        assert os.read(pipes[number][0], 10) == b"%d" % number
        for each in (descriptor, *pipes[number]):
            os.close(each)
    await until(reactor, lambda: pair.server.reason)
    await pair.close()


@ensure
async def test_descriptors_to_one_who_does_not_read(loop_reactor: Any, tmp_path: Path) -> None:
    """Descriptors wait while the peer does not read, as bytes do."""
    pair = await unix_pair(loop_reactor, str(tmp_path / "s"), client=Receiver)
    await _exchanged(pair)
    pair.client.transport.pauseProducing()
    pair.server.transport.write(b"b" * HUGE)
    ends = os.pipe()
    pair.server.transport.sendFileDescriptor(ends[1])
    pair.server.transport.write(b"f")
    await turns(loop_reactor, 50)
    assert pair.client.descriptors == []
    pair.client.transport.resumeProducing()
    await pair.client.received(1 + HUGE + 1)
    assert len(pair.client.descriptors) == 1
    for each in (*ends, *pair.client.descriptors):
        os.close(each)
    await pair.close()


@ensure
async def test_more_descriptors_than_bytes(loop_reactor: Any, tmp_path: Path) -> None:
    """A descriptor that no byte follows ends the connection by FileDescriptorOverrun."""
    pair = await unix_pair(loop_reactor, str(tmp_path / "s"), client=Receiver)
    await _exchanged(pair)
    pair.server.transport.sendFileDescriptor(0)
    assert isinstance(await pair.server.lost, error.FileDescriptorOverrun)
    await pair.client.lost
    assert pair.client.descriptors == []
    await pair.close()


@ensure
async def test_receivers_stay(loop_reactor: Any, tmp_path: Path) -> None:
    """A connection whose protocol takes descriptors, or that was passed one, does not move."""
    pair = await unix_pair(loop_reactor, str(tmp_path / "s"), server=Receiver)
    pair.server.transport.sendFileDescriptor(0)
    pair.server.transport.write(b"?")
    await pair.client.received(1)
    pair.client.transport.write(b"!")
    await pair.server.received(1)
    await turns(loop_reactor)
    assert pair.client.transport not in loop_reactor.streams
    assert pair.server.transport not in loop_reactor.streams
    await pair.close()


@ensure
async def test_lock_file(reactor: Any, tmp_path: Path) -> None:
    """wantPID keeps a second listener away, checkPID a client that nobody waits for."""
    path = str(tmp_path / "s")
    port = reactor.listenUNIX(path, Server(), mode=0o600, wantPID=True)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert lockfile.isLocked(path + ".lock")
    with pytest.raises(error.CannotListenError):
        reactor.listenUNIX(path, Server(), wantPID=True)
    await port.stopListening()
    assert not os.path.exists(path)
    assert not os.path.lexists(path + ".lock")
    factory = Client(Recorder())
    reactor.connectUNIX(path, factory, checkPID=True)
    assert isinstance(await factory.failed, error.BadFileError)


@ensure
async def test_stale_socket(loop_reactor: Any, tmp_path: Path) -> None:
    """What a process that died left behind is in nobody's way with wantPID, and is without."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(error.CannotListenError):
        loop_reactor.listenUNIX(path, Server())
    with open(path + "x", "w"), pytest.raises(error.CannotListenError):
        loop_reactor.listenUNIX(path + "x", Server(), wantPID=True)
    assert not os.path.lexists(path + "x.lock")
    # A lock of a process that does not exist.
    os.symlink(str(2**22 - 1), path + ".lock")
    port = loop_reactor.listenUNIX(path, Server(), wantPID=True)
    protocol = Recorder()
    loop_reactor.connectUNIX(path, Client(protocol), checkPID=True)
    await protocol.made
    protocol.transport.loseConnection()
    await protocol.lost
    await until(loop_reactor, lambda: port.factory.protocols and port.factory.protocols[0].reason)
    await port.stopListening()


@ensure
@pytest.mark.parametrize("name", ["", "a", "ab", "abc", "abcd"])
async def test_named_clients(
    loop_reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever a client's socket is called, it is taken for a name, not for a TCP address."""
    monkeypatch.chdir(tmp_path)
    factory = Server()
    port = loop_reactor.listenUNIX("server", factory)
    with socket.socket(socket.AF_UNIX) as client:
        if name:
            client.bind(name)
        client.connect("server")
        await until(loop_reactor, lambda: factory.protocols)
    await until(loop_reactor, lambda: factory.protocols[0].reason)
    await port.stopListening()


@ensure
async def test_nobody_listens(reactor: Any, tmp_path: Path) -> None:
    """A path without a listener fails as it does for a file that is not there."""
    factory = Client(Recorder())
    reactor.connectUNIX(str(tmp_path / "none"), factory)
    assert isinstance(await factory.failed, error.ConnectError)
