"""What a carrier's socket is told, on every transport that a carrier can have."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import srrrs
from srrrs.net.sockets import (
    KEEPALIVE_PROBES,
    MAX_KEEPALIVE,
    is_stranded,
    is_taken,
    notice_silence,
    socket_below,
    unpace,
)
from srrrs.testing import FakeTransport
from tests.integration.certificates import write_certificate

HEARTBEAT = 8.0
EXPECTED = {
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 8,
    "TCP_KEEPINTVL": 4,
    "TCP_KEEPCNT": KEEPALIVE_PROBES,
    "TCP_USER_TIMEOUT": 20_000,
}


def options(sock: socket.socket) -> dict[str, int]:
    """The socket's own, of those that this system has."""
    found = {}
    for name in EXPECTED:
        option = getattr(socket, name, None)
        if option is not None:
            level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
            found[name] = sock.getsockopt(level, option)
    return found


def expected(sock: socket.socket) -> dict[str, int]:
    return {name: EXPECTED[name] for name in options(sock)}


class Holder:
    """A transport of a plain socket."""

    def __init__(self, sock: Any) -> None:
        self.socket = sock


class Wrapper:
    """A transport over another."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


def test_the_options() -> None:
    """In the heartbeat's proportion."""
    with socket.socket() as sock:
        notice_silence(Wrapper(Wrapper(Holder(sock))), HEARTBEAT)
        assert options(sock) == expected(sock)


@pytest.mark.parametrize(
    ("interval", "milliseconds", "idle"), [(0.2, 10_000, 1), (15.0, 37_500, 15), (1e7, None, None)]
)
def test_extremes(interval: float, milliseconds: int | None, idle: int | None) -> None:
    """The shortest heartbeat leaves a slow path its time, and the longest what the system takes."""
    with socket.socket() as sock:
        notice_silence(Holder(sock), interval)
        found = options(sock)
        assert found.get("TCP_USER_TIMEOUT") in (milliseconds or 2**31 - 1, None)
        assert found.get("TCP_KEEPIDLE") in (idle or MAX_KEEPALIVE, None)


def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is not set, and what is there is; no error."""
    for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as sock:
        notice_silence(Holder(sock), HEARTBEAT)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


class Stubborn(socket.socket):
    """A socket of a system that refuses everything."""

    def setsockopt(self, *_: Any) -> None:
        raise OSError(errno.ENOPROTOOPT, "not here")


def test_a_system_that_refuses() -> None:
    with Stubborn() as sock:
        notice_silence(Holder(sock), HEARTBEAT)
        assert not is_stranded(Holder(sock))


def test_what_has_no_such_socket() -> None:
    """Memory, UNIX sockets, closed ones, and wrappers that go round in circles."""
    circle = Wrapper(None)
    circle.transport = circle
    closed = socket.socket()
    closed.close()
    near, far = socket.socketpair()
    with near, far:
        assert socket_below(Holder(near)) is near
        for transport in (
            None,
            object(),
            FakeTransport(),
            circle,
            Holder(None),
            Holder(closed),
            Holder(near),
        ):
            notice_silence(transport, HEARTBEAT)
            assert not is_stranded(transport)


def test_an_address_that_is_here() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock:
            try:
                sock.bind((host, 0))
            except OSError:
                continue
            assert not is_stranded(Holder(sock))


# --- real carriers ----------------------------------------------------------------------------

SCRIPT = """
import sys
kind, listen, url, pin = sys.argv[1:]
if kind == "fast":
    from srrrs.net.reactor.install import install
    install()
from twisted.internet import reactor
from twisted.internet.interfaces import IProtocolNegotiationFactory
from zope.interface import implementer
from srrrs.net.dial import DialTarget, dial
from srrrs.net.serving import server_endpoint
from srrrs.net.sockets import socket_below
from srrrs.net.tunnel import Tunnel
from srrrs.net.websocket import RelayCarrierFactory
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Hello, Welcome
from srrrs.protocol.mux import Limits, Role
from tests.net.test_sockets import HEARTBEAT, expected, options

class Handler:
    def __getattr__(self, name):
        return lambda *_: None

relay, agent = (Tunnel(reactor, role, Handler(), Limits(), Budget(1 << 26)) for role in Role)
hello = Hello("0" * 32, "machine", "srrrs/0", HEARTBEAT)

def greet(carrier, identity, hello):
    carrier.answer(Welcome("1", HEARTBEAT, "localhost", "srrrs/0"))
    relay.attach(carrier, HEARTBEAT)

@implementer(IProtocolNegotiationFactory)
class Carriers(RelayCarrierFactory):
    def acceptableProtocols(self):
        return [b"http/1.1"]

factory = Carriers(reactor, lambda token, peer: "someone", greet)

async def run():
    port = await server_endpoint(reactor, listen).listen(factory)
    target = DialTarget.from_url(url.replace("PORT", str(port.getHost().port)), pin=pin or None)

    def welcomed(answer):
        agent.attach(answer[0], HEARTBEAT)

    dialling = dial(reactor, target, "token", lambda nonce: hello, environ={})
    await dialling.addCallback(welcomed)
    for end in (relay, agent):
        carrier = end._carrier
        sock = socket_below(carrier.transport)
        print(options(sock) == expected(sock), carrier.is_stranded())
        # Below a connection that has ended there is none.
        carrier.transport.abortConnection()
    await end.when_closed()
    print(socket_below(carrier.transport))

from twisted.internet.task import react
react(lambda _: run())
"""


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("kind", ["fast", "default"])
def test_carriers(kind: str, secure: bool, tmp_path: Path) -> None:
    """Both ends of a real one, once a tunnel has taken it, on either reactor."""
    if kind == "fast":
        pytest.importorskip("uvloop")
    listen, url, pin = "tcp:0:interface=127.0.0.1", "ws://localhost:PORT/", ""
    if secure:
        listen, pin = write_certificate(tmp_path, "localhost")
        url = "wss://localhost:PORT/"
    env = {**os.environ, "PYTHONPATH": str(Path(srrrs.__file__).parent.parent)}
    command = [sys.executable, "-c", SCRIPT, kind, listen, url, pin]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.returncode) == ("True False\n" * 2 + "None\n", 0), done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_what_the_peers_system_has_acknowledged() -> None:
    """Read by the peer or not; more than it takes is not acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.create_connection(server.getsockname()) as client:
            client.setblocking(False)
            assert is_taken(Wrapper(Holder(client)))
            client.send(b"hello")
            assert is_taken(Holder(client))
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(65536))
            assert not is_taken(Holder(client))
        assert not is_taken(Holder(client))


def test_what_no_system_can_tell() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not is_taken(Holder(one))
    assert not is_taken(FakeTransport())
    assert not is_taken(None)


def congestion(sock: socket.socket) -> bytes:
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0")


def paced(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    except OSError:
        pytest.skip("this system has no BBR")


@pytest.fixture(params=["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def connected(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A connection to this machine; the last as a listener of both families has it."""
    host = request.param
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as sock:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        listener.listen()
        sock.connect(listener.getsockname())
        yield sock


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's congestion control")
class TestPacing:
    def test_a_loopback_connection_is_not_paced(self, connected: socket.socket) -> None:
        paced(connected)
        unpace(Holder(connected))
        assert congestion(connected) == b"reno"

    def test_what_does_not_pace_stays_as_the_system_has_it(self, connected: socket.socket) -> None:
        before = congestion(connected)
        if before.startswith(b"bbr"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            before = b"reno"
        unpace(Holder(connected))
        assert congestion(connected) == before

    def test_a_connection_to_elsewhere_is_left_to_the_system(self) -> None:
        class Elsewhere(socket.socket):
            def getpeername(self) -> Any:
                return ("192.0.2.1", 443)

        with Elsewhere() as sock:
            paced(sock)
            unpace(Holder(sock))
            assert congestion(sock) == b"bbr"

    def test_what_is_no_tcp_connection_is_left_alone(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, socket.socket() as unconnected:
            for each in (ours, unconnected):
                unpace(Holder(each))
        unpace(Holder(unconnected))
        unpace(None)
