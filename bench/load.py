"""The work: bulk bytes through sockets, and HTTP requests by wrk to an nginx.

The bulk source and sink are our own threads, not iperf3: bytes come from a memory file by
``sendfile`` and are dropped in the kernel (``MSG_TRUNC``), so that nearly all of the processors'
time is left to the tunnels. What a receiver got inside a window of time is what counts, and the
processes' CPU time is taken at the same two moments.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Final

from bench.measure import LOOPBACK, BenchError, Programs, cpu_seconds
from bench.peers import find, nginx_head, start_nginx_with

WARM_UP: Final = 0.4
"""Seconds of bulk before the window that counts."""
BODY: Final = "a small body, thirty-three bytes.\n"
LARGE: Final = 100_000
"""Bytes of the body at ``/large``."""
_CHUNK: Final = 1 << 20
_SOURCE_SIZE: Final = 64 << 20
_UP, _DOWN = b"U", b"D"
_JOIN_WITHIN: Final = 10.0


class BulkServer:
    """A local service: a connection's first byte says whether it takes bytes or gives them."""

    def __init__(self) -> None:
        self._counters = _Counters()
        self._source = _source()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def received(self) -> int:
        """Bytes taken so far, over all connections."""
        return self._counters.total

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.recv(1) == _UP:
                self._counters.sink(connection)
            else:
                pump(connection, self._source)

    def close(self) -> None:
        """Take no more connections; those that stand end with their visitors."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class _Counters:
    """Bytes that each receiving thread got: a cell a thread, so that none waits for a lock."""

    def __init__(self) -> None:
        self._cells: list[list[int]] = []

    @property
    def total(self) -> int:
        return sum(cell[0] for cell in self._cells)

    def sink(self, connection: socket.socket) -> None:
        """Drop all that comes."""
        cell = [0]
        self._cells.append(cell)
        buffer = bytearray(_CHUNK)
        while True:
            size = connection.recv_into(buffer, _CHUNK, socket.MSG_TRUNC)
            if not size:
                return
            cell[0] += size


def _source() -> int:
    descriptor = os.memfd_create("bulk")
    block = os.urandom(1 << 20)
    for _ in range(_SOURCE_SIZE >> 20):
        os.write(descriptor, block)
    return descriptor


def pump(connection: socket.socket, source: int) -> None:
    """Send the memory file again and again, until the connection breaks."""
    offset = 0
    while True:
        sent = os.sendfile(connection.fileno(), source, offset, _CHUNK)
        offset = (offset + sent) % _SOURCE_SIZE


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a bulk load moved.

    :ivar rate: MB/s (10**6 bytes).
    :ivar size: bytes within the window.
    :ivar cpu: seconds of CPU time of the tunnel's processes within it.
    """

    rate: float
    size: int
    cpu: float


def bulk(
    server: BulkServer, port: int, up: bool, streams: int, seconds: float, pids: list[int]
) -> Bulk:
    """Move bytes through the visitors' port that leads to ``server``.

    :param up: from visitor to the local service (relay to agent); else the other way.
    :raises BenchError: nothing came through.
    """
    counters, source = _Counters(), _source()
    connections = [socket.create_connection((LOOPBACK, port), 5.0) for _ in range(streams)]
    threads = []

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(None)
            connection.sendall(_UP if up else _DOWN)
            if up:
                pump(connection, source)
            else:
                counters.sink(connection)

    try:
        for connection in connections:
            threads.append(threading.Thread(target=run, args=(connection,), daemon=True))
            threads[-1].start()
        time.sleep(WARM_UP)
        begun, cpu, size = time.monotonic(), cpu_seconds(pids), server.received + counters.total
        time.sleep(seconds)
        size = server.received + counters.total - size
        cpu, lasted = cpu_seconds(pids) - cpu, time.monotonic() - begun
    finally:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(_JOIN_WITHIN)
        for connection in connections:
            connection.close()
        os.close(source)
    if not size:
        raise BenchError(f"not a byte came through port {port}")
    return Bulk(size / lasted / 1e6, size, cpu)


# --- HTTP -------------------------------------------------------------------------------


def start_web(programs: Programs) -> int:
    """An nginx that answers each request with a small body, and at ``/large`` with a larger one;
    its port."""
    programs.write("large", "x" * LARGE, 0o644)
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
    text = nginx_head(programs) + (
        "http { access_log off; keepalive_requests 1000000000; default_type text/plain;\n"
        f"  server {{ listen {LOOPBACK}:{port} backlog=4096;\n"
        f"    location = /large {{ root {programs.path}; }}\n"
        f'    location / {{ return 200 "{BODY}"; }} }} }}\n'
    )
    start_nginx_with(programs, "web.conf", text).wait_port(port)
    return port


def has_http() -> bool:
    """Whether requests can be measured here."""
    return bool(find("wrk") and find("nginx"))


@dataclass(frozen=True, slots=True)
class Requests:
    """What a load of requests gave.

    :ivar rate: requests/s that were answered.
    :ivar p50: milliseconds, the median.
    :ivar p99: milliseconds, the 99th percentile.
    :ivar errors: connections and requests that failed.
    :ivar cpu: microseconds of CPU time of the tunnel's processes for each.
    """

    rate: float
    p50: float
    p99: float
    errors: int
    cpu: float


_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def requests(
    port: int,
    connections: int,
    seconds: float,
    pids: list[int],
    *,
    close: bool = False,
    host: str | None = None,
    path: str = "/",
) -> Requests:
    """Ask again and again on each of some connections, with one thread of wrk.

    :param close: open a new connection for each request.
    :param host: what the requests name as their host.
    :raises BenchError: wrk cannot run, or nothing was answered.
    """
    program = find("wrk")
    if program is None:
        raise BenchError("wrk is not installed")
    words = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    words += ["--timeout", "10s", "-H", f"Connection: {'close' if close else 'keep-alive'}"]
    if host is not None:
        words += ["-H", f"Host: {host}"]
    cpu = cpu_seconds(pids)
    try:
        done = subprocess.run(
            [*words, f"http://{LOOPBACK}:{port}{path}"],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"wrk failed: {error}") from None
    cpu = cpu_seconds(pids) - cpu
    return _parse(done.stdout, cpu)


def _parse(text: str, cpu: float) -> Requests:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if rate is None or total is None or not int(total[1]):
        raise BenchError(f"wrk got no answers: {text.strip()[-300:]}")
    failed = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = sum(map(int, failed.groups())) if failed else 0
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors += int(bad[1]) if bad else 0
    return Requests(
        rate=float(rate[1]),
        p50=_milliseconds(text, "50%"),
        p99=_milliseconds(text, "99%"),
        errors=errors,
        cpu=cpu / int(total[1]) * 1e6,
    )


def _milliseconds(text: str, which: str) -> float:
    found = re.search(rf"{which}\s+([\d.]+)(us|ms|s|m)\b", text)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
