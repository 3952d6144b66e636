"""The relay as a Twisted service: puts its parts together, listens, and ends in good order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from srrrs.config import ConfigError, RelayConfig
from srrrs.net.accept import AcceptGate
from srrrs.net.address import format_address
from srrrs.net.draining import when_idle
from srrrs.net.serving import server_endpoint
from srrrs.net.websocket import RelayCarrier, RelayCarrierFactory
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Hello
from srrrs.protocol.mux import Limits
from srrrs.relay.directory import Directory
from srrrs.relay.door import Door
from srrrs.relay.edge.certificates import LOOK_EVERY
from srrrs.relay.edge.listener import EdgeFactory
from srrrs.relay.edge.site import Site, SiteLimits
from srrrs.relay.edge.tcp import PublicPortFactory
from srrrs.relay.firstrun import make_first_token
from srrrs.relay.gate import CHECK_EVERY, Gate
from srrrs.relay.ports import BACKLOG, PublicPorts
from srrrs.relay.published import Surroundings
from srrrs.relay.registrar import Registrar
from srrrs.relay.reservation import Key
from srrrs.relay.store import Store, StoreError
from srrrs.relay.tokens import Identity, Tokens
from srrrs.relay.tunnels import Tunnels
from srrrs.relay.urls import PublicNames
from srrrs.relay.visitors import Visitors
from srrrs.relay.waiting import WaitingRoom
from srrrs.words import Word

FLUSH_EVERY: Final = 60.0
"""Seconds between writes of when tokens and reservations were last used."""
ROOM_EVERY: Final = 0.25
"""Seconds between looks at whether parked sessions must give way for want of memory."""
READ_WITHIN: Final = 5.0
"""Seconds that visitors have, once all streams have ended, to read what came by them."""
STOP_WITHIN: Final = 5.0
"""Seconds that agents have to take the close of their tunnels when the relay stops."""

_WITH_BACKLOG: Final = ("tcp:", "tcp6:", "ssl:", "unix:")


class StartError(Exception):
    """The relay cannot start; one line that says why."""


def with_backlog(description: str) -> str:
    """An endpoint string with our backlog, where the user named none."""
    if description.startswith(_WITH_BACKLOG) and "backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    return description


class Relay(Service):
    """A relay.

    :param reactor: listens and keeps time.
    :param wall: seconds since the epoch.
    :param out: where the line to paste on the device goes, if that is a terminal.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        config: RelayConfig,
        wall: Callable[[], float] = time.time,
        out: TextIO | None = None,
    ) -> None:
        self.config = config
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._wall = wall
        self._out = sys.stdout if out is None else out
        self._loops: list[LoopingCall] = []
        self._expiry: float | None = None

    # --- starting -----------------------------------------------------------------------

    def startService(self) -> None:
        """Open the data folder and listen.

        :raises StartError: either cannot be done.
        """
        super().startService()  # type: ignore[no-untyped-call]
        failures: list[Failure] = []
        at_once = True

        def failed(failure: Failure) -> None:
            if at_once:
                failures.append(failure)
            else:
                self._log.critical("{error}", error=failure.getErrorMessage())
                self._reactor.stop()

        Deferred.fromCoroutine(self._start()).addErrback(failed)
        # Most endpoints that cannot listen say so before they return.
        at_once = False
        if failures:
            Deferred.fromCoroutine(self._stop()).addErrback(lambda _: None)
            failures[0].raiseException()

    async def _start(self) -> None:
        config, limits = self.config, self.config.limits
        try:
            self._visitors = Visitors(self._reactor, config, self._wall)
        except (OSError, ValueError) as error:
            raise StartError(f"the error pages or the access log: {error}") from None
        try:
            self.store = Store(config.data_dir)
            self._door = door = Door(config, self._wall)
        except StoreError as error:
            raise StartError(str(error)) from None
        except (OSError, ValueError) as error:
            raise StartError(f"the relay's own certificate cannot be used: {error}") from None
        self.tokens = Tokens(self.store)
        self.tunnels = Tunnels(limits.tunnels)
        self._accept = AcceptGate(
            self._reactor,
            limits.handshakes,
            limits.unauthenticated_per_address,
            limits.visitors_per_address,
        )
        log, pages = self._visitors.access_log, self._visitors.pages
        site_limits = SiteLimits(
            head_bytes=limits.head_bytes,
            head_fields=limits.head_fields,
            target_bytes=limits.target_bytes,
            head_timeout=limits.head_timeout,
            idle_timeout=limits.idle_timeout,
            body_timeout=limits.body_timeout,
            body_bytes=config.max_body,
        )
        self._site = Site(self._reactor, site_limits, config.trusted_proxies, log, pages)
        self._site.front = door.front
        if door.certificates is not None:
            self._site.same_certificate = door.certificates.same
        self._edge = EdgeFactory(
            self._site,
            self._accept,
            RelayCarrierFactory(
                self._reactor,
                self._authorize,
                self._greet,
                limits.handshake_timeout,
            ),
            door.certificates,
            config.trust_local,
        )
        await self._listen()
        door.opened(self.port)
        names = PublicNames(
            config.domain, self.port, door.tls, config.public_url, door.https, door.covers
        )
        self.names = names
        self.directory = Directory(
            self.store,
            per_token=limits.services,
            reserved=[label for host in names.control_hosts if (label := names.label_of(host))],
            live=self._is_live,
        )
        self.registrar = Registrar(
            self._reactor,
            self._wall,
            self.directory,
            names,
            config.tcp_ports,
            PublicPorts(
                self._reactor,
                self._interface() if config.tcp_interface is None else config.tcp_interface,
                self._accept.add,
                self._accept.remove,
            ),
            lambda service: PublicPortFactory(service, self._accept, log, service.kind),
            limits.services,
            Surroundings(
                WaitingRoom(self._reactor, limits.visitors_held, config.hold),
                self._reactor.seconds,
                limits.requests_per_tunnel,
            ),
            self._visitors.policies,
        )
        self.gate = Gate(
            self._reactor,
            self._wall,
            self.tokens,
            self.tunnels,
            self.registrar,
            config.domain,
            (config.heartbeat_min, config.heartbeat_max),
            Limits(streams=limits.streams, window=limits.window_bytes, frame=limits.frame_bytes),
            Budget(limits.buffer_bytes),
            limits.tunnel_buffer_bytes,
            config.session_grace,
            self._site.let_go,
        )
        self._site.routes = self.registrar
        self._loop(self._check_tokens, CHECK_EVERY)
        self._loop(self.gate.make_room, ROOM_EVERY)
        self._loop(self._flush, FLUSH_EVERY)
        if config.tls is not None:
            self._loop(door.look, LOOK_EVERY)
        pin = door.pin
        try:
            make_first_token(self.tokens, config.data_dir, names, pin, self._wall(), self._out)
        except (StoreError, OSError) as error:
            raise StartError(f"no first token can be made: {error}") from None
        self._log.info(
            "the relay is ready: agents dial {edge}{pin}, services appear under {domain}",
            edge=names.edge_url(),
            pin="" if pin is None else f" with --pin {pin}",
            domain=config.domain,
        )

    # The parts need each other; these bind late.

    def _authorize(self, token: str | None, peer: IAddress) -> Identity:
        return self.gate.authorize(token, peer)

    def _greet(self, carrier: RelayCarrier, identity: Identity, hello: Hello) -> None:
        self.gate.greet(carrier, identity, hello)

    def _is_live(self, key: Key) -> bool:
        return self.registrar.is_live(key)

    async def _listen(self) -> None:
        # Nobody is accepted before the reactor's next turn, when all parts are there.
        for description in self.config.listen:
            try:
                endpoint = server_endpoint(self._reactor, with_backlog(description))
                port = await endpoint.listen(self._edge)
            except CannotListenError as error:
                raise StartError(f"cannot listen on {description}: {error.socketError}") from None
            except Exception as error:
                raise StartError(f"cannot listen on {description}: {error}") from None
            self.ports.append(port)
            self._accept.add(port)
            self._log.info(
                "listening on {where}", where=format_address(port.getHost()), endpoint=description
            )

    @property
    def port(self) -> int | None:
        """The port of the first listener that has one."""
        for listening in self.ports:
            number = getattr(listening.getHost(), "port", None)
            if isinstance(number, int):
                return number
        return None

    def _interface(self) -> str:
        """The address of the first listener that has one, for the public ports."""
        for listening in self.ports:
            host = getattr(listening.getHost(), "host", None)
            if isinstance(host, str):
                return host
        return "127.0.0.1"

    # --- while it runs ------------------------------------------------------------------

    def _loop(self, work: Callable[[], None], every: float) -> None:
        loop = LoopingCall(self._guarded, work)
        loop.clock = self._reactor
        self._loops.append(loop)
        loop.start(every, now=False).addErrback(
            lambda failure: self._log.failure("a periodic task failed", failure=failure)
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:
            self._log.error("the data folder cannot be used: {error}", error=error)
        except Exception:
            self._log.failure("a periodic task failed")

    def _check_tokens(self) -> None:
        now = self._wall()
        if self.store.changed() or (self._expiry is not None and now >= self._expiry):
            self._expiry = self.tokens.next_expiry(now)
            self.gate.check_tokens()

    def _flush(self) -> None:
        self.tokens.flush()
        self.directory.touch(self.registrar.live_keys(), self._wall())
        # A part at a time: the rest waits for the next round.
        self.directory.flush()

    def reload(self) -> None:
        """Read again what was read from files."""
        if hasattr(self, "_visitors"):
            self._visitors.reload()
        if hasattr(self, "_door"):
            self._door.look()

    # --- ending -------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Send the agents away, let running streams finish for ``drain`` seconds at the longest,
        stop listening, close every tunnel, and write down what is not yet."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _drain(self) -> None:
        self.registrar.drain()
        self._site.drain()
        self.gate.drain("the relay is stopping", self.config.drain_to)
        limit, streams = self.config.drain, self.tunnels.streams
        if not limit or not (streams or self._accept.visiting):
            return
        self._log.info(
            "the relay is {word}: {streams} running streams have {limit:g} s to finish",
            word=Word.DRAINING,
            streams=streams,
            limit=limit,
        )
        deadline = self._reactor.seconds() + limit
        await self._until(lambda: not self.tunnels.streams, limit)
        rest = deadline - self._reactor.seconds()
        if self.tunnels.streams:
            self._log.info(
                "{streams} streams are reset, for they have not finished in time",
                streams=self.tunnels.streams,
            )
        elif rest > 0:
            await self._until(lambda: not self._accept.visiting, min(rest, READ_WITHIN))

    async def _until(self, idle: Callable[[], bool], seconds: float) -> None:
        waiter = when_idle(self._reactor, idle)
        await waiter.addTimeout(seconds, self._reactor, lambda _, __: None)

    async def _stop(self) -> None:
        if hasattr(self, "gate"):
            # Listening: for the agents whose connection breaks meanwhile.
            await self._drain()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        if not hasattr(self, "store"):
            if hasattr(self, "_visitors"):
                await self._visitors.stop()
            return
        for port in self.ports:
            self._accept.remove(port)
            await maybeDeferred(port.stopListening)
        if hasattr(self, "gate"):
            closing = []
            for agent in self.tunnels:
                agent.tunnel.close(CloseCode.SHUTDOWN, "the relay is stopping")
                closing.append(agent.tunnel.when_closed())
            await self.registrar.stop()
            await DeferredList(closing).addTimeout(STOP_WITHIN, self._reactor, lambda _, __: None)
        for connection in list(self._edge.connections):
            connection.abort()
        self._site.stop()
        self._accept.stop()
        await self._visitors.stop()
        if hasattr(self, "gate"):
            self._log.info("the tunnels of this run: {tally}", tally=str(self.gate.tally))
            try:
                self._flush()
                while self.directory.flush():
                    pass
            except StoreError as error:
                self._log.error("the last changes could not be written: {error}", error=error)
        self.store.close()


def make_relay(reactor: Any, config: RelayConfig) -> Relay:
    """A relay, ready to be started.

    :raises ConfigError: an endpoint string that cannot be used.
    """
    for description in config.listen:
        try:
            server_endpoint(reactor, with_backlog(description))
        except (IndexError, KeyError):  # of the sockets that systemd passed
            raise ConfigError(f"--listen: {description}: no such socket was passed") from None
        except Exception as error:
            raise ConfigError(f"--listen: {description}: {error}") from None
    return Relay(reactor, config)
