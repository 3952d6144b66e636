"""``python -m bench compare``: srrrs and other tunnels on the same work, in interleaved rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bench.load import BulkServer, bulk, has_http, requests, start_web
from bench.measure import BenchError, LoadWatch, Programs, median, memory, processes
from bench.peers import PLAIN, TLS, Peer, Published, choose

OURS: Final = "srrrs"
STREAMS: Final = 8
CONNECTIONS: Final = (1, 32, 256)


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that each peer gets.

    :ivar more: whether more is better.
    :ivar form: how it is printed.
    """

    key: str
    title: str
    more: bool
    form: str = "{:,.0f}"


COLUMNS: Final[tuple[Column, ...]] = (
    Column("up", "up MB/s", True),
    Column("down", "down MB/s", True),
    Column("up8", "8 up MB/s", True),
    Column("down8", "8 down MB/s", True),
    Column("cpu_gb", "CPU s/GB", False, "{:.2f}"),
    Column("rate1", "req/s, 1", True),
    Column("rate32", "req/s, 32", True),
    Column("rate256", "req/s, 256", True),
    Column("p50_32", "p50 ms, 32", False, "{:.2f}"),
    Column("p99_1", "p99 ms, 1", False, "{:.2f}"),
    Column("p99_32", "p99 ms, 32", False, "{:.2f}"),
    Column("p99_256", "p99 ms, 256", False, "{:.2f}"),
    Column("cpu_request", "CPU µs/req", False, "{:.1f}"),
    Column("connections", "new conn/s", True),
    Column("named32", "req/s by name", True),
    Column("memory", "peak MiB", False),
)


@dataclass
class Plan:
    """How much is measured.

    :ivar seconds: of each load.
    :ivar rounds: each runs every load on every peer once.
    """

    rounds: int = 5
    seconds: float = 2.0
    peers: list[str] | None = None
    modes: tuple[str, ...] = (PLAIN, TLS)
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)


@dataclass
class Table:
    """The figures of one mode: of each peer, of each column, one a round."""

    mode: str
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    limits: set[str] = field(default_factory=set)

    def add(self, peer: str, key: str, value: float) -> None:
        """Note a figure."""
        self.samples.setdefault(peer, {}).setdefault(key, []).append(value)

    def middle(self, peer: str, key: str) -> float | None:
        """The median over the rounds."""
        return median(self.samples.get(peer, {}).get(key, []))

    def best(self, column: Column) -> tuple[str, float] | None:
        """The best of the others: its name and its figure. Limits are no peers."""
        found = []
        for peer in self.samples:
            value = self.middle(peer, column.key)
            if peer != OURS and peer not in self.limits and value:
                found.append((peer, value))
        if not found:
            return None
        return (max if column.more else min)(found, key=lambda each: each[1])

    def ratio(self, column: Column, peer: str | None = None) -> float | None:
        """How many times as good srrrs is as the best peer, or as that one."""
        ours = self.middle(OURS, column.key)
        if peer is None:
            best = self.best(column)
            theirs = best[1] if best else None
        else:
            theirs = self.middle(peer, column.key)
        if not ours or not theirs:
            return None
        return ours / theirs if column.more else theirs / ours


@dataclass
class Result:
    """All that a run found."""

    tables: list[Table]
    machine: dict[str, Any]
    took: float

    def json(self) -> dict[str, Any]:
        """For machines: medians, samples, ratios."""
        return {
            "machine": self.machine,
            "seconds": round(self.took, 1),
            "tables": [
                {
                    "mode": table.mode,
                    "medians": {
                        peer: {
                            c.key: table.middle(peer, c.key)
                            for c in COLUMNS
                            if table.middle(peer, c.key) is not None
                        }
                        for peer in table.samples
                    },
                    "samples": table.samples,
                    "ratios": {
                        c.key: {"to": best[0], "ratio": table.ratio(c)}
                        for c in COLUMNS
                        if (best := table.best(c)) is not None
                    },
                    "failures": table.failures,
                    "limits": sorted(table.limits),
                }
                for table in self.tables
            ],
        }


def from_json(data: dict[str, Any]) -> Result:
    """What :meth:`Result.json` gave."""
    tables = [
        Table(each["mode"], each["samples"], each["failures"], set(each["limits"]))
        for each in data["tables"]
    ]
    return Result(tables, data["machine"], data["seconds"])


def compare(plan: Plan) -> Result:
    """Run all rounds. :raises BenchError: srrrs itself could not be measured."""
    watch, begun = LoadWatch(), time.monotonic()
    tables = [_mode(plan, mode) for mode in plan.modes]
    load = watch.result()
    machine = {
        "cores": load.cores,
        "load_before": round(load.before, 2),
        "others": round(load.others, 2),
        "rounds": plan.rounds,
        "seconds_each": plan.seconds,
    }
    return Result(tables, machine, time.monotonic() - begun)


def _mode(plan: Plan, mode: str) -> Table:
    table = Table(mode)
    peers = choose(plan.peers, mode)
    table.limits = {peer.name for peer in peers if peer.limit}
    for number in range(plan.rounds):
        # Each round begins with another peer: none is always first.
        turn = number % len(peers) if peers else 0
        _round(plan, table, peers[turn:] + peers[:turn], f"{mode}, round {number + 1}")
    return table


def _round(plan: Plan, table: Table, peers: list[Peer], name: str) -> None:
    """Start all, run each load on each in turn, end all: an idle tunnel costs next to nothing."""
    server = BulkServer()
    standing: list[tuple[Peer, Published, Programs]] = []
    with Programs() as local:
        try:
            web = start_web(local) if has_http() else server.port
            for peer in peers:
                programs = Programs()
                try:
                    published = peer.start(programs, [server.port, web], table.mode == TLS)
                    standing.append((peer, published, programs))
                except BenchError as error:
                    programs.close()
                    _failed(plan, table, peer, error)
            for label, load in _loads(plan, server):
                plan.tell(f"{name}: {label}")
                for peer, published, _ in standing:
                    pids = _pids(published)
                    try:
                        for key, value in load(published, pids).items():
                            table.add(peer.name, key, value)
                    except (BenchError, OSError) as error:
                        _failed(plan, table, peer, error)
            for peer, published, _ in standing:
                if published.programs:
                    table.add(peer.name, "memory", memory(_pids(published)) / 2**20)
        finally:
            for _, _, programs in standing:
                programs.close()
            server.close()


def _pids(published: Published) -> list[int]:
    return [pid for each in published.programs for pid in processes(each.pid)]


def _failed(plan: Plan, table: Table, peer: Peer, error: Exception) -> None:
    table.failures.append(f"{peer.name}: {error}")
    plan.tell(f"{table.mode}: {peer.name}: {error}")


Load = Callable[[Published, list[int]], dict[str, float]]


def _loads(plan: Plan, server: BulkServer) -> list[tuple[str, Load]]:
    seconds = plan.seconds
    loads: list[tuple[str, Load]] = []
    for key, up, streams in (
        ("up", True, 1),
        ("down", False, 1),
        ("up8", True, STREAMS),
        ("down8", False, STREAMS),
    ):
        loads.append((key, _bulk_load(server, key, up, streams, seconds)))
    if has_http():
        loads += [(f"rate{n}", _request_load(n, seconds)) for n in CONNECTIONS]
        loads += [("connections", _connection_load(seconds)), ("named32", _named_load(seconds))]
    return loads


def _bulk_load(server: BulkServer, key: str, up: bool, streams: int, seconds: float) -> Load:
    def load(published: Published, pids: list[int]) -> dict[str, float]:
        moved = bulk(server, published.ports[0], up, streams, seconds, pids)
        found = {key: moved.rate}
        if pids:
            found["cpu_gb"] = moved.cpu / moved.size * 1e9
        return found

    return load


def _request_load(connections: int, seconds: float) -> Load:
    def load(published: Published, pids: list[int]) -> dict[str, float]:
        got = requests(published.ports[1], connections, seconds, pids)
        if got.errors:
            raise BenchError(f"{got.errors} errors at {connections} connections")
        found = {f"rate{connections}": got.rate, f"p99_{connections}": got.p99}
        if connections == 32:
            found["p50_32"] = got.p50
            if pids:
                found["cpu_request"] = got.cpu
        return found

    return load


def _connection_load(seconds: float) -> Load:
    def load(published: Published, pids: list[int]) -> dict[str, float]:
        return {"connections": requests(published.ports[1], 32, seconds, pids, close=True).rate}

    return load


def _named_load(seconds: float) -> Load:
    def load(published: Published, pids: list[int]) -> dict[str, float]:
        if published.host is None:
            return {}
        port, host = published.host
        return {"named32": requests(port, 32, seconds, pids, host=host).rate}

    return load


# --- for people -------------------------------------------------------------------------


def render(result: Result) -> str:
    """Markdown tables: a row a peer, and what srrrs is to the best peer."""
    lines = []
    for table in result.tables:
        lines += [f"### {table.mode}", ""]
        columns = [c for c in COLUMNS if any(table.middle(p, c.key) for p in table.samples)]
        lines.append("| | " + " | ".join(c.title for c in columns) + " |")
        lines.append("|---|" + "---:|" * len(columns))
        for peer in table.samples:
            cells = [_cell(c, table.middle(peer, c.key)) for c in columns]
            name = f"**{peer}**" if peer == OURS else peer
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if OURS in table.samples:
            others = [p for p in table.samples if p != OURS and p not in table.limits]
            if others:
                cells = []
                for column in columns:
                    ratio, best = table.ratio(column), table.best(column)
                    cells.append(f"{ratio:.2f}× {best[0]}" if ratio and best else "–")
                lines.append("| srrrs to the best peer | " + " | ".join(cells) + " |")
            for peer in others:
                cells = [_ratio(table.ratio(c, peer)) for c in columns]
                lines.append(f"| srrrs to {peer} | " + " | ".join(cells) + " |")
        lines += ["", *(f"* {each}" for each in dict.fromkeys(table.failures)), ""]
    machine = result.machine
    lines.append(
        f"{machine['cores']} cores, which the loads share; load average at the start "
        f"{machine['load_before']}, {machine.get('others', 0):.0%} of the processors' time went to "
        f"other programs meanwhile; medians of {machine['rounds']} rounds, "
        f"{machine['seconds_each']:g} s a load, {result.took:.0f} s in all."
    )
    return "\n".join(lines)


def _cell(column: Column, value: float | None) -> str:
    return "–" if value is None else column.form.format(value)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
