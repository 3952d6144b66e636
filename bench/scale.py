"""``python -m bench scale``: very many agents on one relay, very many streams on one tunnel."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bench.measure import (
    LOOPBACK,
    BenchError,
    Program,
    Programs,
    certificate,
    cpu_seconds,
    free_port,
    memory,
    raise_files,
    wait_for,
)
from bench.peers import srrrs_agent, srrrs_endpoints, srrrs_relay

COME_WITHIN: Final = 900.0
"""Seconds that the whole fleet has to come the first time."""
BACK_WITHIN: Final = 240.0
"""Seconds that it has to come back after the relay's restart."""
SETTLE: Final = 3.0
"""Seconds before memory is read."""
DIALS: Final = 128
"""Visitors that connect at a time."""
SOURCES: Final = 8
"""Loopback addresses that visitors come from: a relay limits the visitors of one address."""
OPEN_WITHIN: Final = 120.0
AWAY: Final = "refuses the connection"
"""What an agent says of a dial while nobody listens."""
REFUSALS: Final = ("not available", "does not let", "does not accept", "forbids", "is no relay")
"""What an agent says of a dial that the relay turned away."""


@dataclass
class Plan:
    """How much is done."""

    agents: int = 10_000
    streams: int = 10_000
    processes: int = 4
    parts: tuple[str, ...] = ("plain", "tls", "streams")
    crash: bool = False
    """Whether the relay is killed rather than stopped, so that agents park their sessions and dial
    for those first."""
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)


@dataclass
class Figures:
    """What was found: lines for people, and the same for machines."""

    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, key: str, value: Any, line: str) -> None:
        """Note one."""
        self.values[key] = value
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line, and keep it."""
        self.lines.append(line)
        print(line, flush=True)


class Fleet:
    """Some processes full of agents."""

    def __init__(self, programs: Programs, port: int, tls: bool, plan: Plan) -> None:
        each = -(-plan.agents // plan.processes)
        self.size = plan.agents
        self.members: list[Program] = []
        for first in range(0, plan.agents, each):
            words = [sys.executable, "-m", "bench.fleet", "--first", str(first)]
            words += ["--count", str(min(each, plan.agents - first))]
            words += ["--url", f"{'wss' if tls else 'ws'}://localhost:{port}/tunnel"]
            words += ["--token", str(programs.path / "relay" / "first.token")]
            if tls:
                words += ["--ca-file", str(certificate(programs.path)[0])]
            self.members.append(programs.start(words))

    def look(self) -> dict[str, Any]:
        """Where all of them are together."""
        total: Counter[str] = Counter(connected=0, ready=0, attempts=0)
        failures: Counter[str] = Counter()
        for member in self.members:
            member.check()
            lines = [each for each in member.output.splitlines() if each.startswith("{")]
            if lines:
                state = json.loads(lines[-1])
                failures.update(state.pop("failures"))
                total.update(state)
        return {**total, "failures": dict(failures)}

    def wait(
        self, tell: Callable[[str], None], within: float = COME_WITHIN, ready: bool = True
    ) -> float:
        """Until all are there; the seconds that it took."""
        begun, said = time.monotonic(), 0.0

        def all_there() -> bool:
            nonlocal said
            state = self.look()
            if time.monotonic() - said > 5:
                said = time.monotonic()
                tell(f"  {said - begun:5.0f} s: {state}")
            return bool(state["ready" if ready else "connected"] >= self.size)

        wait_for(all_there, f"{self.size} agents", within)
        return time.monotonic() - begun


def scale(plan: Plan) -> Figures:
    """Run the parts. :raises BenchError: one could not be carried through."""
    figures = Figures()
    limit = raise_files()
    wanted = max(plan.agents, plan.streams) + 200
    if limit < wanted:
        raise BenchError(f"{wanted} open files are needed, {limit} are allowed (ulimit -n)")
    for part in plan.parts:
        try:
            if part == "streams":
                _streams(plan, figures)
            else:
                _idle(plan, figures, part == "tls")
        except BenchError as error:
            figures.add(f"{part}_failed", str(error), f"{part}: {error}")
    return figures


# --- agents -----------------------------------------------------------------------------


def _idle(plan: Plan, figures: Figures, tls: bool) -> None:
    mode = "TLS" if tls else "plain"
    port = free_port()
    with Programs() as programs:
        relay = srrrs_relay(programs, port, tls)
        empty = memory([relay.pid], "VmRSS")
        plan.tell(f"{mode}: {plan.agents} agents come")
        fleet = Fleet(programs, port, tls, plan)
        took = fleet.wait(plan.tell)
        time.sleep(SETTLE)
        each = (memory([relay.pid], "VmRSS") - empty) / plan.agents / 1024
        figures.add(
            f"{mode}_idle_kib",
            round(each, 1),
            f"{mode}: {plan.agents:,} idle agents, {each:.1f} KiB each in the relay "
            f"(one HTTP service each; {took:.0f} s to come)",
        )
        cpu, begun = cpu_seconds([relay.pid]), time.monotonic()
        time.sleep(SETTLE)
        share = (cpu_seconds([relay.pid]) - cpu) / (time.monotonic() - begun)
        figures.add(
            f"{mode}_idle_cpu",
            round(share, 4),
            f"{mode}: their heartbeats take {share:.1%} of a core of the relay",
        )
        before = fleet.look()
        plan.tell(f"{mode}: the relay restarts")
        relay.stop(signal.SIGKILL if plan.crash else signal.SIGTERM)
        begun = time.monotonic()
        pids = [member.pid for member in fleet.members]
        agents_cpu = cpu_seconds(pids)
        relay = _again(programs, port, tls)
        up = time.monotonic() - begun
        starting = cpu_seconds([relay.pid])
        _gone(fleet)
        try:
            fleet.wait(plan.tell, BACK_WITHIN, ready=False)
        except BenchError:
            # Told all the same: how far it came, and what kept it.
            plan.tell(f"{mode}: not all came back")
        connected = time.monotonic() - begun
        if fleet.look()["connected"] >= fleet.size:
            fleet.wait(plan.tell, BACK_WITHIN)
        back = time.monotonic() - begun
        after = fleet.look()
        failures = Counter(after["failures"])
        failures.subtract(before["failures"])
        failures = +failures
        refused = sum(n for text, n in failures.items() if any(r in text for r in REFUSALS))
        spent = cpu_seconds([relay.pid]) - starting
        agents_cpu = cpu_seconds(pids) - agents_cpu
        away = sum(n for text, n in failures.items() if AWAY in text)
        figures.add(
            f"{mode}_back",
            {
                "listening": round(up, 1),
                "connected": round(connected, 1),
                "ready": round(back, 1),
                "count": after["connected"],
                "refused": refused,
                "dials": after["attempts"] - before["attempts"],
                "while_away": away,
                "failures": dict(failures),
                "relay_cpu": round(spent, 1),
                "agents_cpu": round(agents_cpu, 1),
            },
            f"{mode}: after a restart {after['connected']:,} of {plan.agents:,} were connected "
            f"after {connected:.1f} s "
            f"and published after {back:.1f} s (the relay listened after {up:.1f} s); "
            f"{refused} were refused; {after['attempts'] - before['attempts']:,} dials, "
            f"{away:,} of them before the relay listened; {spent:.1f} s of the relay's CPU, "
            f"{agents_cpu:.1f} s of the agents'",
        )
        for text, count in failures.most_common(6):
            figures.say(f"  {count:,} dials: {text}")
        each = (memory([relay.pid], "VmRSS") - empty) / plan.agents / 1024
        figures.add(f"{mode}_idle_again_kib", round(each, 1), f"  then {each:.1f} KiB each")


def _again(programs: Programs, port: int, tls: bool) -> Program:
    return srrrs_relay(programs, port, tls)


def _gone(fleet: Fleet) -> None:
    """Until the fleet has noticed that the old relay went: a count from before is no return."""
    wait_for(lambda: fleet.look()["attempts"] > fleet.size, "agents that dial again", 60.0)


# --- streams ----------------------------------------------------------------------------


def _streams(plan: Plan, figures: Figures) -> None:
    port, local = free_port(), free_port()
    with Programs() as programs:
        echo = programs.start([sys.executable, "-m", "bench.echo", str(local)])
        echo.wait_port(local)
        relay = srrrs_relay(programs, port, False)
        agent = srrrs_agent(programs, port, False, "--local-tcp", f"echo={LOOPBACK}:{local}")
        public = int(srrrs_endpoints(agent, ["echo"])["echo"].rpartition(":")[2])
        ends = {"relay": relay, "agent": agent}
        empty = {name: memory([end.pid], "VmRSS") for name, end in ends.items()}
        plan.tell(f"{plan.streams} streams open")
        spent = {name: cpu_seconds([end.pid]) for name, end in ends.items()}
        own = time.process_time()
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            opened, answered = runner.run(
                asyncio.wait_for(
                    _visit(plan.streams, public, ends, empty, figures), OPEN_WITHIN * 2
                )
            )
        own = round(time.process_time() - own, 2)
        cpu = {name: round(cpu_seconds([end.pid]) - spent[name], 2) for name, end in ends.items()}
    figures.add(
        "streams",
        {
            "count": plan.streams,
            "open_seconds": opened,
            "echo_seconds": answered,
            "cpu": {**cpu, "visitors": own},
        },
        f"{plan.streams:,} streams on one tunnel: all open and answering after {opened:.1f} s; "
        f"then a byte there and back on every one in {answered:.2f} s; CPU: "
        f"{cpu['relay']:.1f} s of the relay's, {cpu['agent']:.1f} s of the agent's, {own:.1f} s of "
        "the visitors'",
    )


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes a loop for the visitors, so that they take no more than they must."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _visit(
    count: int, port: int, ends: dict[str, Program], empty: dict[str, int], figures: Figures
) -> tuple[float, float]:
    gate = asyncio.Semaphore(DIALS)
    pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open_one(number: int) -> None:
        async with gate:
            source = (f"127.0.1.{1 + number % SOURCES}", 0)
            pair = await asyncio.open_connection(LOOPBACK, port, local_addr=source)
            pairs.append(pair)
            await ask(pair)

    async def ask(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        pair[1].write(b"?")
        await pair[0].readexactly(1)

    try:
        begun = time.monotonic()
        await asyncio.wait_for(
            asyncio.gather(*(open_one(number) for number in range(count))), OPEN_WITHIN
        )
        opened = time.monotonic() - begun
        for name, end in ends.items():
            each = (memory([end.pid], "VmRSS") - empty[name]) / count / 1024
            figures.add(
                f"stream_{name}_kib", round(each, 1), f"a stream takes {each:.1f} KiB in the {name}"
            )
        begun = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*map(ask, pairs)), OPEN_WITHIN)
        return round(opened, 2), round(time.monotonic() - begun, 2)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        raise BenchError(f"{len(pairs)} of {count} streams, then: {error!r}") from None
    finally:
        for _, writer in pairs:
            writer.transport.abort()
