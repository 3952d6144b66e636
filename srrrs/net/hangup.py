"""SIGHUP: what was read from files is to be read again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger


class HangupService(Service):
    """Calls on SIGHUP, in the reactor's turn. Where somebody else has the signal (``nohup`` ignores
    it, for one), it is theirs.

    :param reload: what to call; what it raises is logged.
    """

    _log = Logger()

    def __init__(self, reactor: Any, reload: Callable[[], None]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._installed = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        number = getattr(signal, "SIGHUP", None)  # None on Windows
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._guarded))
            self._installed = True

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._installed:
            self._installed = False
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def _guarded(self) -> None:
        self._log.info("SIGHUP: files are read again")
        try:
            self._reload()
        except Exception:
            self._log.failure("files could not be read again")
