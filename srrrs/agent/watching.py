"""Tells an agent that the machine's network has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application import service
from twisted.logger import Logger

from srrrs.net.netwatch import NetWatch


class NetworkWatch(service.Service):
    """Runs beside an agent.

    :param changed: in practice :meth:`srrrs.agent.service.Agent.network_changed`.
    """

    _log = Logger()

    def __init__(self, reactor: Any, changed: Callable[[], None]) -> None:
        self._watch = NetWatch(reactor, changed)

    def startService(self) -> None:
        """Begin to watch, where the system can be asked to tell."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._watch.start():
            self._log.debug("this system does not tell of changes of the network")

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._watch.stop()
