"""``srrrs-tunnel demo``: a relay, an agent and something to see, in one process on this machine."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python import usage

from srrrs.config import (
    AgentConfig,
    ConfigError,
    LogLevel,
    RelayConfig,
    ServiceSpec,
    TokenSource,
)
from srrrs.config.services import service as parse_service
from srrrs.config.table import LOG_LEVEL
from srrrs.config.values import count
from srrrs.tap.options import TableOptions
from srrrs.words import Word

#: Tried first; any free port where it is taken.
PORT: Final = 8000
_LOOPBACK: Final = "127.0.0.1"
_PAGE_NAME: Final = "demo"


class DemoOptions(TableOptions):
    """Options of ``srrrs-tunnel demo``.

    :ivar port: the relay's port; None: :data:`PORT`, or a free one.
    :ivar service: what to publish; None: the page.
    """

    description = (
        "Run a relay and an agent in one process, on this machine alone, and publish a page "
        "through them. Nothing is left behind."
    )
    table = (LOG_LEVEL,)
    extra = (
        ("--local-http [NAME=]ADDR", "Publish this web server. [default: a page of its own]"),
        ("--port PORT", f"Port of the relay. [default: {PORT}, or a free one]"),
    )
    port: int | None = None
    service: ServiceSpec | None = None

    def opt_local_http(self, text: str) -> None:
        """Publish this web server."""
        try:
            self.service = parse_service("http", text)
        except ConfigError as error:
            raise usage.UsageError(f"--local-http: {error}") from None

    def opt_port(self, text: str) -> None:
        """Port of the relay."""
        port = count(text)
        if port > 65535:
            raise usage.UsageError(f"--port: {text} is no port: 0 to 65535")
        self.port = port

    def postOptions(self) -> None:
        for text in self.given.get(LOG_LEVEL.name, []):
            try:
                LOG_LEVEL.value(text)
            except ConfigError as error:
                raise usage.UsageError(f"--log-level: {error}") from None

    def run(self) -> int:
        """Run until a signal ends it; the exit status."""
        from srrrs.cli.run import run

        level = LOG_LEVEL.value(self.given.get(LOG_LEVEL.name, ["warn"])[-1])
        folder = Path(tempfile.mkdtemp(prefix="srrrs-demo-"))
        try:
            return run(
                lambda reactor: Demo(reactor, folder, self.port, self.service, level),
                self.prog,
                level,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Demo(Service):
    """A relay and an agent that publishes one service there.

    :param folder: for the relay's data.
    :param port: the relay's; None: :data:`PORT`, or a free one.
    :param spec: what to publish; None: the page.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        port: int | None,
        spec: ServiceSpec | None,
        log_level: LogLevel = "warn",
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._port = port
        self._spec = spec
        self._log_level = log_level
        self._relay: IService | None = None
        self._agent: IService | None = None

    def startService(self) -> None:
        """Start the relay, then the agent. :raises Exception: the relay cannot start."""
        super().startService()  # type: ignore[no-untyped-call]
        token = _make_token(self._folder)
        self._relay, port = self._start_relay()
        self._agent = self._make_agent(port, token)
        self._agent.startService()

    def stopService(self) -> Deferred[None]:
        """Stop the agent, then the relay."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for part in (self._agent, self._relay):
            if part is not None:
                await maybeDeferred(part.stopService)

    def _start_relay(self) -> tuple[IService, int]:
        from srrrs.relay.service import Relay

        port = self._port if self._port is not None else _free(PORT)
        config = RelayConfig(
            data_dir=self._folder,
            listen=(f"tcp:{port}:interface={_LOOPBACK}",),
            drain=0.0,
            log_level=self._log_level,
        )
        relay = Relay(self._reactor, config)
        relay.startService()
        found = relay.port
        assert found is not None
        return relay, found

    def _make_agent(self, port: int, token: str) -> IService:
        from srrrs.agent.backends import FactoryBackend
        from srrrs.agent.make import make_agent
        from srrrs.agent.report import Reporter
        from srrrs.cli.page import site

        config = AgentConfig(
            edge_urls=(f"ws://{_LOOPBACK}:{port}/tunnel",),
            token=TokenSource.parse(token),
            services=() if self._spec is None else (self._spec,),
            instance="demo",
            drain=0.0,
            log_level=self._log_level,
        )
        agent = make_agent(self._reactor, config, Reporter(_tell))

        def round_trip() -> float | None:
            return agent.tunnel.rtt if agent.tunnel is not None else None

        if self._spec is None:
            page = FactoryBackend(site(self._reactor, round_trip))
            agent.add(_PAGE_NAME, "http", page, asked=_PAGE_NAME)
        result: IService = agent
        return result


def _tell(event: Word, fields: dict[str, Any], text: str) -> None:
    if event is Word.READY:
        url = fields["endpoint"]
        target = fields.get("target")
        what = f"{target} is published" if target else "A page is published"
        print(f"{what} at\n\n    {url}/\n\nOpen it in a browser; Ctrl-C ends.", flush=True)
    elif event in (Word.REFUSED, Word.RETRYING, Word.DISCONNECTED, Word.WITHDRAWN):
        print(text, file=sys.stderr, flush=True)


def _make_token(folder: Path) -> str:
    """A token, so that the relay need not make one and tell how to use it."""
    from srrrs.relay.store import Store
    from srrrs.relay.tokens import Tokens

    with Store(folder) as store:
        return Tokens(store).create("demo", time.time())[1]


def _free(port: int) -> int:
    """The port if nobody has it, else 0, which lets the system choose."""
    with closing(socket.socket()) as probe:
        # As the listener will: a port that is only in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return 0
    return port
