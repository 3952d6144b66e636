"""A bad network between an agent and its relay: a TCP forwarder that cuts when it is told to.

Run as ``python -m tests.integration.cutting RELAY_PORT`` it takes orders, one JSON object a line,
on a port of its own, and answers each with its counters; :class:`Network` is who gives them. What
it knows:

* ``cut``: ends every connection now: ``rst`` resets both ends, ``fin`` closes them, ``silence``
  keeps both sockets open and forwards nothing any more, either way; ``half`` resets the agent's
  end and keeps the relay's, which notices nothing;
* with ``after`` and ``way`` (``up``: from the agent, ``down``: to it, ``both``) the cut comes once
  exactly so many more bytes have passed that way, wherever in a message that is;
* ``coming``: a list of such cuts, one for each of the next connections; what ends before its cut
  leaves it to another;
* ``door``: what new connections meet: ``open``, ``refused`` (nobody listens), or ``dropped`` (their
  SYNs are lost, for the listener's queue is full);
* ``source``: the address that its own connections to the relay come from.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from tests.integration.harness import DEADLINE, ROOT, Lab, until

UP, DOWN, BOTH = "up", "down", "both"
_HOST: Final = "127.0.0.1"
_FILLERS: Final = 2
"""Connections that fill the listener's queue: one more than its backlog, and one to be sure."""


@dataclass(frozen=True)
class Cut:
    """How a connection ends, and after how many more bytes of one way; ``None``: at once."""

    how: str
    way: str = UP
    after: int | None = None


class Network:
    """The forwarder in a process of its own, and the orders to it.

    :ivar url: what the agent is to dial.
    """

    def __init__(self, lab: Lab, relay_port: int) -> None:
        words = [sys.executable, "-m", __name__, str(relay_port)]
        self.program = lab.spawn("network", words, cwd=ROOT)
        ports = self.program.line(r"forwarding (\d+), orders (\d+)")
        self.url = f"ws://localhost:{ports[1]}/tunnel"
        orders = lab.keep(socket.create_connection((_HOST, int(ports[2])), DEADLINE))
        self._orders = orders.makefile("rw", encoding="utf-8", newline="\n")

    def _order(self, **order: Any) -> dict[str, Any]:
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        answer: dict[str, Any] = json.loads(self._orders.readline())
        return answer

    def state(self) -> dict[str, Any]:
        """``links``: connections that still forward; ``accepted``, ``cuts``: how many so far;
        ``up``, ``down``: bytes forwarded so far."""
        return self._order(do="state")

    def cut(self, how: str, after: int | None = None, way: str = UP) -> None:
        """End every connection, now or ``after`` more bytes."""
        self._order(do="cut", how=how, after=after, way=way)

    def coming(self, *cuts: Cut) -> None:
        """End the next connections so, one after the other."""
        self._order(do="coming", cuts=[vars(each) for each in cuts])

    def door(self, state: str) -> None:
        """What new connections meet."""
        self._order(do="door", state=state)

    def source(self, address: str) -> None:
        """Where connections to the relay come from, from now on."""
        self._order(do="source", address=address)

    def passed(self, size: int, way: str = DOWN) -> None:
        """Wait until so many more bytes have passed."""
        goal = self.state()[way] + size
        until(lambda: self.state()[way] >= goal, f"{size} bytes {way} the network")

    def cuts(self, number: int) -> None:
        """Wait until so many connections have been cut in all."""
        until(lambda: self.state()["cuts"] >= number, f"{number} cuts")


# --- in the process of its own ------------------------------------------------------------


class _End(Protocol):
    """One of the two sockets of a link."""

    transport: Any = None

    def __init__(self, link: _Link, way: str) -> None:
        self._link = link
        self._way = way
        self.other: _End | None = None

    def dataReceived(self, data: bytes) -> None:
        self._link.forward(self, self._way, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._link.ended(self)


class _Link:
    """A connection of an agent, and ours to the relay."""

    def __init__(self, forwarder: _Forwarder, cut: Cut | None) -> None:
        self._forwarder = forwarder
        self.cut = cut
        self._left: dict[str, int | None] = {} if cut is None else {cut.way: cut.after or 0}
        self._over = False
        self.near = _End(self, UP)
        self.far = _End(self, DOWN)

    def connected(self, _: Any) -> None:
        """Both ends are there."""
        if self._over:
            self.far.transport.abortConnection()
            return
        for one, other in ((self.near, self.far), (self.far, self.near)):
            one.other = other
            one.transport.registerProducer(other.transport, True)
        self.near.transport.resumeProducing()
        self._look()

    def arm(self, cut: Cut) -> None:
        """Cut it, now or after so many more bytes."""
        self.cut = cut
        self._left = {cut.way: cut.after or 0}
        if cut.after is None or self.near.other is not None:
            self._look()

    def forward(self, end: _End, way: str, data: bytes) -> None:
        if self._over:
            return
        for counted in (way, BOTH):
            left = self._left.get(counted)
            if left is not None:
                data = data[:left]
                self._left[counted] = left - len(data)
        self._forwarder.passed[way] += len(data)
        assert end.other is not None
        end.other.transport.write(data)
        self._look()

    def _look(self) -> None:
        if self.cut is not None and self._left[self.cut.way] == 0 and not self._over:
            self._end(self.cut.how)

    def _end(self, how: str) -> None:
        self._over = True
        self._forwarder.cut(self)
        for transport in (self.near.transport, self.far.transport):
            if transport is None:
                continue
            transport.unregisterProducer()
            if how == "rst" or (how == "half" and transport is self.near.transport):
                transport.abortConnection()
            elif how == "fin":
                transport.loseConnection()
            else:
                # What was forwarded is still written; nothing is read, not even an end.
                transport.pauseProducing()

    def ended(self, end: _End) -> None:
        """One of the ends is gone: so is the other, unless the network is what ended it."""
        if self._over:
            return
        self._over = True
        self._forwarder.lost(self)
        for each in (self.near, self.far):
            if each is not end and each.transport is not None:
                each.transport.unregisterProducer()
                each.transport.loseConnection()

    def failed(self, failure: Failure) -> None:
        """The relay cannot be reached."""
        self._over = True
        self._forwarder.lost(self)
        self.near.transport.abortConnection()


class _Forwarder(Factory):
    """Accepts, and keeps the counters."""

    noisy = False

    def __init__(self, reactor: Any, relay_port: int) -> None:
        self._reactor = reactor
        self._relay_port = relay_port
        self._source: str | None = None
        self._coming: list[Cut] = []
        self._door = "open"
        self._fillers: dict[int, socket.socket] = {}
        self._cuts = 0
        self._accepted = 0
        self._silent: list[_Link] = []
        self.links: set[_Link] = set()
        self.passed = {UP: 0, DOWN: 0}
        # With a backlog of none the kernel holds one connection, and drops the SYNs of others.
        self._port = reactor.listenTCP(0, self, backlog=0, interface=_HOST)
        self.number = self._port.getHost().port

    def buildProtocol(self, addr: Any) -> Protocol | None:
        if self._fillers.pop(addr.port, None) is not None:
            return None
        self._accepted += 1
        link = _Link(self, self._coming.pop(0) if self._coming else None)
        self.links.add(link)
        bind = None if self._source is None else (self._source, 0)
        endpoint = TCP4ClientEndpoint(self._reactor, _HOST, self._relay_port, bindAddress=bind)
        self._reactor.callLater(0, self._dial, endpoint, link)
        return link.near

    def _dial(self, endpoint: TCP4ClientEndpoint, link: _Link) -> None:
        link.near.transport.pauseProducing()
        factory = Factory.forProtocol(lambda: link.far)
        factory.noisy = False
        endpoint.connect(factory).addCallbacks(link.connected, link.failed)

    def cut(self, link: _Link) -> None:
        """The link forwards no more."""
        self.links.discard(link)
        self._silent.append(link)
        self._cuts += 1

    def lost(self, link: _Link) -> None:
        """The link has ended by itself, as one of two dials does: its cut is another's then."""
        self.links.discard(link)
        if link.cut is None:
            return
        for other in self.links:
            if other.cut is None:
                other.arm(link.cut)
                return
        self._coming.insert(0, link.cut)

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Carry out an order; the counters."""
        if do == "cut":
            for link in list(self.links):
                link.arm(Cut(**details))
        elif do == "coming":
            self._coming = [Cut(**each) for each in details["cuts"]]
        elif do == "door":
            self._turn(details["state"])
        elif do == "source":
            self._source = details["address"]
        return {
            "links": len(self.links),
            "accepted": self._accepted,
            "cuts": self._cuts,
            **self.passed,
        }

    def _turn(self, state: str) -> None:
        if self._door == "refused":
            self._port = self._reactor.listenTCP(self.number, self, backlog=0, interface=_HOST)
        elif self._door == "dropped":
            for filler in self._fillers.values():
                filler.close()
            self._port.startReading()
        self._door = state
        if state == "refused":
            self._port.stopListening()
        elif state == "dropped":
            self._port.stopReading()
            for _ in range(_FILLERS):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex((_HOST, self.number))
                self._fillers[filler.getsockname()[1]] = filler


class _Orders(LineOnlyReceiver):
    transport: Any
    delimiter = b"\n"

    def __init__(self, forwarder: _Forwarder) -> None:
        self._forwarder = forwarder

    def lineReceived(self, line: bytes) -> None:
        answer = self._forwarder.order(**json.loads(line))
        self.transport.write(json.dumps(answer).encode() + self.delimiter)


def _main() -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    forwarder = _Forwarder(reactor, int(sys.argv[1]))
    orders = Factory.forProtocol(lambda: _Orders(forwarder))
    port = reactor.listenTCP(0, orders, interface=_HOST)
    print(f"forwarding {forwarder.number}, orders {port.getHost().port}", flush=True)
    reactor.run()


if __name__ == "__main__":
    _main()
