"""The handshake: JSON text messages (``SPEC.md``, *Handshake*).

The relay says a challenge, the agent a hello, the relay a welcome or a denial.
"""

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
from srrrs.protocol.resumption import KEY_SIZE, MAX_CARRIER, NONCE_SIZE

SUBPROTOCOL: Final = "srrrs.v1"
"""The WebSocket subprotocol (RFC 6455, 1.9); a relay that does not take it cannot be talked to."""
PATH: Final = "/tunnel"
MAX_HANDSHAKE: Final = 16 * 1024
"""Bytes of a handshake message."""
VERSION: Final = 1
MIN_FRAME: Final = 16 * 1024
"""Payload bytes of a DATA frame that every end takes."""

MAX_COUNT: Final = MAX_CARRIER
"""Session bytes that are ever counted."""
SESSION_DIGITS: Final = 32
PROOF_DIGITS: Final = 64
"""Hexadecimal digits of a session's id, and of an HMAC-SHA256."""

_HEX = re.compile(r"[0-9a-f]+")
RUN: Final = re.compile(r"[0-9a-f]{32}")
INSTANCE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """Relay to agent, as soon as the WebSocket stands: what a proof is to be made for."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Resume:
    """In a hello: the session that the agent goes on with (:mod:`srrrs.protocol.resumption`).
    ``received`` is the count of session bytes that it has parsed."""

    session: str
    carrier: int
    nonce: str
    received: int
    proof: str


@dataclass(frozen=True, slots=True)
class Hello:
    """Agent to relay. ``heartbeat`` is the interval that it asks for, in seconds; ``binding``
    the channel binding of its TLS connection, where it has one (RFC 9266); ``frame`` the payload
    bytes of a DATA frame that it takes; ``grace`` the seconds for which its session is to be kept
    after a carrier's end (0, or missing: not at all)."""

    run: str
    instance: str
    agent: str
    heartbeat: float
    binding: str | None = None
    frame: int | None = None
    grace: float | None = None
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """In a welcome: a new session, the key that its resumes are proved with, in hexadecimal, and
    the seconds for which it is kept. Its representation does not show the key."""

    session: str
    key: str
    grace: float

    def __repr__(self) -> str:
        return f"Grant({self.session!r}, {self.grace!r})"


@dataclass(frozen=True, slots=True)
class Resumed:
    """In a welcome: the session goes on. ``received`` is the count of session bytes that the relay
    has parsed, ``proof`` the relay's own."""

    received: int
    proof: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Relay to agent: the tunnel stands. ``heartbeat`` is the interval in force, in seconds;
    ``binding`` the agent's own, where the relay's TLS connection has the same; ``frame`` as in
    the hello; ``resumed`` where the session that the agent asked for goes on, ``grant`` where a
    new one can be resumed."""

    tunnel: str
    heartbeat: float
    domain: str
    relay: str
    binding: str | None = None
    frame: int | None = None
    grant: Grant | None = None
    resumed: Resumed | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """Relay to agent: no tunnel. ``retry`` tells whether it may heal by itself."""

    code: str
    message: str
    retry: bool


def encode(message: Challenge | Hello | Welcome | Denied) -> bytes:
    """The message as UTF-8 JSON."""
    members = {
        "type": type(message).__name__.lower(),
        "version": VERSION,
        **{name: value for name, value in asdict(message).items() if value is not None},
    }
    return json.dumps(members, separators=(",", ":")).encode()


def decode_challenge(payload: bytes) -> Challenge | Denied:
    """What the relay said first. :raises ProtocolError: it is neither a challenge nor a denial."""
    members = parse_object(payload)
    if members.get("type") == "denied":
        return _denied(members)
    if members.get("type") != "challenge":
        raise ProtocolError("the relay's first message is no challenge")
    if members.get("version") != VERSION:
        raise ProtocolError("an unknown version of the protocol", CloseCode.VERSION)
    return Challenge(_digits(members, "nonce", 2 * NONCE_SIZE))


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
        optional_seconds(members, "grace"),
        _resume(members.get("resume")),
    )


def _frame(members: dict[str, Any]) -> int | None:
    value = members.get("frame")
    if value is None:
        return None
    if type(value) is not int or not MIN_FRAME <= value <= MAX_LENGTH:
        raise ProtocolError("'frame' out of range")
    return value


def decode_answer(payload: bytes) -> Welcome | Denied:
    """What the relay said to a hello. :raises ProtocolError: it is neither a welcome nor a
    denial."""
    members = parse_object(payload)
    if members.get("type") == "denied":
        return _denied(members)
    if members.get("type") != "welcome":
        raise ProtocolError("the relay's answer is neither a welcome nor a denial")
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
        _grant(members.get("grant")),
        _resumed(members.get("resumed")),
    )


def _denied(members: dict[str, Any]) -> Denied:
    return Denied(
        text_member(members, "code"),
        text_member(members, "message"),
        members.get("retry") is True,
    )


def _resume(members: Any) -> Resume | None:
    if members is None:
        return None
    members = _object(members, "resume")
    return Resume(
        _digits(members, "session", SESSION_DIGITS),
        _count(members, "carrier", MAX_CARRIER),
        _digits(members, "nonce", 2 * NONCE_SIZE),
        _count(members, "received", MAX_COUNT),
        _digits(members, "proof", PROOF_DIGITS),
    )


def _grant(members: Any) -> Grant | None:
    if members is None:
        return None
    members = _object(members, "grant")
    grace = optional_seconds(members, "grace")
    if not grace:
        raise ProtocolError("no grace time")
    return Grant(
        _digits(members, "session", SESSION_DIGITS), _digits(members, "key", 2 * KEY_SIZE), grace
    )


def _resumed(members: Any) -> Resumed | None:
    if members is None:
        return None
    members = _object(members, "resumed")
    return Resumed(_count(members, "received", MAX_COUNT), _digits(members, "proof", PROOF_DIGITS))


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"no object for {name!r}")
    return value


def _count(members: dict[str, Any], name: str, most: int) -> int:
    value = members.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise ProtocolError(f"no proper number for {name!r}")
    return value


def _digits(members: dict[str, Any], name: str, number: int) -> str:
    value = members.get(name)
    if not isinstance(value, str) or len(value) != number or not _HEX.fullmatch(value):
        raise ProtocolError(f"no {number} hexadecimal digits for {name!r}")
    return value
