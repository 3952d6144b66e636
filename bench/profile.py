"""``python -m bench profile``: where the relay's and the agent's time goes under a named load.

cProfile runs in both only while the load does. It slows Python code down and C code not at all:
read the order and the shares, and take no rate from such a run.
"""

from __future__ import annotations

import io
import pstats
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.load import BulkServer, bulk, has_http, requests, start_web
from bench.measure import ROOT, BenchError, Programs, cpu_seconds, wait_for
from bench.peers import Published, start_srrrs

LAUNCH: Final = ("-m", "bench.profiled")
"""Runs srrrs with a profiler that signals start and stop."""
SETTLE: Final = 0.3
"""Seconds between the signal that starts the profiler and the load."""


def _bulk(up: bool, streams: int) -> Callable[[BulkServer, Published, float], str]:
    def run(server: BulkServer, published: Published, seconds: float) -> str:
        moved = bulk(server, published.ports[0], up, streams, seconds, [])
        return f"{moved.rate:,.0f} MB/s"

    return run


def _http(
    connections: int, close: bool = False, named: bool = False
) -> Callable[[BulkServer, Published, float], str]:
    def run(server: BulkServer, published: Published, seconds: float) -> str:
        port, host = published.ports[1], None
        if named:
            if published.host is None:
                raise BenchError("requests by name are measured without TLS")
            port, host = published.host
        got = requests(port, connections, seconds, [], close=close, host=host)
        return f"{got.rate:,.0f} requests/s"

    return run


LOADS: Final = {
    "up": _bulk(True, 1),
    "down": _bulk(False, 1),
    "up8": _bulk(True, 8),
    "down8": _bulk(False, 8),
    "rate1": _http(1),
    "rate32": _http(32),
    "rate256": _http(256),
    "connections": _http(32, close=True),
    "named32": _http(32, named=True),
}


def profile(load: str, seconds: float, tls: bool, lines: int, keep: Path | None) -> str:
    """The report.

    :param lines: of each table.
    :param keep: a folder for the profiles themselves, for ``python -m pstats``.
    :raises BenchError: it could not be run.
    """
    if load not in LOADS:
        raise BenchError(f"no load {load!r}: one of {', '.join(LOADS)}")
    server, parts = BulkServer(), []
    with Programs() as programs:
        web = start_web(programs) if has_http() else server.port
        published = start_srrrs(programs, [server.port, web], tls, LAUNCH)
        ends = dict(zip(("relay", "agent"), published.programs, strict=True))
        for end in ends.values():
            end.send(signal.SIGUSR1)
        time.sleep(SETTLE)
        before = {name: cpu_seconds([end.pid]) for name, end in ends.items()}
        begun = time.monotonic()
        rate = LOADS[load](server, published, seconds)
        lasted = time.monotonic() - begun
        spent = {name: cpu_seconds([end.pid]) - before[name] for name, end in ends.items()}
        parts.append(f"{load}, {'TLS' if tls else 'plain'}: {rate} while profiled")
        for name, end in ends.items():
            path = programs.path / f"{end.pid}.prof"
            end.send(signal.SIGUSR2)
            wait_for(path.exists, f"the profile of the {name}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{load}-{name}.prof").write_bytes(path.read_bytes())
            parts.append(f"\n{name}: {spent[name]:.2f} s of CPU in {lasted:.2f} s\n")
            parts.append(table(path, lines))
    server.close()
    return "\n".join(parts)


def table(path: Path, lines: int) -> str:
    """The functions in which most time was spent, themselves, of one profile."""
    stats = pstats.Stats(str(path), stream=io.StringIO())
    rows = []
    total = 0.0
    for (file, line, name), (_, calls, own, whole, _) in stats.stats.items():  # type: ignore[attr-defined]
        if "_lsprof.Profiler" in name:
            continue
        total += own
        rows.append((own, whole, calls, _where(file, line, name)))
    rows.sort(reverse=True)
    out = [f"{'own':>6} {'share':>6} {'whole':>6} {'calls':>9}  function"]
    for own, whole, calls, where in rows[:lines]:
        share = own / total if total else 0.0
        out.append(f"{own:6.2f} {share:6.1%} {whole:6.2f} {calls:9,}  {where}")
    return "\n".join(out)


def _where(file: str, line: int, name: str) -> str:
    if file == "~":
        return name
    path = Path(file)
    short = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-3:])
    return f"{short}:{line} {name}"
