"""How the opening of a tunnel fails."""

from __future__ import annotations

from srrrs.protocol.handshake import Denied


class Denial(Exception):
    """An agent is turned away before the upgrade: an HTTP status and a line for people."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


class HandshakeDenied(Exception):
    """The relay turned the agent away after the upgrade."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.message)
        self.denied = denied


class HandshakeFailed(Exception):
    """What answered is no relay, or not one that we can talk to, or it closed.

    :ivar code: the close code, where it gave one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
