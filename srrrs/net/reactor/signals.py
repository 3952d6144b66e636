"""Noticing that child processes end, beside an event loop that has the wakeup descriptor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet import process
from twisted.internet._signals import _SIGCHLDWaker


class ChildWaker(_SIGCHLDWaker):
    """Reaps processes on SIGCHLD.

    Twisted has `signal.set_wakeup_fd` write to its pipe.  uvloop sets that to a pipe of its own
    when it runs, and lets Python handle signals; so the handler writes to ours.
    """

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, self._on_signal)
        signal.siginterrupt(signal.SIGCHLD, False)

    def uninstall(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _on_signal(self, *_: Any) -> None:
        try:
            os.write(self.o, b"x")
        except BlockingIOError:
            pass


class ChildSignalHandling:
    """Installs a `ChildWaker` for the time that the reactor runs."""

    def __init__(
        self, add_reader: Callable[[Any], object], remove_reader: Callable[[Any], object]
    ) -> None:
        self._add_reader = add_reader
        self._remove_reader = remove_reader
        self._waker: ChildWaker | None = None

    def install(self) -> None:
        if self._waker is None:
            self._waker = ChildWaker()
            self._add_reader(self._waker)
        self._waker.install()
        # Some may have ended before the handler was there.
        process.reapAllProcesses()

    def uninstall(self) -> None:
        if self._waker is not None:
            self._remove_reader(self._waker)
            self._waker.uninstall()
            self._waker.connectionLost(None)  # type: ignore[no-untyped-call]
            self._waker = None
