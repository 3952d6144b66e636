"""``python -m bench.fleet``: many agents in one process, each with a tunnel of its own.

They are srrrs' own agents, unchanged; only their dials are counted. A line of JSON says where they
are, as often as that changes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LOOK_EVERY: Final = 0.25
"""Seconds between two lines at the least."""
AT_A_TIME: Final = 32
"""Agents that dial at a time when the fleet starts."""
NOWHERE: Final = "localhost:1"
"""What the services lead to: nobody asks for them."""


class Fleet:
    """The agents and where they are.

    :param reactor: they run on it.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.agents: list[Any] = []
        self.failures: Counter[str] = Counter()
        self.attempts = 0
        self._told = ""
        self._waiting: list[Any] = []

    def make(self, options: argparse.Namespace) -> None:
        """Make the agents."""
        from twisted.internet.defer import Deferred

        from srrrs.agent.backends import EndpointBackend, backend_endpoint
        from srrrs.agent.edges import Edge, Edges
        from srrrs.agent.report import Reporter
        from srrrs.agent.service import Agent
        from srrrs.config import AgentLimits
        from srrrs.net.carrier import ICarrier
        from srrrs.net.dial import Answered, DialTarget, dial, relay_endpoint
        from srrrs.net.tunnel import ITunnelHandler, Tunnel
        from srrrs.protocol.flow import Budget
        from srrrs.protocol.handshake import Hello, Welcome
        from srrrs.protocol.mux import Limits, Role

        limits = AgentLimits()
        target = DialTarget.from_url(options.url, ca_file=options.ca_file)
        secret = options.token.read_text().strip()
        budget = Budget(limits.buffer_bytes)
        reactor = self._reactor

        wait = limits.handshake_timeout
        # One for all: what an agent by itself sets up once, TLS' context above all, would be set
        # up thousands of times in this process.
        endpoint_of_relay = relay_endpoint(reactor, target, wait, {})

        def dial_counted(
            token: str, make_hello: Callable[[str], Hello], answered: Answered
        ) -> Deferred[tuple[ICarrier, Welcome]]:
            self.attempts += 1
            dialling = dial(
                reactor,
                target,
                token,
                make_hello,
                timeout=wait,
                endpoint=endpoint_of_relay,
                answered=answered,
            )
            return dialling.addErrback(self._failed).addBoth(self._ended)

        def make_tunnel(handler: ITunnelHandler) -> Tunnel:
            part = Budget(limits.tunnel_buffer_bytes, budget)
            return Tunnel(reactor, Role.AGENT, handler, Limits(), part)

        for number in range(options.first, options.first + options.count):
            agent = Agent(
                reactor,
                edges=Edges(reactor, [Edge(target.url, dial_counted)]),
                instance=f"bench-{number}",
                heartbeat=options.heartbeat,
                token=lambda: secret,
                make_tunnel=make_tunnel,
                reporter=Reporter(),
            )
            endpoint = backend_endpoint(reactor, "tcp:127.0.0.1:1", 1.0)
            agent.add("page", "http", EndpointBackend(reactor, endpoint, NOWHERE, 1.0))
            self.agents.append(agent)

    def _failed(self, failure: Any) -> Any:
        self.failures[str(failure.value)[:80]] += 1
        return failure

    def start(self) -> None:
        """Start the agents, a few at a time."""
        self._waiting = list(reversed(self.agents))
        for _ in range(min(AT_A_TIME, len(self._waiting))):
            self._next()
        self._look()

    def _next(self) -> None:
        if self._waiting:
            self._waiting.pop().startService()

    def _ended(self, outcome: Any) -> Any:
        """A dial ended: the next agent may start."""
        if self._waiting:
            self._reactor.callLater(0, self._next)
        return outcome

    def _look(self) -> None:
        from srrrs.agent.lifecycle import State

        line = json.dumps(
            {
                "connected": sum(each.state is State.CONNECTED for each in self.agents),
                "ready": sum(
                    service.endpoint is not None
                    for each in self.agents
                    for service in each.services
                ),
                "attempts": self.attempts,
                "failures": dict(self.failures),
            }
        )
        if line != self._told:
            self._told = line
            print(line, flush=True)
        self._reactor.callLater(LOOK_EVERY, self._look)


def main() -> None:
    """Run a fleet until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", type=Path, required=True)
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--heartbeat", type=float, default=15.0)
    options = parser.parse_args()

    from srrrs.net.accept import raise_nofile_limit
    from srrrs.net.memory import collect_seldom
    from srrrs.tap.service import install_reactor

    install_reactor()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    raise_nofile_limit()
    fleet = Fleet(reactor)
    fleet.make(options)
    # Thousands of agents live in this process; of srrrs' own, one does.
    collect_seldom()
    reactor.callWhenRunning(fleet.start)
    reactor.run()


if __name__ == "__main__":
    main()
