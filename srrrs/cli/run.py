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
    # Behind the reactor's own handlers, which it installs as it begins to run.
    reactor.callWhenRunning(_handle_signals, reactor)
    reactor.run()
    return 0


def _handle_signals(reactor: Any) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        reactor.callFromThread(_stop, reactor)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)


def _stop(reactor: Any) -> None:
    if reactor.running:
        reactor.stop()


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
