r"""``srrrs:`` endpoint strings: a Twisted program publishes itself through a relay, with no agent
process.

::

    srrrs:edge=wss\://relay.example/tunnel:token=file\:/etc/token:kind=http:name=blog

``edge``
    the relay's edge URL.
``token``
    the token itself, ``file:PATH`` or ``env:NAME``; the latter two are read at every dial.
``kind``
    ``http`` (default), ``tls``, ``tcp`` or ``ssh``.
``name``
    the service's name; for ``http`` and ``tls`` also the subdomain asked for. Default: the kind,
    and for those two a subdomain of the relay's choice.
``hostname``, ``path``, ``share``
    a whole host instead of the subdomain, what requests' paths begin with, and whether agents of
    the same token may serve the same (``yes`` or ``no``), as the agent's ``--hostname``,
    ``--local-http NAME/PATH=`` and ``--share``.
``instance``, ``heartbeat``, ``ca``, ``pin``, ``insecure``
    as the agent's ``--instance``, ``--heartbeat-interval``, ``--ca-file``, ``--pin`` and
    ``--insecure`` (``yes`` or ``no``).

What errs, and what waits: a string that cannot work raises `ValueError` when it is parsed, and
``listen()`` errs with :exc:`srrrs.agent.services.ServiceRefused` when the relay refuses the service
for good (a name that somebody else owns). Everything else is waited for: a relay that is away, and
also a token or version that the relay does not accept, for those are put right on the relay or in
the token file while this program runs. Each is a line in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from srrrs.agent.backends import FactoryBackend
from srrrs.agent.make import agent_for
from srrrs.agent.report import log_reporter
from srrrs.agent.service import Agent
from srrrs.agent.services import PublishedService
from srrrs.config import AgentLimits, ConfigError, TokenSource, values
from srrrs.net.dial import DialTarget
from srrrs.net.netwatch import NetWatch
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import KINDS, NAMED_KINDS, SERVICE_HOST, SERVICE_NAME, SERVICE_PATH

_T = TypeVar("_T")

#: Heartbeat interval asked for when a string names none, seconds.
HEARTBEAT: Final = 15.0

_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_WORDS: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@implementer(IAddress)
@dataclass(frozen=True)
class SrrrsAddress:
    """Where a published service is, for the world: what ``getHost()`` gives.

    :ivar url: ``http://…``, ``https://…`` or ``tcp://host:port``.
    :ivar host: the public host name or address.
    :ivar port: the public port.
    :ivar name: the service's name.
    :ivar kind: ``http``, ``tls``, ``tcp`` or ``ssh``.
    :ivar type: ``TCP``, as of the addresses of TCP ports.
    """

    url: str
    host: str
    port: int
    name: str
    kind: str
    type: str = "TCP"

    @classmethod
    def of(cls, service: PublishedService, url: str) -> SrrrsAddress:
        """The address of a service whose public URL is ``url``."""
        parts = urlsplit(url)
        port = parts.port or _SCHEME_PORTS.get(parts.scheme, 0)
        return cls(url, parts.hostname or "", port, service.name, service.kind)


@dataclass(frozen=True)
class Relay:
    """A relay and how to dial it: strings that agree on all of this share one tunnel."""

    target: DialTarget
    token: TokenSource
    instance: str | None = None
    heartbeat: float = HEARTBEAT


@dataclass
class _Shared:
    agent: Agent
    watch: NetWatch
    users: int = 0


@dataclass
class AgentPool:
    """The agents of a process, one for each relay that strings name; each runs while it is used.

    :param make: makes an agent for a relay.
    """

    make: Callable[[Any, Relay], Agent]
    _shared: dict[tuple[int, Relay], _Shared] = field(default_factory=dict)

    def acquire(self, reactor: Any, relay: Relay) -> Agent:
        """The agent for a relay, started if it is the first use."""
        key = (id(reactor), relay)
        shared = self._shared.get(key)
        if shared is None:
            agent = self.make(reactor, relay)
            watch = NetWatch(reactor, agent.network_changed)
            shared = self._shared[key] = _Shared(agent, watch)
            agent.startService()
            watch.start()
        shared.users += 1
        return shared.agent

    def release(self, reactor: Any, relay: Relay) -> Deferred[None]:
        """One use less; with the last the agent stops. Fires when that is done."""
        key = (id(reactor), relay)
        shared = self._shared[key]
        shared.users -= 1
        if shared.users:
            return succeed(None)
        # Forgotten at once: whoever comes while it stops gets an agent of its own.
        del self._shared[key]
        shared.watch.stop()
        return shared.agent.stopService()


_limits = AgentLimits()
_budget = Budget(_limits.buffer_bytes)


def _make_agent(reactor: Any, relay: Relay) -> Agent:
    return agent_for(
        reactor,
        (relay.target,),
        relay.token.read,
        log_reporter(),
        instance=relay.instance,
        heartbeat=relay.heartbeat,
        limits=_limits,
        budget=_budget,
        # Whoever stops listening waits for that alone.
        drain=0.0,
    )


#: The process's agents.
pool: Final = AgentPool(_make_agent)


@implementer(IStreamServerEndpoint)
class SrrrsServerEndpoint:
    """Listens at a public address of a relay.

    :param reactor: what the agent runs on.
    :param relay: the relay and how to dial it.
    :param kind: ``http``, ``tls``, ``tcp`` or ``ssh``.
    :param name: the service's name, or None for the kind's.
    :param hostname: a whole host to ask for instead of the name.
    :param path: what requests' paths begin with.
    :param share: whether agents of the same token may serve the same.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        kind: str = "http",
        name: str | None = None,
        agents: AgentPool | None = None,
        *,
        hostname: str | None = None,
        path: str | None = None,
        share: bool = False,
    ) -> None:
        self._reactor = reactor
        self._relay = relay
        self._kind = kind
        self._name = (name or kind) + (path or "")
        self._asked = name if kind in NAMED_KINDS and hostname is None else None
        self._hostname = hostname
        self._path = path
        self._share = share
        self._agents = pool if agents is None else agents

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Publish a factory; fires with the port once the relay provides its address.

        Errbacks with :exc:`srrrs.agent.services.ServiceRefused` when the relay refuses for good,
        and with `CannotListenError` when the name is already published from this process.
        Cancelling it withdraws the service.
        """
        return Deferred.fromCoroutine(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        agent = self._agents.acquire(self._reactor, self._relay)
        backend = FactoryBackend(factory)
        try:
            service = agent.add(
                self._name,
                self._kind,
                backend,
                self._asked,
                hostname=self._hostname,
                path=self._path,
                share=self._share,
            )
        except ValueError as problem:
            await self._agents.release(self._reactor, self._relay)
            raise CannotListenError("srrrs", self._name, problem) from None
        port = _Port(self, agent, service, backend)
        try:
            await service.when_registered()
        except BaseException:
            await port.stopListening()
            raise
        port.getHost()  # So that it is known even if nobody asks before the tunnel goes away.
        return port

    async def _withdraw(self, agent: Agent, service: PublishedService) -> None:
        try:
            await agent.remove(service.name)
        finally:
            await self._agents.release(self._reactor, self._relay)


@implementer(IListeningPort)
class _Port:
    def __init__(
        self,
        endpoint: SrrrsServerEndpoint,
        agent: Agent,
        service: PublishedService,
        backend: FactoryBackend,
    ) -> None:
        self._endpoint = endpoint
        self._agent = agent
        self._service = service
        self._stopping: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._address: SrrrsAddress | None = None
        backend.locate = self.getHost

    def __repr__(self) -> str:
        return f"<srrrs port {self._service.name} {self._service.endpoint or 'away'}>"

    def startListening(self) -> None:
        """Nothing: `listen` has done it."""

    def stopListening(self) -> Deferred[None]:
        """Withdraw the service; running streams go on unless the tunnel ends with it.

        Fires when the relay has confirmed, or can no longer, and when the agent has stopped if
        this was its last service. Calling it again waits for the same end.
        """
        ended: Deferred[None] = Deferred()
        self._waiters.append(ended)
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(
                self._endpoint._withdraw(self._agent, self._service)
            )
            self._stopping.addBoth(self._stopped)
        elif self._stopping.called:
            self._stopped(None)
        return ended

    def _stopped(self, outcome: Any) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def getHost(self) -> SrrrsAddress:
        """The public address; while the tunnel is away, the last one known."""
        url = self._service.endpoint
        if url is not None and (self._address is None or self._address.url != url):
            self._address = SrrrsAddress.of(self._service, url)
        return self._address or SrrrsAddress("", "", 0, self._service.name, self._service.kind)


def parse_server(
    reactor: Any,
    edge: str = "",
    token: str = "",
    kind: str = "http",
    name: str | None = None,
    instance: str | None = None,
    heartbeat: str | None = None,
    ca: str | None = None,
    pin: str | None = None,
    insecure: str = "no",
    hostname: str | None = None,
    path: str | None = None,
    share: str = "no",
    **unknown: str,
) -> SrrrsServerEndpoint:
    """The endpoint for the arguments of a ``srrrs:`` string.

    :raises ValueError: with one line that names the argument; a token is never repeated.
    """
    if unknown:
        raise ValueError(f"srrrs: {min(unknown)}= is no argument of this endpoint")
    if not edge:
        raise ValueError(r"srrrs: edge= is missing: srrrs:edge=wss\://HOST/tunnel:token=file\:PATH")
    if not token:
        raise ValueError(
            r"srrrs: token= is missing: token=file\:PATH, token=env\:NAME or the token"
        )
    if kind not in KINDS:
        raise ValueError(f"srrrs: kind={kind}: must be one of {', '.join(sorted(KINDS))}")
    if name is not None and (not SERVICE_NAME.fullmatch(name) or "/" in name):
        raise ValueError(
            f"srrrs: name={name}: must be 1 to 63 of a-z, 0-9 and -, with none at an end"
        )
    if hostname is not None and not SERVICE_HOST.fullmatch(hostname):
        raise ValueError(f"srrrs: hostname={hostname}: must be a host name in lower case")
    if path is not None and not SERVICE_PATH.fullmatch(path):
        raise ValueError(f"srrrs: path={path}: must be /SEGMENT, of letters, digits and ._~@+-")
    if path is not None and kind != "http":
        raise ValueError("srrrs: path= is for kind=http")
    for argument, word in (("insecure", insecure), ("share", share)):
        if word.lower() not in _WORDS:
            raise ValueError(f"srrrs: {argument}= must be yes or no")
    if name is None and hostname is None and (path is not None or _WORDS[share.lower()]):
        raise ValueError("srrrs: path= and share= need a name= or a hostname=")
    if kind not in NAMED_KINDS and (hostname is not None or _WORDS[share.lower()]):
        raise ValueError("srrrs: hostname= and share= are for kind=http and kind=tls")
    allow = _WORDS[insecure.lower()]
    url = _checked("edge", lambda: values.edge_url(edge, insecure=allow))
    target = DialTarget.from_url(
        url,
        ca_file=_checked("ca", lambda: _existing(ca)),
        pin=_checked("pin", lambda: None if pin is None else values.pin(pin)),
        insecure=allow,
    )
    relay = Relay(
        target,
        _checked("token", lambda: TokenSource.parse(token)),
        _checked("instance", lambda: None if instance is None else values.instance(instance)),
        _checked("heartbeat", lambda: _interval(heartbeat)),
    )
    return SrrrsServerEndpoint(
        reactor, relay, kind, name, hostname=hostname, path=path, share=_WORDS[share.lower()]
    )


def _checked(name: str, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except ConfigError as problem:
        raise ValueError(f"srrrs: {name}=: {problem}") from None


def _existing(ca: str | None) -> Path | None:
    return None if ca is None else values.existing_file(ca)


def _interval(heartbeat: str | None) -> float:
    seconds = HEARTBEAT if heartbeat is None else values.duration(heartbeat)
    if seconds <= 0:
        raise ConfigError("must be more than 0 s")
    return seconds
