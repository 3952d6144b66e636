"""How a frame is encoded and decoded (``SPEC.md``, *Frames*).

A frame is an 8-byte header and a payload::

    type (8 bits) | payload length (24 bits) | id (32 bits)

The id names a stream, or for the service frames a service. DATA payloads are handed on as they
arrive and never collected; every other frame is small (``MAX_CONTROL``) and is handed on whole.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any, Final, Protocol, TypeAlias

from srrrs.protocol.errors import ProtocolError, ResetCode

HEADER: Final = Struct("!II")
HEADER_SIZE: Final = HEADER.size
MAX_LENGTH: Final = (1 << 24) - 1
"""Payload bytes that the header's length field can express."""
MAX_CONTROL: Final = 16 * 1024
"""Payload bytes of any frame but DATA."""
MAX_ID: Final = (1 << 31) - 1
"""Stream and service ids are 1 to 2**31 - 1."""
MAX_WINDOW: Final = (1 << 31) - 1
"""Credit, in bytes, that one direction of a stream can hold at the most."""
MAX_TEXT: Final = 1024
"""Characters of a name, address or message in a control frame."""

MAX_POLICY: Final = 8 * 1024
"""Bytes of a service's policy as JSON."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT: Final = r"/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~@+-]+"
SERVICE_PATH: Final = re.compile(rf"(?=.{{2,128}}$)(?:{_SEGMENT})+")
"""The paths that a service can have: plain segments, none of them dots alone."""
SERVICE_NAME: Final = re.compile(rf"{_LABEL}(?:(?=.{{2,128}}$)(?:{_SEGMENT})+)?")
"""A DNS label, and the path of a service that has one."""
SERVICE_HOST: Final = re.compile(rf"(?=.{{1,253}}$)(?:{_LABEL}\.)+(?![0-9]+$){_LABEL}")
"""A whole host: labels, at least two, and no IPv4 address."""
KINDS: Final = frozenset({"http", "tcp", "ssh", "tls"})
NAMED_KINDS: Final = frozenset({"http", "tls"})
"""Kinds that visitors reach by a host name; the others have a port each."""


class FrameType(IntEnum):
    """Types below 128 must be known to both ends; unknown ones from 128 on are skipped."""

    DATA = 0
    OPEN = 1
    FIN = 2
    RESET = 3
    WINDOW = 4
    GOAWAY = 5
    REGISTER = 6
    REGISTERED = 7
    REFUSED = 8
    WITHDRAW = 9
    WITHDRAWN = 10


FIRST_OPTIONAL_TYPE: Final = 128


@dataclass(frozen=True, slots=True)
class Register:
    """Agent to relay: publish a service. ``service_id`` is its choice, unique in the tunnel.

    :ivar name: unique among the agent's services.
    :ivar kind: one of :data:`KINDS`.
    :ivar asked: of a named kind: the subdomain asked for; None: the relay chooses.
    :ivar hostname: a whole host asked for, in the place of a subdomain.
    :ivar path: of HTTP: what requests' paths begin with; None: any.
    :ivar share: whether other agents of the token may serve the same name and path beside it.
    :ivar policy: what visitors are held to: a JSON object, of no meaning here.
    """

    service_id: int
    name: str
    kind: str
    asked: str | None = None
    hostname: str | None = None
    path: str | None = None
    share: bool = False
    policy: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """Relay to agent: the service's public endpoint, as a URL."""

    service_id: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Relay to agent: the service was not published.

    ``retry`` is the number of seconds after which asking again may help; ``None`` means that it
    cannot heal by itself.
    """

    service_id: int
    code: str
    message: str
    retry: float | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Agent to relay: publish a service no longer."""

    service_id: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Relay to agent: the service is published no longer (asked for, or forced)."""

    service_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Goaway:
    """No new streams will be opened or served on this tunnel; running ones may finish."""

    reason: str
    edge_url: str | None = None


ControlFrame: TypeAlias = Register | Registered | Refused | Withdraw | Withdrawn | Goaway


class FrameHandler(Protocol):
    """Whom the decoder calls, in the order of the bytes."""

    __slots__ = ()

    def data_received(self, stream_id: int, data: bytes) -> None: ...
    def open_received(self, stream_id: int, service_id: int, window: int, visitor: str) -> None: ...
    def fin_received(self, stream_id: int) -> None: ...
    def reset_received(self, stream_id: int, code: int, reason: str) -> None: ...
    def window_received(self, stream_id: int, credit: int) -> None: ...
    def control_received(self, frame: ControlFrame) -> None: ...


RELAY_RECEIVES: Final = frozenset(
    {
        FrameType.DATA,
        FrameType.FIN,
        FrameType.RESET,
        FrameType.WINDOW,
        FrameType.GOAWAY,
        FrameType.REGISTER,
        FrameType.WITHDRAW,
    }
)
AGENT_RECEIVES: Final = frozenset(
    {
        FrameType.DATA,
        FrameType.OPEN,
        FrameType.FIN,
        FrameType.RESET,
        FrameType.WINDOW,
        FrameType.GOAWAY,
        FrameType.REGISTERED,
        FrameType.REFUSED,
        FrameType.WITHDRAWN,
    }
)

_WINDOW = Struct("!III")
MAX_LABEL: Final = 64
"""Characters of the label in OPEN; more is cut off."""
_OPEN = Struct("!II")
_U32 = Struct("!I")


def encode_header(kind: int, identifier: int, length: int) -> bytes:
    """The 8 bytes before a payload of ``length`` bytes."""
    return HEADER.pack(kind << 24 | length, identifier)


def encode_data(stream_id: int, data: bytes) -> bytes:
    """A whole DATA frame; the multiplexer writes header and chunks separately instead."""
    if not 0 < len(data) <= MAX_LENGTH:
        raise ValueError(f"a DATA frame carries 1 to {MAX_LENGTH} bytes")
    return HEADER.pack(len(data), stream_id) + data


def encode_open(stream_id: int, service_id: int, window: int, visitor: str) -> bytes:
    """OPEN: the service, the credit granted to the acceptor (bytes), and ``ADDRESS PORT``, after
    which a NUL and the label of the visitor's connection may come."""
    payload = _OPEN.pack(service_id, window) + visitor.encode()
    return HEADER.pack(FrameType.OPEN << 24 | len(payload), stream_id) + payload


def encode_fin(stream_id: int) -> bytes:
    """FIN: no more data from this side."""
    return HEADER.pack(FrameType.FIN << 24, stream_id)


def encode_reset(stream_id: int, code: ResetCode, reason: str) -> bytes:
    """RESET: both directions end at once; ``reason`` is for people."""
    payload = _U32.pack(code) + _clip(reason, 200).encode()
    return HEADER.pack(FrameType.RESET << 24 | len(payload), stream_id) + payload


def encode_window(stream_id: int, credit: int) -> bytes:
    """WINDOW: ``credit`` more bytes may be sent on the stream."""
    return _WINDOW.pack(FrameType.WINDOW << 24 | 4, stream_id, credit)


def encode_control(frame: ControlFrame) -> bytes:
    """A service frame or GOAWAY, its payload as JSON."""
    members: dict[str, Any]
    identifier = 0
    if isinstance(frame, Goaway):
        kind, members = (
            FrameType.GOAWAY,
            {"reason": frame.reason, "edge_url": frame.edge_url},
        )
    else:
        identifier = frame.service_id
        if isinstance(frame, Register):
            kind = FrameType.REGISTER
            members = {
                "name": frame.name,
                "kind": frame.kind,
                "asked": frame.asked,
                "hostname": frame.hostname,
                "path": frame.path,
                "share": frame.share or None,
                "policy": frame.policy,
            }
        elif isinstance(frame, Registered):
            kind, members = FrameType.REGISTERED, {"endpoint": frame.endpoint}
        elif isinstance(frame, Refused):
            kind = FrameType.REFUSED
            members = {
                "code": frame.code,
                "message": _clip(frame.message, MAX_TEXT),
                "retry": frame.retry,
            }
        elif isinstance(frame, Withdraw):
            kind, members = FrameType.WITHDRAW, {}
        else:
            kind, members = (
                FrameType.WITHDRAWN,
                {"reason": _clip(frame.reason, MAX_TEXT)},
            )
    members = {name: value for name, value in members.items() if value is not None}
    payload = json.dumps(members, separators=(",", ":")).encode()
    if len(payload) > MAX_CONTROL:
        raise ValueError(f"a control frame carries at most {MAX_CONTROL} bytes")
    return HEADER.pack(kind << 24 | len(payload), identifier) + payload


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class FrameDecoder:
    """Turns bytes, cut anywhere, into calls on a :class:`FrameHandler`.

    :param receives: the frame types that this end may be sent.
    :param max_data: payload bytes of one DATA frame; more is refused at its header.
    """

    __slots__ = (
        "_handler",
        "_hold",
        "_max_data",
        "_receives",
        "_remaining",
        "_stream_id",
    )

    def __init__(
        self,
        handler: FrameHandler,
        receives: frozenset[FrameType],
        max_data: int = MAX_LENGTH,
    ) -> None:
        self._handler = handler
        self._receives = receives
        self._max_data = max_data
        # Invariant: at most one of the two is non-empty. `_hold` never exceeds a header and
        # MAX_CONTROL; `_remaining` counts what the current DATA frame still owes.
        self._hold = b""
        self._remaining = 0
        self._stream_id = 0

    def feed(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        """Take the next bytes, ``data[start:end]``.

        Each payload is copied out of ``data`` once, so that what is handed on is its own.

        :raises ProtocolError: the bytes are no valid frames; the decoder is of no use afterwards.
        """
        pos = start
        last = len(data) if end is None else end
        if self._hold:
            data = self._hold + bytes(data[pos:last])
            self._hold = b""
            pos, last = 0, len(data)
        # Of a bytearray, slices would be such too.
        whole, view = (data, None) if isinstance(data, bytes) else (b"", memoryview(data))
        handler = self._handler
        word: int
        identifier: int
        remaining = self._remaining
        while pos < last:
            if remaining:
                stop = min(pos + remaining, last)
                remaining -= stop - pos
                # Recorded before the call: the handler may raise and the caller may look.
                self._remaining = remaining
                handler.data_received(
                    self._stream_id, whole[pos:stop] if view is None else bytes(view[pos:stop])
                )
                pos = stop
                continue
            if last - pos < HEADER_SIZE:
                self._hold = bytes(data[pos:last])
                return
            word, identifier = HEADER.unpack_from(data, pos)
            length = word & 0xFFFFFF
            if word <= 0xFFFFFF:  # DATA
                if not 0 < length <= self._max_data:
                    raise ProtocolError(f"a DATA frame of {length} bytes")
                pos += HEADER_SIZE
                stop = pos + length
                if stop <= last:
                    handler.data_received(
                        identifier, whole[pos:stop] if view is None else bytes(view[pos:stop])
                    )
                    pos = stop
                else:
                    self._stream_id = identifier
                    self._remaining = remaining = length
                continue
            if length > MAX_CONTROL:
                raise ProtocolError(f"a frame of type {word >> 24} with {length} bytes")
            begin = pos + HEADER_SIZE
            if last - begin < length:
                self._check_type(word >> 24)
                self._hold = bytes(data[pos:last])
                return
            pos = begin + length
            self._dispatch(word >> 24, identifier, bytes(data[begin:pos]))

    def _check_type(self, kind: int) -> None:
        if kind not in self._receives and kind < FIRST_OPTIONAL_TYPE:
            raise ProtocolError(f"a frame of type {kind}, which this end does not take")

    def _dispatch(self, kind: int, identifier: int, payload: bytes) -> None:
        if kind not in self._receives:
            self._check_type(kind)
            return
        if kind == FrameType.WINDOW:
            if len(payload) != 4:
                raise ProtocolError("a WINDOW frame of the wrong size")
            self._handler.window_received(identifier, _U32.unpack(payload)[0])
        elif kind == FrameType.OPEN:
            if len(payload) < _OPEN.size:
                raise ProtocolError("an OPEN frame that is too short")
            service_id, window = _OPEN.unpack_from(payload)
            # What follows a second NUL is for later versions.
            visitor, *label = payload[_OPEN.size :].split(b"\0", 2)[:2]
            text = _text(visitor)
            if label:
                text += "\0" + label[0][:MAX_LABEL].decode("ascii", "replace")
            self._handler.open_received(identifier, service_id, window, text)
        elif kind == FrameType.FIN:
            if payload:
                raise ProtocolError("a FIN frame with a payload")
            self._handler.fin_received(identifier)
        elif kind == FrameType.RESET:
            if len(payload) < 4:
                raise ProtocolError("a RESET frame that is too short")
            self._handler.reset_received(
                identifier, _U32.unpack_from(payload)[0], _text(payload[4:])
            )
        else:
            self._handler.control_received(decode_control(kind, identifier, payload))


def _text(raw: bytes) -> str:
    if len(raw) > MAX_TEXT:
        raise ProtocolError("a text that is too long")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a text that is not UTF-8") from None


def decode_control(kind: int, identifier: int, payload: bytes) -> ControlFrame:
    """The dataclass for a service frame or GOAWAY; unknown members are ignored.

    :raises ProtocolError: the payload is not what the type asks for.
    """
    members = parse_object(payload)
    if kind == FrameType.GOAWAY:
        return Goaway(
            text_member(members, "reason"),
            optional_text(members, "edge_url", limit=MAX_TEXT),
        )
    if not 0 < identifier <= MAX_ID:
        raise ProtocolError("a service id out of range")
    if kind == FrameType.REGISTER:
        return _register(identifier, members)
    if kind == FrameType.REGISTERED:
        return Registered(identifier, text_member(members, "endpoint"))
    if kind == FrameType.REFUSED:
        return Refused(
            identifier,
            text_member(members, "code"),
            text_member(members, "message"),
            optional_seconds(members, "retry"),
        )
    if kind == FrameType.WITHDRAW:
        return Withdraw(identifier)
    return Withdrawn(identifier, text_member(members, "reason"))


def _register(identifier: int, members: dict[str, Any]) -> Register:
    # Checked here, as compiled classes take nothing of another type.
    share, policy = members.get("share"), members.get("policy")
    if not (share is None or isinstance(share, bool)):
        raise ProtocolError("a service that cannot be shared")
    if not (policy is None or isinstance(policy, dict)):
        raise ProtocolError("a policy that is not a JSON object")
    frame = Register(
        identifier,
        text_member(members, "name"),
        text_member(members, "kind"),
        optional_text(members, "asked", limit=253),
        optional_text(members, "hostname"),
        optional_text(members, "path"),
        bool(share),
        policy,
    )
    check_register(frame)
    return frame


def check_register(frame: Register) -> None:
    """Whether all but the service id is as it must be. :raises ProtocolError: it is not."""
    if not SERVICE_NAME.fullmatch(frame.name):
        raise ProtocolError(
            "a service name that is not a DNS label (1 to 63 of a-z, 0-9 and -, none at an end)"
        )
    if frame.kind not in KINDS:
        raise ProtocolError(f"an unknown kind of service (there are {', '.join(sorted(KINDS))})")
    named = frame.kind in NAMED_KINDS
    if frame.hostname is not None and not (named and SERVICE_HOST.fullmatch(frame.hostname)):
        raise ProtocolError("a hostname that a service cannot have")
    if frame.path is not None and not (frame.kind == "http" and SERVICE_PATH.fullmatch(frame.path)):
        raise ProtocolError("a path that a service cannot have")
    if frame.share and not named:
        raise ProtocolError("a service that cannot be shared")
    if frame.policy is None:
        return
    try:
        size = len(json.dumps(frame.policy, separators=(",", ":")))
    except RecursionError:
        raise ProtocolError("a policy that is nested too deeply") from None
    if size > MAX_POLICY:
        raise ProtocolError(f"a policy of more than {MAX_POLICY} bytes")


def parse_object(payload: bytes) -> dict[str, Any]:
    """A JSON object from bytes. :raises ProtocolError: it is none."""
    try:
        members = json.loads(payload)
    except (ValueError, RecursionError):
        raise ProtocolError("a payload that is not JSON") from None
    if not isinstance(members, dict):
        raise ProtocolError("a payload that is not a JSON object")
    return members


def text_member(members: dict[str, Any], name: str, limit: int = MAX_TEXT) -> str:
    """A text of printable characters. :raises ProtocolError: missing, or not that."""
    value = members.get(name)
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ProtocolError(f"no proper text for {name!r}")
    return value


def optional_text(members: dict[str, Any], name: str, limit: int = MAX_TEXT) -> str | None:
    """As :func:`text_member`, where the member may be missing or null."""
    return None if members.get(name) is None else text_member(members, name, limit)


def optional_seconds(members: dict[str, Any], name: str) -> float | None:
    """A number of seconds from 0 to a year, or ``None``."""
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"no number for {name!r}")
    if not 0 <= value <= 366 * 86400:
        raise ProtocolError(f"{name!r} out of range")
    return float(value)
