"""``python -m bench compare | alternate | http | scale | profile | link``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import alternate, compare, http, link, profile, scale
from bench.measure import BenchError
from bench.netns import Shape
from bench.peers import PLAIN, TLS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _compare_options(commands.add_parser("compare", help="srrrs beside other tunnels"))
    _alternate_options(commands.add_parser("alternate", help="requests, in turns of an instant"))
    _http_options(commands.add_parser("http", help="by host name, beside other HTTP edges"))
    _scale_options(commands.add_parser("scale", help="very many agents, very many streams"))
    _profile_options(commands.add_parser("profile", help="where the time goes"))
    _link_options(commands.add_parser("link", help="over a thin link, as root"))
    options = parser.parse_args(arguments)
    # What was started is ended on every way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(options.run(options))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="one round of one second a load")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=float, help="of each load; default: 2")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all that are found")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--tls", action="store_true", help="over TLS alone")
    only.add_argument("--plain", action="store_true", help="without TLS alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the ratios there")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="of an earlier run")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    if options.from_json:
        result = compare.from_json(json.loads(options.from_json.read_text()))
    else:
        modes = (TLS,) if options.tls else (PLAIN,) if options.plain else (PLAIN, TLS)
        plan = compare.Plan(
            rounds=options.rounds or (1 if options.quick else 5),
            seconds=options.seconds or (1.0 if options.quick else 2.0),
            peers=options.peers,
            modes=modes,
        )
        result = compare.compare(plan)
    print(compare.render(result))
    if options.json:
        options.json.write_text(json.dumps(result.json(), indent=1) + "\n")
    if options.svg:
        from bench.picture import draw

        options.svg.write_text(draw(result))
    missing = [table.mode for table in result.tables if compare.OURS not in table.samples]
    return 1 if missing else 0


def _alternate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, help="in all; default: 60")
    parser.add_argument("--slot", type=float, default=0.15, help="seconds; default: 0.15")
    parser.add_argument("--connections", type=int, default=32, help="default: 32")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all that are found")
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.set_defaults(run=_alternate)


def _alternate(options: argparse.Namespace) -> int:
    plan = alternate.Plan(
        options.seconds, options.slot, options.connections, options.peers, options.tls
    )
    print(alternate.render(alternate.alternate(plan)))
    return 0


def _http_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", default=list(http.PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="one round of one second a load")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of each load; default: 2")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all that are found")
    parser.add_argument("--slow", type=int, default=2000, help="slow clients; default: 2000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all medians there")
    parser.set_defaults(run=_http)


def _http(options: argparse.Namespace) -> int:
    unknown = set(options.parts) - set(http.PARTS)
    if unknown:
        raise BenchError(f"no part {unknown.pop()!r}: one of {', '.join(http.PARTS)}")
    result = http.http(
        http.Plan(
            rounds=options.rounds or (1 if options.quick else 3),
            seconds=options.seconds or (1.0 if options.quick else 2.0),
            peers=options.peers,
            parts=tuple(options.parts),
            slow=options.slow,
        )
    )
    print(http.render(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _scale_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", default=["plain", "tls", "streams"])
    parser.add_argument("--agents", type=int, default=10_000, help="default: 10,000")
    parser.add_argument("--streams", type=int, default=10_000, help="default: 10,000")
    parser.add_argument("--processes", type=int, default=4, help="of agents; default: 4")
    parser.add_argument("--crash", action="store_true", help="kill the relay, do not stop it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.set_defaults(run=_scale)


def _scale(options: argparse.Namespace) -> int:
    figures = scale.scale(
        scale.Plan(
            options.agents,
            options.streams,
            options.processes,
            tuple(options.parts),
            options.crash,
        )
    )
    if options.json:
        options.json.write_text(json.dumps(figures.values, indent=1) + "\n")
    return 0


def _profile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("load", nargs="*", default=["up"], help=", ".join(profile.LOADS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load; default: 4")
    parser.add_argument("--tls", action="store_true", help="over TLS")
    parser.add_argument("--lines", type=int, default=25, help="of each table; default: 25")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the profiles there")
    parser.set_defaults(run=_profile)


def _profile(options: argparse.Namespace) -> int:
    for load in options.load:
        print(profile.profile(load, options.seconds, options.tls, options.lines, options.keep))
        print()
    return 0


def _link_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", default=list(link.PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="one round of 5 seconds a run")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of each run; default: 10")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="default: all that are found")
    parser.add_argument("--congestion", nargs="+", metavar="NAME", help="default: bbr cubic")
    parser.add_argument("--rate", type=float, default=20.0, help="Mbit/s; default: 20")
    parser.add_argument("--rtt", type=float, default=40.0, help="ms; default: 40")
    parser.add_argument("--queue", type=int, default=100, help="packets; default: 100")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all medians there")
    parser.set_defaults(run=_link)


def _link(options: argparse.Namespace) -> int:
    unknown = set(options.parts) - set(link.PARTS)
    if unknown:
        raise BenchError(f"no part {unknown.pop()!r}: one of {', '.join(link.PARTS)}")
    result = link.link(
        link.Plan(
            rounds=options.rounds or (1 if options.quick else 3),
            seconds=options.seconds or (5.0 if options.quick else 10.0),
            peers=options.peers,
            controls=options.congestion,
            parts=tuple(options.parts),
            shape=Shape(options.rate, options.rtt, options.queue),
        )
    )
    print(link.render(result))
    if options.json:
        options.json.write_text(json.dumps(result.json(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
