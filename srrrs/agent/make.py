"""From a configuration to an agent that dials for real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from srrrs.agent.backends import EndpointBackend, backend_endpoint
from srrrs.agent.edges import Edge, Edges, destination
from srrrs.agent.identity import default_instance
from srrrs.agent.report import Reporter, process_reporter
from srrrs.agent.service import GRACE, Agent
from srrrs.config import AgentConfig, AgentLimits, ConfigError
from srrrs.net.carrier import ICarrier
from srrrs.net.dial import Answered, DialTarget, dial, measure
from srrrs.net.draining import DRAIN
from srrrs.net.tunnel import ITunnelHandler, Tunnel
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Hello, Welcome
from srrrs.protocol.mux import Limits, Role


def edges_for(reactor: Any, targets: Sequence[DialTarget], timeout: float) -> Edges:
    """The relays at ``targets``, and those that they may send the agent to.

    :param timeout: seconds of a dial, as of :func:`srrrs.net.dial.dial`.
    """

    def edge(target: DialTarget) -> Edge:
        def dial_it(
            token: str, make_hello: Callable[[str], Hello], answered: Answered
        ) -> Deferred[tuple[ICarrier, Welcome]]:
            return dial(reactor, target, token, make_hello, timeout=timeout, answered=answered)

        return Edge(target.url, dial_it, lambda: measure(reactor, target, timeout), target)

    def told(url: str, current: Edge) -> Edge:
        assert current.target is not None
        return edge(destination(url, current.target, targets))

    return Edges(reactor, [edge(target) for target in targets], told)


def agent_for(
    reactor: Any,
    targets: Sequence[DialTarget],
    token: Callable[[], str],
    reporter: Reporter,
    *,
    instance: str | None,
    heartbeat: float,
    limits: AgentLimits,
    budget: Budget,
    grace: float = GRACE,
    drain: float = DRAIN,
) -> Agent:
    """An agent that dials the nearest of ``targets`` for real.

    :param instance: default: derived from the machine and the user.
    :param heartbeat: seconds.
    :param grace: seconds for which streams wait when the connection breaks.
    :param drain: seconds that streams have to finish in when the agent stops.
    :param budget: the process's; the agent's tunnels get a part of it.
    """
    mux_limits = Limits(
        streams=limits.streams, window=limits.window_bytes, frame=limits.frame_bytes
    )

    def make_tunnel(handler: ITunnelHandler) -> Tunnel:
        part = Budget(limits.tunnel_buffer_bytes, budget)
        return Tunnel(reactor, Role.AGENT, handler, mux_limits, part)

    return Agent(
        reactor,
        edges=edges_for(reactor, targets, limits.handshake_timeout),
        instance=instance or default_instance(),
        heartbeat=heartbeat,
        token=token,
        make_tunnel=make_tunnel,
        reporter=reporter,
        grace=grace,
        drain=drain,
        frame=limits.frame_bytes,
    )


def make_agent(reactor: Any, config: AgentConfig, reporter: Reporter | None = None) -> Agent:
    """The agent that a configuration asks for, with all its services; not started yet.

    :raises ConfigError: an edge URL or address that cannot be used.
    """
    try:
        targets = [
            DialTarget.from_url(
                url, ca_file=config.ca_file, pin=config.pin, insecure=config.insecure
            )
            for url in config.edge_urls
        ]
    except ValueError as problem:
        raise ConfigError(f"--edge-url: {problem}") from None
    agent = agent_for(
        reactor,
        targets,
        config.token.read,
        reporter if reporter is not None else process_reporter(as_json=config.json),
        instance=config.instance,
        heartbeat=config.heartbeat_interval,
        limits=config.limits,
        budget=Budget(config.limits.buffer_bytes),
        grace=config.session_grace,
        drain=config.drain,
    )
    timeout = config.limits.connect_timeout
    for spec in config.services:
        try:
            endpoint = backend_endpoint(reactor, spec.endpoint, timeout)
        except (ValueError, TypeError, OSError) as problem:
            raise ConfigError(f"{spec.name}: {spec.address!r}: {problem}") from None
        backend = EndpointBackend(reactor, endpoint, spec.address, timeout, spec.send_proxy)
        try:
            agent.add(
                spec.name,
                spec.kind,
                backend,
                spec.asked,
                hostname=spec.hostname,
                path=spec.path,
                share=spec.share,
                policy=None if spec.policy is None else dict(spec.policy),
            )
        except ValueError as problem:
            raise ConfigError(str(problem)) from None
    return agent
