"""What can go wrong on the wire: reset codes, close codes and the one protocol error."""

from __future__ import annotations

from enum import IntEnum


class ResetCode(IntEnum):
    """Why a stream ended early; carried by RESET (``SPEC.md``, *Reset codes*)."""

    CANCEL = 1
    """The peer's side lost interest: its connection was aborted or broken."""
    REFUSED = 2
    """The backend could not be reached."""
    TIMEOUT = 3
    """The backend did not answer the connection in time."""
    OVERLOAD = 4
    """A limit or the memory budget is used up."""
    UNKNOWN_SERVICE = 5
    """OPEN named a service that this agent has not registered."""
    WITHDRAWN = 6
    """The service went away."""
    GONE = 7
    """The tunnel ended."""
    INTERNAL = 8
    """A fault in this end's code."""


class CloseCode(IntEnum):
    """Why a carrier was closed; WebSocket close codes for private use (RFC 6455, 7.4.2)."""

    PROTOCOL = 4000
    REPLACED = 4001
    REVOKED = 4002
    SHUTDOWN = 4003
    SILENCE = 4004
    VERSION = 4005
    LIMIT = 4006
    HANDSHAKE_TIMEOUT = 4008


class ProtocolError(Exception):
    """The peer broke the protocol; its carrier is closed with ``code`` and ``reason``.

    It is the only exception that bytes from a peer can raise from this package.
    """

    def __init__(self, reason: str, code: CloseCode = CloseCode.PROTOCOL) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Overloaded(Exception):
    """A stream cannot be opened now: the tunnel's or the process's limit is reached."""


class TunnelGone(Exception):
    """The tunnel has ended or is going away; no stream can be opened on it."""
