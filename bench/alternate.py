"""``python -m bench alternate``: requests through srrrs and others, an instant each in turn.

On a machine whose speed drifts by a third within seconds, rounds of seconds tell two tunnels apart
only where they are far apart. Here each has a client that stands all the time and is stopped but
for its slots; what counts is the ratio of slots that follow each other.
"""

from __future__ import annotations

import math
import random
import re
import signal
import socket
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.compare import OURS
from bench.load import start_web
from bench.measure import LOOPBACK, BenchError, Program, Programs, machine_ticks, processes
from bench.peers import PLAIN, TLS, choose, need

BEGIN: Final = 1.0
"""Seconds that a client has for its connections before it is first stopped."""
WARM: Final = 0.03
"""Seconds of a slot before what counts."""
END: Final = 0.01
"""Seconds for what is under way to arrive after a client was stopped."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    :ivar seconds: in all.
    :ivar slot: seconds of a tunnel's turn that count.
    """

    seconds: float = 60.0
    slot: float = 0.15
    connections: int = 32
    peers: list[str] | None = None
    tls: bool = False


@dataclass
class Standing:
    """A tunnel, its client, and what its slots gave: requests/s, CPU s/request, idle share."""

    name: str
    client: Program
    pids: list[int]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)

    def slot(self, seconds: float, answer: int) -> None:
        """Let the client ask for so long.

        :param answer: bytes of one.
        """
        self.client.send(signal.SIGCONT)
        time.sleep(WARM)
        busy, ticks = machine_ticks()
        before, cpu, begun = _read(self.client.pid), _cpu(self.pids), time.perf_counter()
        time.sleep(seconds)
        count = (_read(self.client.pid) - before) / answer
        took, cpu = time.perf_counter() - begun, _cpu(self.pids) - cpu
        busy_then, ticks_then = machine_ticks()
        self.client.send(signal.SIGSTOP)
        time.sleep(END)
        if not count:
            raise BenchError(f"{self.name} answered nothing in {took:.2f} s")
        self.rates.append(count / took)
        self.cpu.append(cpu / count)
        self.idle.append(1 - (busy_then - busy) / max(1, ticks_then - ticks))


def alternate(plan: Plan) -> list[Standing]:
    """Run it.

    :raises BenchError: a tunnel or its client does not run.
    """
    wrk = need("wrk")
    with Programs() as local, Programs() as tunnels, Programs() as clients:
        web = start_web(local)
        standing = []
        for peer in choose(plan.peers, TLS if plan.tls else PLAIN):
            published = peer.start(tunnels, [web, web], plan.tls)
            url = f"http://{LOOPBACK}:{published.ports[0]}/"
            words = [wrk, "-t1", f"-c{plan.connections}", "-d3600s", url]
            pids = [each for program in published.programs for each in processes(program.pid)]
            each = Standing(peer.name, clients.start(words), pids)
            time.sleep(BEGIN)
            each.client.check()
            each.client.send(signal.SIGSTOP)
            standing.append(each)
        answer = _answer(web)
        end = time.monotonic() + plan.seconds
        try:
            while time.monotonic() < end:
                for each in random.sample(standing, len(standing)):
                    each.slot(plan.slot, answer)
        finally:
            for each in standing:
                each.client.send(signal.SIGCONT)
    return standing


def ratio(ours: Standing, theirs: Standing) -> tuple[float, float]:
    """The geometric mean of the ratios of two tunnels' slots, and its standard error."""
    logs = [math.log(a / b) for a, b in zip(ours.rates, theirs.rates, strict=True)]
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    mean = math.exp(statistics.fmean(logs))
    return mean, mean * error


def render(standing: list[Standing]) -> str:
    """A table."""
    lines = [
        "|  | req/s | CPU µs/req | idle | srrrs to it |",
        "|---|---:|---:|---:|---:|",
    ]
    ours = next((each for each in standing if each.name == OURS), None)
    for each in standing:
        words = "–"
        if ours is not None and each is not ours:
            mean, error = ratio(ours, each)
            words = f"{mean:.2f} ± {error:.2f}"
        rate, cpu, idle = (statistics.fmean(column) for column in (each.rates, each.cpu, each.idle))
        lines.append(f"| {each.name} | {rate:,.0f} | {cpu * 1e6:.1f} | {idle:.0%} | {words} |")
    lines.append(f"\n{len(standing[0].rates)} slots each")
    return "\n".join(lines)


def _answer(port: int) -> int:
    """Bytes of one answer of the web server."""
    with socket.create_connection((LOOPBACK, port), 5.0) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or b"\r\n\r\n"
    length = re.search(rb"(?i)content-length: (\d+)", data)
    if length is None:
        raise BenchError("the web server does not say how long its answers are")
    return data.index(b"\r\n\r\n") + 4 + int(length[1])


def _read(pid: int) -> int:
    """Bytes that a process has read (proc(5), ``rchar``)."""
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


def _cpu(pids: list[int]) -> float:
    """CPU seconds of processes and their threads, to the nanosecond."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
