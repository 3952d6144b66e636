"""``python -m bench http``: requests by host name, which the edge has to read one by one.

Parts: ``small`` (33-byte bodies on 32 kept connections), ``large`` (100 KB bodies), ``close`` (a
connection for each request) and ``slow`` (small ones beside very many connections that send a head
a byte at a time, from addresses all over 127.0.0.0/8).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.compare import OURS
from bench.load import LARGE, BulkServer, Requests, has_http, requests, start_web
from bench.measure import LOOPBACK, BenchError, Programs, processes
from bench.peers import PEERS, PLAIN, Published, choose

BY_NAME: Final = (OURS, "frp")
"""Peers that serve by host name."""
CONNECTIONS: Final = 32
WARM_UP: Final = 1.0
"""Seconds of small requests before the first round."""
TRICKLE_EVERY: Final = 1.0
"""Seconds between two bytes of a slow client."""
_ADDRESSES: Final = int(ipaddress.IPv4Address("127.0.1.1"))
_STEP: Final = 7919
"""From one slow client's address to the next: a prime, so that they spread."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    :ivar peers: names, or None: those that serve by name.
    :ivar slow: clients in the part of that name.
    """

    rounds: int = 3
    seconds: float = 2.0
    peers: Sequence[str] | None = None
    parts: Sequence[str] = ()
    slow: int = 2000


Figures = dict[str, dict[str, float]]
"""By peer: figures by name."""


def http(plan: Plan) -> Figures:
    """Measure in rounds, one peer after the other in each; the medians.

    :raises BenchError: wrk or nginx is missing, or nothing could be measured.
    """
    if not has_http():
        raise BenchError("wrk and nginx are needed")
    samples: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        server = BulkServer()
        stack.callback(server.close)
        web = start_web(stack.enter_context(Programs()))
        started: list[tuple[str, Published, list[int]]] = []
        here = [peer.name for peer in PEERS if peer.name in BY_NAME and peer.found]
        for peer in choose(list(plan.peers or here), PLAIN):
            published = peer.start(stack.enter_context(Programs()), [server.port, web], False)
            pids = [pid for program in published.programs for pid in processes(program.pid)]
            if published.host is not None:
                started.append((peer.name, published, pids))
        for _, published, pids in started:
            _ask(published, WARM_UP, pids)
        for _ in range(plan.rounds):
            for name, published, pids in started:
                found = samples.setdefault(name, {})
                for part in plan.parts:
                    for key, value in PARTS[part](plan, published, pids).items():
                        found.setdefault(key, []).append(value)
    if not samples:
        raise BenchError("nobody here serves by host name")
    return {
        name: {key: statistics.median(values) for key, values in found.items()}
        for name, found in samples.items()
    }


def _ask(
    published: Published, seconds: float, pids: list[int], path: str = "/", close: bool = False
) -> Requests:
    assert published.host is not None
    port, host = published.host
    return requests(port, CONNECTIONS, seconds, pids, host=host, path=path, close=close)


# --- the parts --------------------------------------------------------------------------


def _small(plan: Plan, published: Published, pids: list[int]) -> dict[str, float]:
    got = _ask(published, plan.seconds, pids)
    return {"req/s": got.rate, "p50 ms": got.p50, "p99 ms": got.p99, "CPU us": got.cpu}


def _large(plan: Plan, published: Published, pids: list[int]) -> dict[str, float]:
    got = _ask(published, plan.seconds, pids, "/large")
    return {
        "100 KB req/s": got.rate,
        "100 KB MB/s": got.rate * LARGE / 1e6,
        "100 KB p99 ms": got.p99,
        "100 KB CPU us": got.cpu,
    }


def _close(plan: Plan, published: Published, pids: list[int]) -> dict[str, float]:
    got = _ask(published, plan.seconds, pids, close=True)
    return {"conn/s": got.rate, "conn errors": got.errors}


def _slow(plan: Plan, published: Published, pids: list[int]) -> dict[str, float]:
    assert published.host is not None
    with _slow_clients(published.host[0], plan.slow) as alive:
        got = _ask(published, max(plan.seconds, 3.0), pids)
        left = alive()
    return {
        "req/s beside slow": got.rate,
        "p99 ms beside slow": got.p99,
        "errors beside slow": got.errors,
        "slow alive": left,
    }


PARTS: Final[dict[str, Callable[[Plan, Published, list[int]], dict[str, float]]]] = {
    "small": _small,
    "large": _large,
    "close": _close,
    "slow": _slow,
}


@contextlib.contextmanager
def _slow_clients(port: int, count: int) -> Iterator[Callable[[], int]]:
    """Connections whose heads come a byte at a time; gives how many are still there."""
    head = b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 1000
    clients: list[socket.socket] = []
    over = threading.Event()

    def trickle() -> None:
        at = 1
        while not over.wait(TRICKLE_EVERY):
            for client in list(clients):
                try:
                    client.send(head[at : at + 1])
                except OSError:
                    clients.remove(client)
            at += 1

    thread = threading.Thread(target=trickle, daemon=True)
    try:
        for number in range(count):
            address = str(ipaddress.IPv4Address(_ADDRESSES + number * _STEP))
            client = socket.create_connection((LOOPBACK, port), 5.0, (address, 0))
            clients.append(client)
            client.settimeout(0.0)
            client.send(head[:1])
        thread.start()
        yield lambda: len(clients)
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
        for client in clients:
            client.close()


# --- for people -------------------------------------------------------------------------


def render(figures: Figures) -> str:
    """A Markdown table: a row for each figure, a column for each peer."""
    names = list(figures)
    keys = list(dict.fromkeys(key for found in figures.values() for key in found))
    lines = ["| | " + " | ".join(f"**{n}**" if n == OURS else n for n in names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for key in keys:
        cells = [_cell(figures[name].get(key)) for name in names]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
