"""``srrrs:`` endpoint strings: a Twisted program publishes itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

import srrrs
from srrrs.agent.lifecycle import State
from srrrs.agent.services import ServiceRefused
from srrrs.endpoints import SrrrsAddress, pool
from tests.mini_relay import TOKEN, MiniRelay, until


def string(edge: str, **more: str) -> str:
    arguments = {"edge": edge, "token": TOKEN, **more}
    escaped = {name: value.replace(":", r"\:") for name, value in arguments.items()}
    return "srrrs:" + ":".join(f"{name}={value}" for name, value in escaped.items())


# --- the string

EDGE = "wss://relay.example/tunnel"


def test_a_whole_string() -> None:
    endpoint = serverFromString(
        MemoryReactorClock(),
        r"srrrs:edge=wss\://relay.example/tunnel:token=file\:/etc/token:kind=http:name=blog"
        r":instance=shop:heartbeat=20s:insecure=no:pin=sha256\:" + "ab" * 32,
    )
    verifyObject(IStreamServerEndpoint, endpoint)
    assert endpoint._relay.target.url == EDGE
    assert endpoint._relay.heartbeat == 20
    assert endpoint._relay.instance == "shop"
    assert (endpoint._name, endpoint._asked) == ("blog", "blog")


def test_a_string_with_a_host_and_a_path() -> None:
    """The host is asked for instead of a subdomain; the path tells services of one name apart."""
    more = {"name": "blog", "hostname": "www.example.com", "path": "/api", "share": "yes"}
    endpoint: Any = serverFromString(MemoryReactorClock(), string(EDGE, **more))
    assert (endpoint._name, endpoint._asked, endpoint._hostname) == (
        "blog/api",
        None,
        "www.example.com",
    )
    assert (endpoint._path, endpoint._share) == ("/api", True)


@pytest.mark.parametrize(
    ("description", "named"),
    [
        ("srrrs:", "named|edge|name"),
        ("srrrs:token=x", "edge="),
        (r"srrrs:edge=wss\://relay.example", "token="),
        (string(EDGE, kind="udp"), "kind="),
        (string(EDGE, name="Blog"), "name="),
        (string(EDGE, instance="a b"), "instance="),
        (string(EDGE, heartbeat="soon"), "heartbeat="),
        (string(EDGE, heartbeat="0s"), "heartbeat="),
        (string(EDGE, pin="md5:x"), "pin="),
        (string(EDGE, ca="/nowhere/ca.pem"), "ca="),
        (string(EDGE, insecure="perhaps"), "insecure="),
        (string(EDGE, share="perhaps"), "share="),
        (string(EDGE, share="yes"), "need a name="),
        (string(EDGE, share="yes", name="x", kind="tcp"), "share="),
        (string(EDGE, hostname="localhost"), "hostname="),
        (string(EDGE, hostname="a.b", kind="ssh"), "hostname="),
        (string(EDGE, path="x", name="x"), "path="),
        (string(EDGE, path="/x"), "need a name="),
        (string(EDGE, path="/x", name="x", kind="tls"), "path="),
        (string(EDGE, name="a/b"), "name="),
        (string(EDGE, colour="red"), "colour="),
        (string("http://relay.example"), "edge="),
        (string("ws://relay.example"), "edge="),
    ],
)
def test_a_string_that_cannot_work_names_what_is_wrong(description: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        serverFromString(MemoryReactorClock(), description)
    assert "\n" not in str(caught.value)


def test_a_bad_token_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="token=") as caught:
        serverFromString(MemoryReactorClock(), string(EDGE, token="hunter2 with blanks"))
    assert "hunter2" not in str(caught.value)


def test_the_word_is_reserved_for_clients() -> None:
    with pytest.raises(ValueError, match="reserved"):
        clientFromString(MemoryReactorClock(), "srrrs:edge=x")


def test_other_strings_pay_nothing_for_ours() -> None:
    """Any endpoint string imports every installed parser: ours must load nothing else."""
    script = (
        "import sys\n"
        "from twisted.internet.testing import MemoryReactorClock\n"
        "from twisted.internet.endpoints import serverFromString\n"
        "try:\n"
        "    serverFromString(MemoryReactorClock(), 'nosuch:0')\n"
        "except ValueError:\n"
        "    pass\n"
        "assert 'twisted.plugins.srrrs_endpoints' in sys.modules\n"
        "loaded = [m for m in sys.modules if m.startswith('srrrs.')]\n"
        "assert not loaded, loaded\n"
    )
    root = str(Path(srrrs.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": root},
    )


# --- listening


def with_relay(
    test: Callable[[Any, MiniRelay], Awaitable[None]],
) -> Callable[[], Any]:
    """Runs a test beside a relay, and sees that it leaves no agent behind."""

    @pytest.mark.integration
    @wraps(test)
    async def run() -> None:
        from twisted.internet import reactor

        relay = MiniRelay(reactor)
        relay.listen()
        try:
            await test(reactor, relay)
            assert pool._shared == {}
        finally:
            await relay.close()

    # pytest would look for the wrapped function's arguments.
    del run.__wrapped__
    decorated: Callable[[], Any] = pytest_twisted.ensureDeferred(run)
    return decorated


class Visitor:
    """The relay's end of a stream."""

    def __init__(self) -> None:
        self.data = b""
        self.fin = False
        self.lost: Failure | None = None

    def protocol(self) -> Any:
        visitor = self

        @implementer(IHalfCloseableProtocol)
        class Visiting(Protocol):
            def dataReceived(self, data: bytes) -> None:
                visitor.data += data

            def readConnectionLost(self) -> None:
                visitor.fin = True

            def writeConnectionLost(self) -> None:
                pass

            def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
                visitor.lost = reason

        return Visiting()


class Page(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def render_GET(self, request: Any) -> bytes:
        client = request.getClientAddress()
        host = request.getHost()
        return f"{client.host}:{client.port} at {host.host}:{host.port}\n".encode()


@with_relay
async def test_twisted_webs_site_is_published(reactor: Any, relay: MiniRelay) -> None:
    """Unpatched; it sees the visitor as its peer and the public address as its host."""
    port = await serverFromString(reactor, string(relay.url, name="blog")).listen(Site(Page()))
    verifyObject(IListeningPort, port)
    address = port.getHost()
    verifyObject(IAddress, address)
    assert address == SrrrsAddress(
        "http://blog.localhost:8000", "blog.localhost", 8000, "blog", "http"
    )
    visitor = Visitor()
    channel = relay.tunnels[0].open("blog")
    channel.attach(visitor.protocol())
    channel.write(b"GET / HTTP/1.1\r\nHost: blog.localhost:8000\r\nConnection: close\r\n\r\n")
    await until(reactor, lambda: visitor.fin)
    assert visitor.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert visitor.data.endswith(b"192.0.2.7:4711 at blog.localhost:8000\n")
    channel.loseConnection()
    await port.stopListening()
    assert relay.tunnels[0].services == {}
    await until(reactor, lambda: relay.lost)


@with_relay
async def test_streams_half_close_as_tcp_does(reactor: Any, relay: MiniRelay) -> None:
    """The visitor sends all of a request and closes its half; the answer still comes."""

    @implementer(IHalfCloseableProtocol)
    class Reverse(Protocol):
        got = b""

        def dataReceived(self, data: bytes) -> None:
            self.got += data

        def readConnectionLost(self) -> None:
            assert self.transport is not None
            self.transport.write(self.got[::-1])
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None:
            pass

    port = await serverFromString(reactor, string(relay.url, kind="tcp")).listen(
        Factory.forProtocol(Reverse)
    )
    assert port.getHost().url == "tcp://tcp.localhost:20022"
    visitor = Visitor()
    channel = relay.tunnels[0].open("tcp")
    channel.attach(visitor.protocol())
    channel.write(b"abc")
    channel.loseWriteConnection()
    await until(reactor, lambda: visitor.lost)
    assert visitor.data == b"cba"
    assert visitor.lost is not None
    assert visitor.lost.check(ConnectionDone)
    await port.stopListening()


@with_relay
async def test_equal_edge_and_token_share_a_tunnel(reactor: Any, relay: MiniRelay) -> None:
    ports = [
        await serverFromString(reactor, string(relay.url, name=name)).listen(Site(Page()))
        for name in ("a", "b")
    ]
    other = await serverFromString(reactor, string(relay.url, name="c", instance="other")).listen(
        Site(Page())
    )
    assert [set(each.services) for each in relay.tunnels] == [{"a", "b"}, {"c"}]
    await ports[0].stopListening()
    assert relay.lost == []
    await ports[1].stopListening()
    await until(reactor, lambda: relay.lost == [relay.tunnels[0]])
    await other.stopListening()


@with_relay
async def test_a_name_is_published_once(reactor: Any, relay: MiniRelay) -> None:
    port = await serverFromString(reactor, string(relay.url, name="a")).listen(Site(Page()))
    with pytest.raises(CannotListenError, match="two services are named 'a'"):
        await serverFromString(reactor, string(relay.url, name="a")).listen(Site(Page()))
    assert len(relay.tunnels[0].services) == 1
    await port.stopListening()
    await port.stopListening()


@with_relay
async def test_a_refusal_for_good_errs(reactor: Any, relay: MiniRelay) -> None:
    relay.refusals["blog"] = ("taken", "the name blog belongs to another token", None)
    with pytest.raises(ServiceRefused, match="belongs to another token"):
        await serverFromString(reactor, string(relay.url, name="blog")).listen(Site(Page()))


@with_relay
async def test_a_bad_token_is_waited_for(reactor: Any, relay: MiniRelay) -> None:
    """Tokens get fixed while programs run; giving up is the program's choice."""
    listening = serverFromString(reactor, string(relay.url, token="wrong")).listen(Site(Page()))
    await until(reactor, lambda: relay.tokens)
    (shared,) = pool._shared.values()
    await until(reactor, lambda: shared.agent.state is State.WAITING)
    assert not listening.called
    listening.cancel()
    with pytest.raises(CancelledError):
        await listening


@with_relay
async def test_a_lost_tunnel_comes_back_by_itself(reactor: Any, relay: MiniRelay) -> None:
    """And the port goes on knowing its address meanwhile."""
    port = await serverFromString(reactor, string(relay.url, name="a")).listen(Site(Page()))
    relay.tunnels[0].tunnel.abort("cut")
    await until(reactor, lambda: len(relay.tunnels) == 2 and relay.tunnels[1].services)
    assert relay.tunnels[0].hello.run == relay.tunnels[1].hello.run
    assert port.getHost().host == "a.localhost"
    await port.stopListening()
