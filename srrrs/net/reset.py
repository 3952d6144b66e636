"""A stream's reset, as the reason of a lost connection."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost

from srrrs.protocol.errors import ResetCode


class StreamReset(ConnectionLost):
    """The stream ended by a reset: of the peer, or because its tunnel ended."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason or describe(code))
        self.code = code
        self.reason = reason or describe(code)

    def __str__(self) -> str:
        return self.reason


def describe(code: int) -> str:
    """A reset code in words."""
    try:
        return ResetCode(code).name.lower().replace("_", " ")
    except ValueError:
        return f"reset with code {code}"
