"""``python -m bench link``: tunnels over a thin link of our own, small requests beside bulk.

Every figure stands beside that of plain TCP connections over the same link in the same round: what
one bulk transfer gets alone, and what small requests take on a connection of their own at the same
moment. Root only; see :mod:`bench.netns`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.linkload import DOWN, UP, Figures, Service, percentile, run
from bench.linkpeers import LinkPeer, choose
from bench.measure import LOOPBACK, BenchError, LoadWatch, Programs
from bench.netns import SITE_IP, Link, Shape, congestion_controls

PLAIN: Final = "plain TCP"
IDLE: Final = "idle"
CONTROLS: Final = ("bbr", "cubic")
MANY: Final = 16
PARTS: Final = ("small", "far", "loss", "many")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    :ivar rounds: each measures everything once; medians are shown.
    :ivar seconds: of each run, after ``settle``.
    :ivar parts: ``small`` (requests beside bulk, both ways), ``far`` (200 ms), ``loss`` (1 %), each
        of these two with 1 and 8 transfers; ``many`` (16 equal downloads).
    """

    rounds: int = 3
    seconds: float = 10.0
    settle: float = 4.0
    peers: list[str] | None = None
    controls: list[str] | None = None
    parts: tuple[str, ...] = PARTS
    shape: Shape = field(default_factory=Shape)
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Case:
    """One row but for the peer: what the link is like, and what goes over it."""

    part: str
    shape: Shape
    control: str
    way: str
    streams: int

    @property
    def text(self) -> str:
        """For people."""
        words = [f"{self.shape.rtt:g} ms"]
        if self.shape.loss:
            words.append(f"{self.shape.loss:g} % loss")
        words += [self.control, self.way if self.streams == 1 else f"{self.streams} {self.way}"]
        return ", ".join(words)


@dataclass
class Result:
    """All that a run found: the runs of each case and peer, one a round."""

    samples: dict[Case, dict[str, list[Figures]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, case: Case, who: str, figures: Figures) -> None:
        """Note a run."""
        self.samples.setdefault(case, {}).setdefault(who, []).append(figures)

    def json(self) -> dict[str, Any]:
        """For machines: the medians."""
        return {
            "machine": self.machine,
            "notes": self.notes,
            "rows": [
                {"case": case.text, "part": case.part, "peer": who, **row(runs, others)}
                for case, others in self.samples.items()
                for who, runs in others.items()
            ],
        }


def link(plan: Plan) -> Result:
    """Measure. :raises BenchError: not as root, or no link can be had."""
    result, watch = Result(), LoadWatch()
    here = congestion_controls()
    controls = [each for each in plan.controls or CONTROLS if each in here]
    for missing in sorted(set(plan.controls or CONTROLS) - set(controls)):
        result.notes.append(f"{missing}: not in this kernel, so not measured")
    peers = choose(plan.peers)
    for number in range(plan.rounds):
        for case in _cases(plan, controls):
            plan.tell(f"round {number + 1}: {case.text}")
            _measure(plan, case, peers, result)
    load = watch.result()
    result.machine = {"cores": load.cores, "others": round(load.others, 2), "rounds": plan.rounds}
    return result


def _cases(plan: Plan, controls: list[str]) -> Iterator[Case]:
    far, loss = replace(plan.shape, rtt=200.0), replace(plan.shape, loss=1.0)
    for control in controls:
        if "small" in plan.parts:
            for way in (DOWN, UP):
                yield Case("small", plan.shape, control, way, 1)
        for part, shape in (("far", far), ("loss", loss)):
            if part in plan.parts:
                for streams in (1, 8):
                    yield Case(part, shape, control, DOWN, streams)
        if "many" in plan.parts:
            yield Case("many", plan.shape, control, DOWN, MANY)


def _measure(plan: Plan, case: Case, peers: list[LinkPeer], result: Result) -> None:
    with Link(case.shape) as place:
        place.use(case.control)
        service = Service(place.site)
        plain = (SITE_IP, service.port)
        try:
            # What *one* plain connection gets, however many the tunnel carries.
            alone = run(
                service, place.edge, plain, None, plain, case.way, 1, plan.settle, plan.seconds
            )
            result.add(case, PLAIN, alone)
            for peer in peers:
                with Programs() as programs:
                    try:
                        bulk, small = (
                            (LOOPBACK, port)
                            for port in peer.start(place, programs, [service.port] * 2)
                        )
                        if case.part == "small":
                            idle = run(service, place.edge, bulk, small, plain, DOWN, 0, 0.5, 2.0)
                            result.add(replace(case, part=IDLE), peer.name, idle)
                        figures = run(
                            service,
                            place.edge,
                            bulk,
                            small,
                            plain,
                            case.way,
                            case.streams,
                            plan.settle,
                            plan.seconds,
                        )
                        result.add(case, peer.name, figures)
                    except BenchError as error:
                        note = f"{peer.name}, {case.text}: {error}"
                        result.notes.append(note)
                        plan.tell(note)
        finally:
            service.close()


def row(runs: list[Figures], others: dict[str, list[Figures]]) -> dict[str, float]:
    """Medians over the rounds of one case and peer, and the bulk's share of plain TCP's."""

    def middle(value: Callable[[Figures], float]) -> float:
        return statistics.median(value(each) for each in runs)

    figures = {
        "rate": middle(lambda each: each.rate),
        "p50": middle(lambda each: percentile(each.small, 0.5)),
        "p95": middle(lambda each: percentile(each.small, 0.95)),
        "plain_p50": middle(lambda each: percentile(each.plain, 0.5)),
        "plain_p95": middle(lambda each: percentile(each.plain, 0.95)),
        "spread": middle(lambda each: each.spread),
    }
    plain = others.get(PLAIN)
    if plain:
        # Of each round with the plain connection of the same round.
        pairs = zip(runs, plain, strict=False)
        shares = [a.rate / b.rate for a, b in pairs if b.rate]
        figures["share"] = statistics.median(shares) if shares else float("nan")
    return figures


def render(result: Result) -> str:
    """The table, as Markdown."""
    titles = (
        "link",
        "what",
        "small requests p50 / p95, ms",
        "a plain connection beside",
    )
    more = ("bulk, Mbit/s", "of one plain TCP's", "spread")
    lines = [
        f"| {' | '.join(titles + more)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, others in result.samples.items():
        for who, runs in others.items():
            values = row(runs, others)
            idle = case.part == IDLE
            name = f"{who}, idle" if idle else who
            small = "–" if who == PLAIN else f"{values['p50']:.0f} / {values['p95']:.0f}"
            spread = f"{values['spread']:.0%}" if case.streams > 1 and who != PLAIN else "–"
            share = values.get("share")
            lines.append(
                f"| {case.text} | {name} | {small} "
                f"| {values['plain_p50']:.0f} / {values['plain_p95']:.0f} "
                f"| {'–' if idle else format(values['rate'], '.2f')} "
                f"| {'–' if share is None or who == PLAIN else format(share, '.0%')} | {spread} |"
            )
    lines.append("")
    lines += [f"* {note}" for note in result.notes]
    machine = result.machine
    lines.append(
        f"* {machine['cores']} cores; other work on the machine took {machine['others']:.0%} of "
        f"them; medians of {machine['rounds']}."
    )
    return "\n".join(lines)
