"""The handshake: one JSON text message each way (``SPEC.md``, *Handshake*)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from srrrs.protocol.errors import CloseCode, ProtocolError
from srrrs.protocol.frames import (
    MAX_LENGTH,
    optional_seconds,
    optional_text,
    parse_object,
    text_member,
)

SUBPROTOCOL: Final = "srrrs.v1"
"""The WebSocket subprotocol (RFC 6455, 1.9); a relay that does not take it cannot be talked to."""
PATH: Final = "/tunnel"
MAX_HANDSHAKE: Final = 16 * 1024
"""Bytes of a handshake message."""
VERSION: Final = 1
MIN_FRAME: Final = 16 * 1024
"""Payload bytes of a DATA frame that every end takes."""

RUN: Final = re.compile(r"[0-9a-f]{32}")
INSTANCE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Hello:
    """Agent to relay. ``heartbeat`` is the interval that it asks for, in seconds; ``binding``
    the channel binding of its TLS connection, where it has one (RFC 9266); ``frame`` the payload
    bytes of a DATA frame that it takes."""

    run: str
    instance: str
    agent: str
    heartbeat: float
    binding: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """Relay to agent: the tunnel stands. ``heartbeat`` is the interval in force, in seconds;
    ``binding`` the agent's own, where the relay's TLS connection has the same; ``frame`` as in
    the hello."""

    tunnel: str
    heartbeat: float
    domain: str
    relay: str
    binding: str | None = None
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """Relay to agent: no tunnel. ``retry`` tells whether it may heal by itself."""

    code: str
    message: str
    retry: bool


def encode(message: Hello | Welcome | Denied) -> bytes:
    """The message as UTF-8 JSON."""
    members = {
        "type": type(message).__name__.lower(),
        "version": VERSION,
        **{name: value for name, value in asdict(message).items() if value is not None},
    }
    return json.dumps(members, separators=(",", ":")).encode()


def decode_hello(payload: bytes) -> Hello:
    """What the agent said. :raises ProtocolError: it is no valid hello of this version."""
    members = parse_object(payload)
    if members.get("type") != "hello":
        raise ProtocolError("the first message is no hello")
    if members.get("version") != VERSION:
        raise ProtocolError("an unknown version of the protocol", CloseCode.VERSION)
    run, instance = text_member(members, "run"), text_member(members, "instance")
    if not RUN.fullmatch(run):
        raise ProtocolError("a run id that is not 32 hexadecimal digits")
    if not INSTANCE.fullmatch(instance):
        raise ProtocolError("an instance that is not 1 to 64 letters, digits, dots, _ or -")
    heartbeat = optional_seconds(members, "heartbeat")
    if not heartbeat:
        raise ProtocolError("no heartbeat interval")
    return Hello(
        run,
        instance,
        text_member(members, "agent", limit=128),
        heartbeat,
        optional_text(members, "binding", limit=128),
        _frame(members),
    )


def _frame(members: dict[str, Any]) -> int | None:
    value = members.get("frame")
    if value is None:
        return None
    if type(value) is not int or not MIN_FRAME <= value <= MAX_LENGTH:
        raise ProtocolError("'frame' out of range")
    return value


def decode_answer(payload: bytes) -> Welcome | Denied:
    """What the relay said. :raises ProtocolError: it is neither a welcome nor a denial."""
    members = parse_object(payload)
    if members.get("type") == "denied":
        return Denied(
            text_member(members, "code"),
            text_member(members, "message"),
            members.get("retry") is True,
        )
    if members.get("type") != "welcome":
        raise ProtocolError("the relay's first message is neither a welcome nor a denial")
    if members.get("version") != VERSION:
        raise ProtocolError("an unknown version of the protocol", CloseCode.VERSION)
    heartbeat = optional_seconds(members, "heartbeat")
    if not heartbeat:
        raise ProtocolError("no heartbeat interval")
    return Welcome(
        text_member(members, "tunnel"),
        heartbeat,
        text_member(members, "domain"),
        text_member(members, "relay", limit=128),
        optional_text(members, "binding", limit=128),
        _frame(members),
    )
