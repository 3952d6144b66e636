"""Telling the service manager: sd_notify(3), *Notes*, in Python."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.logger import Logger

#: The variable that names the socket.
VARIABLE: Final = "NOTIFY_SOCKET"


class Notifier:
    """Sends states to the service manager, if there is one that listens.

    The variable is taken out of the environment: children must not speak for this process.
    """

    _log = Logger()

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop(VARIABLE, "")

    def send(self, state: str) -> bool:
        """Send a state such as ``READY=1``; whether it was sent. Never waits, never raises."""
        address = self._address
        if not address or not hasattr(socket, "AF_UNIX"):
            return False
        if address.startswith("@"):
            address = "\0" + address[1:]  # Linux's abstract namespace
        elif not address.startswith("/"):
            self._log.warn("{variable} is neither a path nor @NAME", variable=VARIABLE)
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(address)
                sender.send(state.encode())
        except OSError as error:
            self._log.warn("cannot notify the service manager: {error}", error=str(error))
            return False
        return True


class NotifyService(Service):
    """Says ``READY=1`` once the reactor runs and ``STOPPING=1`` when the process is told to stop.

    It must be the last of its siblings, which are started in order and stopped in reverse.

    :param reactor: provides ``callWhenRunning``.
    """

    def __init__(self, reactor: Any, environ: MutableMapping[str, str] | None = None) -> None:
        self._reactor = reactor
        self._notifier = Notifier(os.environ if environ is None else environ)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        self._notifier.send("STOPPING=1")

    def _ready(self) -> None:
        if self.running:
            self._notifier.send("READY=1")
