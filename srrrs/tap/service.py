"""A relay or an agent as the one service of a process."""

from __future__ import annotations

import signal
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.logger import Logger
from twisted.python import usage

from srrrs.config import AgentConfig, RelayConfig
from srrrs.net.hangup import HangupService
from srrrs.net.notify import NotifyService
from srrrs.tap.options import fail

_log = Logger()


def install_reactor() -> None:
    """Install the fastest reactor there is, unless one is installed already."""
    from srrrs.net.reactor import install_default

    install_default(_log)


def relay_service(reactor: Any, config: RelayConfig) -> IService:
    """A relay that has the process to itself.

    :raises ConfigError: the configuration cannot be used here.
    """
    from srrrs.relay.service import make_relay

    relay = make_relay(reactor, config)
    return _process(reactor, relay, HangupService(reactor, relay.reload))


def agent_service(reactor: Any, config: AgentConfig) -> IService:
    """An agent that has the process to itself.

    :raises ConfigError: the configuration cannot be used here.
    """
    from srrrs.agent.make import make_agent
    from srrrs.agent.watching import NetworkWatch

    agent = make_agent(reactor, config)
    return _process(reactor, agent, NetworkWatch(reactor, agent.network_changed))


def plainly(service: IService, options: usage.Options) -> IService:
    """The service, which under ``twistd -n`` ends the process with one line and status 1 where it
    cannot start. A twistd in the background tells its parent by itself."""
    parent: Any = options.parent
    if parent is None or not parent.get("nodaemon"):
        return service
    process = _Plainly()  # type: ignore[no-untyped-call]
    process.prog = options.prog  # type: ignore[attr-defined]
    service.setServiceParent(process)
    return process


class _Plainly(MultiService):
    prog = ""

    def startService(self) -> None:
        try:
            super().startService()  # type: ignore[no-untyped-call]
        except Exception as error:
            fail(self.prog, str(error) or type(error).__name__, status=1)


class _SecondSignal(Service):
    """While the process stops, which may take its time, a second signal ends it at once. Where the
    signals are not the reactor's, others see to that."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        for each in (signal.SIGINT, signal.SIGTERM):
            if getattr(signal.getsignal(each), "__self__", None) is self._reactor:
                signal.signal(each, signal.SIG_DFL)


def _process(reactor: Any, *parts: Any) -> IService:
    from srrrs.net.accept import raise_nofile_limit
    from srrrs.net.memory import collect_seldom, keep_freed_memory

    raise_nofile_limit()
    keep_freed_memory()
    collect_seldom()
    process = MultiService()
    for part in (*parts, _SecondSignal(reactor), NotifyService(reactor)):
        part.setServiceParent(process)
    return process
