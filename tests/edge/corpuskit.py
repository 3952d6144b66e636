"""The corpus's host as a service of a lab."""

from __future__ import annotations

from srrrs.http.head import End, HeadLimits, RequestHead
from srrrs.http.request import RequestReader
from srrrs.testing import FakeTransport
from tests.edge.h1kit import OK, Lab
from tests.edge_fakes import FakeChannel, FakeService
from tests.http.passing import Passed

LIMITS = HeadLimits(head_bytes=64 * 1024, fields=200)
"""What the edge adds fits, too."""


def serve_corpus_host(lab: Lab) -> FakeService:
    """Have what the corpus asks for served."""
    lab.service = service = FakeService(lab.clock)
    lab.routes.services.update({"a.example": service, "2001:db8::1": service})
    return service


def send(transport: FakeTransport, data: bytes, step: int) -> None:
    for at in range(0, len(data), step):
        transport.receive(data[at : at + step])


class Served:
    """A service that answers each whole request, and notes which they were.

    :ivar requests: method, target and host, and the body.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._readers: dict[FakeChannel, tuple[RequestReader, list[int]]] = {}
        self._heads: dict[FakeChannel, list[bytes]] = {}
        self._whole: dict[FakeChannel, int] = {}
        self.requests: list[tuple[str, bytes]] = []

    def go_on(self) -> bool:
        """Read what has come; whether anything was answered."""
        answered = False
        for channel in self._lab.service.channels:
            if channel not in self._readers:
                self._readers[channel] = (RequestReader(LIMITS), [0])
                self._heads[channel] = []
                self._whole[channel] = 0
            reader, at = self._readers[channel]
            reader.feed(bytes(channel.sent[at[0] :]))
            at[0] = len(channel.sent)
            line, body = "", b""
            while (item := reader.next()) is not None:
                if isinstance(item, RequestHead):
                    self._heads[channel].append(item.method + b" " + item.target)
                    line = f"{item.method.decode()} {item.target.decode()} {item.host}"
                elif isinstance(item, End):
                    self.requests.append((line, body))
                    self._whole[channel] += 1
                    reader.next_message()
                    channel.receive(OK.replace(b"answer", b"") if line.startswith("HEAD") else OK)
                    answered = True
                else:
                    body += item
        return answered

    def passed(self) -> list[Passed]:
        """What each stream was sent, but those that were reset before they took anything."""
        return [
            Passed(bytes(channel.sent), self._heads[channel], self._whole[channel])
            for channel in self._readers
            if channel.sent
        ]


def pass_through_edge(data: bytes) -> list[Passed]:
    """What an edge sends a service for a visitor's bytes, by each stream that it opens."""
    lab = Lab()
    serve_corpus_host(lab)
    served = Served(lab)
    visitor = lab.connect()
    visitor.receive(data)
    lab.settle(visitor)
    while served.go_on():
        lab.settle(visitor)
    passed = served.passed()
    visitor.peer_reset()
    lab.assert_nothing_left()
    return passed
