"""Two network namespaces with a narrow link between them (Linux, as root).

``edge`` is where a relay and its visitors are, ``site`` where the agent and local services are.
Each has a TUN device; a process of ours carries every packet from one to the other, late, at a
rate, through a queue that drops what it cannot hold. It needs no traffic control in the kernel.

``python -m bench.netns EDGE SITE RATE RTT QUEUE LOSS`` is that process: it ends with its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.measure import START_WITHIN, BenchError, environment

EDGE_IP: Final = "10.99.0.1"
SITE_IP: Final = "10.99.0.2"
_DEVICE: Final = "bench"
_AVAILABLE: Final = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_NAMED: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
# <linux/if_tun.h>
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_MTU: Final = 1500
_PRIORITY: Final = 50
"""Of the real-time class: a link that is not scheduled in time is another link."""
_LATE: Final = 0.003
"""Seconds by which the link may be behind without a loss of capacity."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the link is like: Mbit/s, milliseconds both ways together, packets, percent."""

    rate: float = 20.0
    rtt: float = 40.0
    queue: int = 100
    loss: float = 0.0


def congestion_controls() -> list[str]:
    """Those of TCP that the kernel has now."""
    return _AVAILABLE.read_text().split()


class Link:
    """The two namespaces and what joins them; a context, root only."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.edge = f"bench-edge-{os.getpid()}"
        self.site = f"bench-site-{os.getpid()}"
        self._carrier: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Link:
        if os.geteuid() != 0:
            raise BenchError("a link of our own needs root")
        try:
            for name in (self.edge, self.site):
                _ip("netns", "add", name)
            words = [sys.executable, "-m", "bench.netns", self.edge, self.site]
            shape = self.shape
            words += [str(each) for each in (shape.rate, shape.rtt, shape.queue, shape.loss)]
            self._carrier = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
            )
            assert self._carrier.stdout is not None
            ready, _, _ = select.select([self._carrier.stdout], [], [], START_WITHIN)
            if not ready or self._carrier.stdout.readline() != b"ready\n":
                raise BenchError("the link does not stand")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove the namespaces."""
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()
            for pipe in (self._carrier.stdin, self._carrier.stdout):
                if pipe is not None:
                    pipe.close()
        for name in (self.edge, self.site):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    def use(self, congestion: str) -> None:
        """Have new connections of both sides use that congestion control."""
        # By route, as a namespace's own default may only be one that the machine allows to all.
        for name, peer in ((self.edge, SITE_IP), (self.site, EDGE_IP)):
            _ip("-n", name, "route", "replace", peer, "dev", _DEVICE, "congctl", congestion)


def words_in(namespace: str, words: Sequence[str | Path]) -> list[str | Path]:
    """The command that runs a program there."""
    return ["ip", "netns", "exec", namespace, *words]


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread's new sockets belong to that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    back = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        there = os.open(_NAMED / namespace, os.O_RDONLY)
        try:
            if libc.setns(there, _CLONE_NEWNET):
                raise BenchError(f"no way into {namespace}: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(there)
        try:
            yield
        finally:
            if libc.setns(back, _CLONE_NEWNET):
                raise BenchError(f"no way out of {namespace}")
    finally:
        os.close(back)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"ip {' '.join(words)}: {done.stderr.strip()}")


# --- the process ------------------------------------------------------------------------


class _Way:
    """One direction: a queue that is served at the link's rate, then a line that takes time."""

    def __init__(self, shape: Shape, source: int, sink: int) -> None:
        self._bytes_a_second = shape.rate * 1e6 / 8
        self._delay = shape.rtt / 2000
        self._room = shape.queue
        self._loss = shape.loss / 100
        self._source, self._sink = source, sink
        self._queue: deque[tuple[float, bytes]] = deque()
        # In the order of their arrival, as the line takes the same time for all.
        self._line: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0

    def read(self, now: float) -> None:
        """Take what the source sent, and drop what the queue does not hold."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(self._room):
                packet = os.read(self._source, 2 * _MTU)
                if len(self._queue) < self._room and random.random() >= self._loss:
                    self._queue.append((now, packet))

    def serve(self, now: float) -> float | None:
        """Move what is due; when to come back."""
        queue, line = self._queue, self._line
        while queue and self._free_at <= now:
            came, packet = queue.popleft()
            begun = max(self._free_at, came - _LATE)
            self._free_at = begun + len(packet) / self._bytes_a_second
            line.append((self._free_at + self._delay, packet))
        while line and line[0][0] <= now:
            with contextlib.suppress(OSError):
                os.write(self._sink, line.popleft()[1])
        due = line[0][0] if line else None
        if queue:
            due = self._free_at if due is None else min(due, self._free_at)
        return due


def _device(namespace: str, name: str, mine: str, peer: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    _ip("link", "set", name, "netns", namespace)
    _ip("-n", namespace, "link", "set", name, "name", _DEVICE)
    _ip("-n", namespace, "address", "add", mine, "peer", peer, "dev", _DEVICE)
    _ip("-n", namespace, "link", "set", _DEVICE, "mtu", str(_MTU), "up")
    _ip("-n", namespace, "link", "set", "lo", "up")
    return descriptor


def _carry(edge: str, site: str, shape: Shape) -> None:
    one = _device(edge, f"be{os.getpid()}", EDGE_IP, SITE_IP)
    two = _device(site, f"bs{os.getpid()}", SITE_IP, EDGE_IP)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    ways = (_Way(shape, one, two), _Way(shape, two, one))
    print("ready", flush=True)
    wait: float | None = None
    while True:
        readable, _, _ = select.select((one, two, 0), (), (), wait)
        if 0 in readable:
            return
        now = time.monotonic()
        dues = []
        for way in ways:
            way.read(now)
            due = way.serve(now)
            if due is not None:
                dues.append(due)
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None


if __name__ == "__main__":
    _carry(
        sys.argv[1],
        sys.argv[2],
        Shape(float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])),
    )
