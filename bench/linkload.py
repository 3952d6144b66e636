"""What goes over the link: bulk transfers and, beside them, small requests."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.load import pump
from bench.measure import BenchError
from bench.netns import inside

DOWN, UP = "down", "up"
REQUEST: Final = 200
"""Bytes of a small request, and of its answer."""
EVERY: Final = 0.03
"""Seconds between two of them on a connection, at least."""
GIVE_UP: Final = 30.0
"""Seconds after which an answer or a connection does not come any more."""
_CHUNK: Final = 1 << 20
_ECHO, _TAKE, _GIVE = b"E", b"T", b"G"


class Service:
    """The local service: a connection's first byte says what it does.

    :param namespace: where it listens, on all addresses.
    """

    def __init__(self, namespace: str) -> None:
        self._source = os.memfd_create("link")
        for _ in range(16):
            os.write(self._source, os.urandom(_CHUNK))
        os.truncate(self._source, 64 * _CHUNK)
        with inside(namespace):
            self._listener = socket.create_server(("0.0.0.0", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.counts: dict[bytes, int] = {}
        _spawn(self._accept)

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.close(self._source)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                _spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            what = connection.recv(1)
            if what == _GIVE:
                pump(connection, self._source)
            elif what == _TAKE:
                name = connection.recv(8, socket.MSG_WAITALL)
                _drop(connection, lambda size: self._count(name, size))
            else:
                while data := connection.recv(_CHUNK):
                    connection.sendall(data)

    def _count(self, name: bytes, size: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + size


def _spawn(function: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _drop(connection: socket.socket, count: Callable[[int], None]) -> None:
    buffer = bytearray(_CHUNK)
    while size := connection.recv_into(buffer, _CHUNK, socket.MSG_TRUNC):
        count(size)


class Transfers:
    """Bulk transfers of one direction that go on until :meth:`close`.

    :param namespace: where they are asked for.
    :param address: where the service, or the tunnel's port to it, is reached.
    """

    def __init__(
        self, service: Service, namespace: str, address: tuple[str, int], way: str, streams: int
    ) -> None:
        self._service = service
        self._way = way
        self._counts = [0] * streams
        self._names = [os.urandom(8) for _ in range(streams)]
        self._connections = []
        for number in range(streams):
            with inside(namespace):
                connection = socket.create_connection(address, GIVE_UP)
            connection.settimeout(None)
            self._connections.append(connection)
            _spawn(self._run, number)

    def sizes(self) -> list[int]:
        """Bytes that have arrived, of each."""
        if self._way == DOWN:
            return list(self._counts)
        return [self._service.counts.get(name, 0) for name in self._names]

    def close(self) -> None:
        """End them all."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _run(self, number: int) -> None:
        connection = self._connections[number]
        with contextlib.suppress(OSError):
            if self._way == DOWN:
                connection.sendall(_GIVE)

                def count(size: int) -> None:
                    self._counts[number] += size

                _drop(connection, count)
            else:
                connection.sendall(_TAKE + self._names[number])
                pump(connection, self._service._source)


class Requests:
    """Small requests on one connection that stands, one after the other, until :meth:`close`."""

    def __init__(self, namespace: str, address: tuple[str, int]) -> None:
        with inside(namespace):
            self._connection = socket.create_connection(address, GIVE_UP)
        self._connection.settimeout(GIVE_UP)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._took: list[tuple[float, float]] = []
        self._over = False
        self._thread = _spawn(self._run)

    def close(self) -> None:
        """Ask no more."""
        self._over = True
        self._thread.join(GIVE_UP)
        self._connection.close()

    def took(self, since: float, until: float) -> list[float]:
        """Seconds of those that were asked between two moments."""
        return [took for asked, took in self._took if since <= asked < until]

    def _run(self) -> None:
        connection, question = self._connection, bytes(REQUEST)
        with contextlib.suppress(OSError):
            connection.sendall(_ECHO)
            while not self._over:
                asked = time.monotonic()
                connection.sendall(question)
                left = REQUEST
                while left:
                    size = len(connection.recv(left))
                    if not size:
                        return
                    left -= size
                took = time.monotonic() - asked
                self._took.append((asked, took))
                time.sleep(max(0.0, EVERY - took))


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run found.

    :ivar rate: Mbit/s of the bulk transfers' payload, together; 0 where there were none.
    :ivar spread: how far the fastest and the slowest transfer are from the mean, at the most, as a
        share of it.
    :ivar small: milliseconds, sorted: small requests through the tunnel.
    :ivar plain: the same, of a TCP connection of their own at the same moment.
    """

    rate: float
    spread: float
    small: list[float]
    plain: list[float]


def run(
    service: Service,
    namespace: str,
    bulk: tuple[str, int],
    small: tuple[str, int] | None,
    plain: tuple[str, int] | None,
    way: str,
    streams: int,
    settle: float,
    seconds: float,
) -> Figures:
    """Bulk transfers and small requests at once, measured after ``settle`` for ``seconds``.

    :raises BenchError: nothing came through.
    """
    probes = [Requests(namespace, each) if each else None for each in (small, plain)]
    transfers = Transfers(service, namespace, bulk, way, streams)
    try:
        time.sleep(settle)
        begun, before = time.monotonic(), transfers.sizes()
        time.sleep(seconds)
        ended, after = time.monotonic(), transfers.sizes()
    finally:
        transfers.close()
        for probe in probes:
            if probe is not None:
                probe.close()
    sizes = [b - a for a, b in zip(before, after, strict=True)]
    mean = statistics.fmean(sizes) if sizes else 0.0
    if sizes and not mean:
        raise BenchError("not a byte came through")
    spread = max(abs(size - mean) for size in sizes) / mean if sizes else 0.0
    times = [
        sorted(each * 1e3 for each in probe.took(begun, ended)) if probe else [] for probe in probes
    ]
    return Figures(sum(sizes) * 8e-6 / (ended - begun), spread, times[0], times[1])


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; NaN of none."""
    if not values:
        return float("nan")
    return values[min(len(values) - 1, int(len(values) * share))]
