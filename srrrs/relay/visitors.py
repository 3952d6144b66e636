"""What the relay's owner says of visitors: bounds of policies, error pages and the access log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from srrrs.config import RelayConfig
from srrrs.relay.edge.accesslog import AccessLog
from srrrs.relay.edge.errorpages import OwnPages
from srrrs.relay.edge.gatekeeper import Policies, PolicyBounds
from srrrs.relay.edge.pages import Pages
from srrrs.relay.lines import LineWriter

LAST_WITHIN: Final = 0.05
"""Seconds in which connections that were just aborted come to their ends, and into the log."""


class Visitors:
    """Made once, at the start.

    :ivar pages: what visitors of services see where these have no answer.
    :ivar policies: makes the gatekeepers of services.
    :ivar access_log: told of each visitor; ``None``: there is none.
    :param reactor: keeps time, and has threads.
    :param wall: seconds since the epoch.
    :raises OSError: the log file or the folder of pages cannot be opened.
    :raises ValueError: a page is too long.
    """

    def __init__(self, reactor: Any, config: RelayConfig, wall: Callable[[], float]) -> None:
        self._reactor = reactor
        self._own = None if config.error_pages is None else OwnPages(config.error_pages)
        self.pages: Pages = Pages() if self._own is None else self._own
        bounds = PolicyBounds(asks=config.policies, deny=config.deny, rate=config.rate)

        def run(look: Callable[[], bool]) -> Deferred[bool]:
            return deferToThreadPool(reactor, reactor.getThreadPool(), look)

        self.policies = Policies(reactor, run, bounds, self.pages)
        self.access_log: AccessLog | None = None
        self._lines: LineWriter | None = None
        if config.access_log is not None:
            path = config.access_log if isinstance(config.access_log, Path) else None
            self._lines = LineWriter(reactor, path)
            self.access_log = AccessLog(wall, self._lines.write, config.access_log_format)

    def reload(self) -> None:
        """Read the pages again, and open the log file anew."""
        if self._own is not None:
            self._own.reload()
        if self._lines is not None:
            self._lines.reopen()

    def stop(self) -> Deferred[None]:
        """Write down what is not yet; fires soon, whatever becomes of it."""
        lines = self._lines
        if lines is None:
            return succeed(None)
        # Connections that were just aborted come to their ends in one of the next turns.
        return deferLater(self._reactor, LAST_WITHIN).addCallback(lambda _: lines.stop())
