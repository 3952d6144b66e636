"""Runs a service as a process: logging, signals and the exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

from twisted.application.service import IService
from twisted.logger import Logger

from srrrs.config import ConfigError
from srrrs.tap import logs
from srrrs.tap.options import fail
from srrrs.tap.service import install_reactor

_log = Logger()


def run(make: Callable[[Any], IService], prog: str, log_level: str) -> int:
    """Run what `make` makes for a reactor until a signal ends it; the exit status.

    The first SIGINT or SIGTERM stops the service in good order, a second one ends the process at
    once. A configuration that cannot be used, or a service that cannot start, ends it with one
    line on standard error.
    """
    install_reactor()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    logs.start(sys.stderr, log_level, times=not _is_journal(sys.stderr))
    signals = _Signals(reactor)
    signals.handle()
    reactor.callWhenRunning(signals.handle)
    try:
        service = make(reactor)
    except ConfigError as error:
        fail(prog, str(error))
    try:
        service.privilegedStartService()
        service.startService()
    except Exception as error:
        _log.debug("{traceback}", traceback=_traceback(error))
        fail(prog, str(error) or type(error).__name__, status=1)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


class _Signals:
    """The first SIGINT or SIGTERM stops the reactor, as soon as it runs; a second one has its usual
    effect."""

    _ALL = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._met = False

    def handle(self) -> None:
        """Handle signals from now on. The reactor, as it begins to run, takes SIGTERM for itself;
        this is for then too."""
        if not self._met:
            for each in self._ALL:
                signal.signal(each, self._meet)

    def _meet(self, number: int, frame: FrameType | None) -> None:
        self._met = True
        for each in self._ALL:
            signal.signal(each, signal.SIG_DFL)
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


def _is_journal(stream: TextIO) -> bool:
    """Whether a stream ends in systemd's journal, which has times of its own (systemd.exec(5),
    ``$JOURNAL_STREAM``)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
