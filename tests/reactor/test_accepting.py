"""Ports: pausing, running out of descriptors, sharing an address, and adopted sockets."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from tests.reactor.kit import Client, Recorder, Server, plain_client, turns, until

ensure = pytest_twisted.ensureDeferred


async def end(port: Any, factory: Server, clients: list[socket.socket]) -> None:
    """Close the clients, see their connections end, and stop listening."""
    for client in clients:
        client.close()
    for protocol in factory.protocols:
        await protocol.lost
    await port.stopListening()


@ensure
async def test_pausing(reactor: Any) -> None:
    """While a port is paused connections wait; they are accepted when it goes on."""
    factory = Server()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    port.stopReading()
    clients = [plain_client(port) for _ in range(3)]
    await turns(reactor, 30)
    assert factory.protocols == []
    port.startReading()
    await until(reactor, lambda: len(factory.protocols) == 3)
    await end(port, factory, clients)


@ensure
async def test_pausing_within_a_batch(loop_reactor: Any) -> None:
    """A factory that pauses its port gets no further connection, though many wait."""
    pauses: list[Any] = []

    class Pausing(Recorder):
        def connectionMade(self) -> None:
            port.stopReading()
            pauses.append(self)
            super().connectionMade()

    factory = Server(Pausing)
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    port.stopReading()
    clients = [plain_client(port) for _ in range(5)]
    for count in range(1, 6):
        port.startReading()
        await until(loop_reactor, lambda count=count: len(pauses) == count)  # type: ignore[misc]
        await turns(loop_reactor)
        assert len(pauses) == count
    await end(port, factory, clients)


@ensure
async def test_running_out_of_descriptors(loop_reactor: Any) -> None:
    """Out of descriptors a port tells one peer, says so in the log, rests, and then goes on."""
    lines: list[Any] = []
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    clients = [socket.socket() for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    globalLogPublisher.addObserver(lines.append)
    try:
        # No number below this one is free: nothing can be opened, whatever is closed above it.
        spare = os.dup(0)
        taken = [os.dup(0) for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, limits[1]))
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for client in clients:
            client.settimeout(20)
            client.connect(("127.0.0.1", port.getHost().port))
        await until(loop_reactor, lambda: any("pauses" in str(e.get("log_format")) for e in lines))
        assert factory.protocols == []
        # Nothing spins meanwhile.
        before = len(lines)
        await turns(loop_reactor, 50)
        assert len(lines) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in (spare, *taken):
            os.close(fd)
        globalLogPublisher.removeObserver(lines.append)
    await until(loop_reactor, lambda: len(factory.protocols) >= 2)
    await end(port, factory, clients)


@ensure
async def test_gate_keeps_a_resting_port_paused(loop_reactor: Any) -> None:
    """A port that was paused while it rests does not go on by itself."""
    factory = Server()
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    port._pause_accepting(OSError(24, "Too many open files"))
    port.stopReading()
    await until(loop_reactor, lambda: port._pause is None)
    with plain_client(port):
        await turns(loop_reactor, 30)
        assert factory.protocols == []
        port.startReading()
        served = await until(loop_reactor, lambda: factory.protocols and factory.protocols[0])
    await served.lost
    await port.stopListening()


@ensure
async def test_stopping_a_resting_port(loop_reactor: Any) -> None:
    """A port that rests can be closed, and leaves no timer."""
    port = loop_reactor.listenTCP(0, Server(), interface="127.0.0.1")
    port._pause_accepting(OSError(24, "Too many open files"))
    await port.stopListening()


@ensure
async def test_stop_listening(reactor: Any) -> None:
    """After stopListening the port is free, and its connections go on."""
    factory = Server()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    where = port.getHost()
    client = Recorder()
    reactor.connectTCP(where.host, where.port, Client(client))
    await client.made
    served = await until(reactor, lambda: factory.protocols and factory.protocols[0])
    await port.stopListening()
    again = reactor.listenTCP(where.port, Server(), interface=where.host)
    with pytest.raises(error.CannotListenError):
        reactor.listenTCP(where.port, Server(), interface=where.host)
    client.transport.write(b"still here")
    assert await served.received(10) == b"still here"
    client.transport.loseConnection()
    await served.lost
    await until(reactor, lambda: client.reason)
    await again.stopListening()


@ensure
async def test_shared_port(reactor: Any) -> None:
    """Two ports with SO_REUSEPORT listen at one address, and each takes connections."""
    ports, factories = [], [Server(), Server()]
    number = 0
    for factory in factories:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", number))
            listener.listen(50)
            listener.setblocking(False)
            number = listener.getsockname()[1]
            ports.append(reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, factory))
    clients: list[socket.socket] = []

    async def more() -> None:
        clients.append(plain_client(ports[0]))
        await deferLater(reactor, 0.001)

    for _ in range(500):
        await more()
        if all(factory.protocols for factory in factories):
            break
    assert all(factory.protocols for factory in factories)
    for client in clients:
        client.close()
    await until(reactor, lambda: sum(len(f.protocols) for f in factories) == len(clients))
    for factory in factories:
        for protocol in factory.protocols:
            await protocol.lost
    for port in ports:
        await port.stopListening()


@ensure
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
async def test_adopted_connection(reactor: Any, family: Any, tmp_path: Any) -> None:
    """A connected socket from elsewhere becomes a connection; the caller's own copy stays its."""
    address: Any = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: str(tmp_path / "socket"),
    }[family]
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen(1)
    client = socket.socket(family)
    client.connect(listener.getsockname())
    connected = listener.accept()[0]
    connected.setblocking(False)
    factory = Server()
    reactor.adoptStreamConnection(connected.fileno(), family, factory)
    adopted = factory.protocols[0]
    assert adopted.made.called
    client.sendall(b"hello")
    assert await adopted.received(5) == b"hello"
    adopted.transport.write(b"x" * 100)
    client.setblocking(False)
    assert await until(reactor, lambda: read(client)) == b"x" * 100
    adopted.transport.loseConnection()
    await adopted.lost
    assert client.recv(1) == b""
    client.close()
    assert connected.fileno() != -1
    for sock in (listener, connected):
        sock.close()


def read(client: socket.socket) -> bytes | None:
    try:
        return client.recv(1000)
    except BlockingIOError:
        return None


@ensure
async def test_unknown_family(reactor: Any) -> None:
    """Sockets of no known family are refused."""
    with socket.socket() as sock:
        for adopt in (reactor.adoptStreamPort, reactor.adoptStreamConnection):
            with pytest.raises(error.UnsupportedAddressFamily):
                adopt(sock.fileno(), socket.AF_PACKET, Server())


SYSTEMD = """
    from srrrs.net.reactor import install
    install()
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.protocol import Factory, Protocol

    class Echo(Protocol):
        def dataReceived(self, data):
            self.transport.write(data)
            self.transport.loseConnection()
        def connectionLost(self, reason):
            reactor.callLater(0, reactor.stop)

    endpoint = serverFromString(reactor, "systemd:domain=INET:name=web")
    endpoint.listen(Factory.forProtocol(Echo))
    reactor.run()
"""


def test_systemd_endpoint() -> None:
    """A socket that systemd passes is listened to, in a process that it started."""
    pytest.importorskip("uvloop")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        # LISTEN_PID is the process that is to use the sockets, which begin at 3.
        shell = (
            'exec 3<&$0; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec "$1" -c "$2"'
        )
        process = subprocess.Popen(
            ["bash", "-c", shell, str(listener.fileno()), sys.executable, textwrap.dedent(SYSTEMD)],
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
        )
        with socket.create_connection(listener.getsockname(), 20) as client:
            client.sendall(b"through systemd")
            assert client.recv(100) == b"through systemd"
            assert client.recv(1) == b""
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")


@ensure
async def test_paused_from_the_start(loop_reactor: Any) -> None:
    """Of many that are accepted at once, those that pause at once read nothing until they resume;
    one that is lost at once is closed."""

    class Choosy(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            number = factory.protocols.index(self)
            if number % 3 == 0:
                self.transport.pauseProducing()
            elif number % 3 == 1:
                self.transport.abortConnection()

    factory = Server(Choosy)
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    clients = []
    for _ in range(9):
        client = socket.socket()
        client.connect(("127.0.0.1", port.getHost().port))
        client.send(b"early")
        clients.append(client)
    await until(loop_reactor, lambda: len(factory.protocols) == 9)
    for number, protocol in enumerate(factory.protocols):
        if number % 3 == 1:
            await protocol.lost
        elif number % 3 == 2:
            assert await protocol.received(5) == b"early"
    await turns(loop_reactor)
    for protocol in factory.protocols[::3]:
        assert protocol.data == b""
        protocol.transport.resumeProducing()
        assert await protocol.received(5) == b"early"
    for client in clients:
        client.close()
    await until(loop_reactor, lambda: all(each.reason for each in factory.protocols))
    await port.stopListening()
