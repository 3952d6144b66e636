"""An HTTP/1 visitor's connection on services whose streams end at the test."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from srrrs.relay.edge.h1 import HttpVisitor
from srrrs.relay.edge.site import ConnectionInfo, Site, SiteLimits
from srrrs.testing import FakeTransport
from tests.edge_fakes import VISITOR, FakeChannel, FakeRoutes, FakeService

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


class LogRecorder:
    """An access log that keeps its entries."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.connections: list[Any] = []

    def request(self, entry: Any) -> None:
        self.requests.append(entry)

    def connection(self, entry: Any) -> None:
        self.connections.append(entry)


class Lab:
    """Services ``site.example`` and ``other.example``, and what visitors' connections share."""

    def __init__(self, limits: SiteLimits | None = None, log: bool = True) -> None:
        self.clock = Clock()
        self.log = LogRecorder()
        self.site = Site(self.clock, limits or SiteLimits(), access_log=self.log if log else None)  # type: ignore[arg-type]
        self.routes = FakeRoutes()
        self.site.routes = self.routes
        self.service = FakeService(self.clock)
        self.other = FakeService(self.clock)
        self.other.name = "other"
        self.routes.services.update({"site.example": self.service, "other.example": self.other})

    def connect(self, peer: IAddress = VISITOR, **options: Any) -> FakeTransport:
        """A visitor's connection."""
        transport = FakeTransport(peer=peer, **options)
        info = ConnectionInfo(peer, peer, secure=transport.tls, id="c")
        transport.attach(HttpVisitor(self.site, info))
        return transport

    @property
    def channel(self) -> FakeChannel:
        """The latest stream to ``site.example``."""
        return self.service.channels[-1]

    def settle(self, *transports: FakeTransport) -> None:
        """Let what was written arrive."""
        for _ in range(4):
            for service in (self.service, self.other):
                for channel in service.channels:
                    channel.drain()
            for transport in transports:
                transport.drain()

    def assert_nothing_left(self) -> None:
        """No request under way, no stream, no wait, nothing unpaid."""
        self.settle()
        assert not self.service.outstanding
        assert not self.other.outstanding
        for waits in (self.site.heads, self.site.idle, self.site.idle_origins):
            assert not len(waits)
        for service in (self.service, self.other):
            for channel in service.channels:
                assert channel.credited == channel.delivered or channel.resets, (
                    channel.credited,
                    channel.delivered,
                )
        self.site.stop()
        assert not self.clock.getDelayedCalls()


def get(path: str = "/", host: str = "site.example", *fields: str, version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"GET {path} HTTP/{version}", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def split(sent: bytes | bytearray) -> tuple[int, dict[str, str], bytes]:
    """A response's status, fields and all that follows its head."""
    head, _, rest = bytes(sent).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields[name.lower()] = value
    return int(status.split()[1]), fields, rest
