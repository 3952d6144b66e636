"""A path simulated: a narrow link with a queue, as a TCP connection shows it to a session."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from srrrs.protocol.inflight import InFlight
from srrrs.protocol.mux import MIN_DATA
from srrrs.protocol.session import REPLAY, Session

PACKETS = 1000
"""Packets that the simulation cuts a second of the link's rate into, at least 1,448 bytes each."""


class Link:
    """A queue served at a rate, then a line; in order, for whoever sends.

    :ivar rate: bytes/s.
    :ivar rtt: seconds there and back, with an empty queue.
    :ivar proxy: seconds by which something on the way collects before it passes on.
    """

    def __init__(self, rate: float, rtt: float, proxy: float = 0.0) -> None:
        self.rate = rate
        self.rtt = rtt
        self.proxy = proxy
        self.stalls: Callable[[], float] = lambda: 0.0
        self.now = 0.0
        self._free_at = 0.0
        self._arrived_at = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def queue(self) -> float:
        """Seconds that a byte which is sent now would wait."""
        return max(0.0, self._free_at - self.now)

    def at(self, when: float, function: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, function, arguments))

    def carry(self, size: int, arrive: Callable[[int], None]) -> None:
        packet = max(1448, int(self.rate / PACKETS))
        while size > 0:
            part = min(packet, size)
            size -= part
            self._free_at = max(self._free_at, self.now) + part / self.rate
            due = self._free_at + self.rtt / 2 + self.stalls()
            if self.proxy:
                due = (int(due / self.proxy) + 1) * self.proxy
            # What is lost is sent again, and holds up what follows.
            self._arrived_at = due = max(due, self._arrived_at)
            self.at(due, arrive, part)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, function, arguments = heapq.heappop(self._events)
            function(*arguments)
        self.now = until


class Transfer:
    """One session over the link, which always has more to send unless told otherwise.

    :param ack: instead of the receiver's rule: bytes after which alone it acknowledges.
    """

    def __init__(self, link: Link, ack: int | None = None) -> None:
        self.link = link
        self.inflight = InFlight(0, REPLAY)
        self.sent = 0
        self.acked = 0
        self.left: int | None = None
        self.most_under_way = 0
        self._ack = ack
        self._receiver = Session()
        self._told = 0
        self._timer: float | None = None
        self._paused = False
        link.at(link.now, self.pump)

    def pump(self) -> None:
        """As a tunnel does."""
        inflight, now = self.inflight, self.link.now
        while True:
            room = inflight.limit - (self.sent - self.acked)
            if room <= 0 or self._paused:
                return
            if inflight.paced:
                allowance = inflight.allowance(now)
                if allowance < MIN_DATA:
                    self._paused = True
                    self.link.at(now + inflight.pause(), self._go_on)
                    return
                room = min(room, allowance)
            size = room if self.left is None else min(room, self.left)
            if size:
                if self.left is not None:
                    self.left -= size
                inflight.spend(size)
                start = self.sent
                self.sent += size
                self.most_under_way = max(self.most_under_way, self.sent - self.acked)
                if self.sent >= inflight.mark_from:
                    inflight.sent(start, self.sent, now)
                self.link.carry(size, self._arrive)
            if self.left == 0:
                if self.sent - self.acked < inflight.enough:
                    inflight.dry(self.sent)
                return

    def offer(self, size: int) -> None:
        """There are so many bytes to send, and no more."""
        self.left = size + (self.left or 0)
        self.pump()

    def _go_on(self) -> None:
        self._paused = False
        self.pump()

    def _arrive(self, size: int) -> None:
        now = self.link.now
        due = self._receiver.parsed(size, now)
        assert due is not None
        if self._ack is not None:
            if self._receiver.received - self._told >= self._ack:
                self._acknowledge()
        elif due <= now:
            self._acknowledge()
        elif self._timer is None or due < self._timer:
            self._timer = due
            self.link.at(due, self._tick, due)

    def _tick(self, due: float) -> None:
        if self._timer == due:
            self._timer = None
            if self._receiver.owes:
                self._acknowledge()

    def _acknowledge(self) -> None:
        self._told = self._receiver.acknowledge(self.link.now)
        self.link.at(self.link.now + self.link.rtt / 2, self._acknowledged, self._told)

    def _acknowledged(self, count: int) -> None:
        if count > self.acked:
            self.acked = count
            self.inflight.acknowledged(count, self.sent, self.link.now)
            self.pump()


def rate_of(link: Link, transfers: list[Transfer], seconds: float) -> list[float]:
    """Bytes/s of each in the next ``seconds``."""
    before = [each.acked for each in transfers]
    link.run(seconds)
    return [(each.acked - b) / seconds for each, b in zip(transfers, before, strict=True)]


def queues(link: Link, seconds: float, every: float = 0.01) -> list[float]:
    """The queue as it is now and then, sorted: seconds."""
    seen = []
    for _ in range(int(seconds / every)):
        link.run(every)
        seen.append(link.queue)
    return sorted(seen)


def losing(share: float, rtt: float, seed: int = 1) -> Callable[[], float]:
    """Some packets come a round trip late, as TCP repairs a loss."""
    choice = random.Random(seed)
    return lambda: rtt if choice.random() < share else 0.0
