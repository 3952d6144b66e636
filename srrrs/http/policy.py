"""What an agent asks the relay to see to for one of its services, and how that is written in a
registration (``SPEC.md``, *REGISTER*)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Literal, TypeAlias

from srrrs.http.passwords import is_hash

Network: TypeAlias = IPv4Network | IPv6Network
Asks: TypeAlias = Literal["basic-auth", "ip", "rate", "host", "headers", "body"]

MAX_USERS: Final = 64
MAX_NETWORKS: Final = 256
"""Of either list."""
MAX_EDITS: Final = 32
"""Of either direction's fields."""
MAX_VALUE: Final = 1024
"""Bytes of one field's value."""
MAX_BURST: Final = 1_000_000

ALL_ASKS: Final[tuple[Asks, ...]] = ("basic-auth", "ip", "rate", "host", "headers", "body")

_RATE: Final = re.compile(r"([1-9][0-9]{0,6})/(s|m|h)(?::([1-9][0-9]{0,6}))?", re.ASCII)
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]{1,64}")
_FIELD_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_USER: Final = re.compile(r"[^\x00-\x1f\x7f:]{1,64}")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?", re.ASCII
)

# Fields that say where a message ends, who asked, and how the connection is used: those of the
# relay, which nobody else may write or take away.
_KEPT: Final = frozenset(
    {
        "alt-svc", "connection", "content-length", "expect", "forwarded", "host", "http2-settings",
        "keep-alive", "proxy", "proxy-authenticate", "proxy-authentication-info",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "via", "x-real-ip", "x-request-id",
    }
)  # fmt: skip
_KEPT_PREFIXES: Final = ("x-forwarded-", "sec-websocket-", ":")


class PolicyError(ValueError):
    """A policy, or a part of one, cannot be used: one line that says why, without any secret."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``COUNT`` in ``seconds``, of which ``burst`` may come at once."""

    count: int
    seconds: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds that one takes."""
        return self.seconds / self.count


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a message's fields: ``set`` replaces what there is, ``add`` leaves it.

    :ivar name: in lower case.
    :ivar value: empty for ``remove``.
    """

    how: Literal["set", "add", "remove"]
    name: bytes
    value: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        if self.how == "remove":
            return f"-{self.name.decode()}"
        sign = "+" if self.how == "add" else ""
        return f"{sign}{self.name.decode()}: {self.value.decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A service's policy; what is empty is not asked for.

    :ivar users: names and hashes of their passwords.
    :ivar allow: networks whose visitors may come; empty: all. ``deny`` counts more.
    :ivar rate: of each visitor's address.
    :ivar total_rate: of the service.
    :ivar host: what the service gets as Host.
    :ivar max_body: bytes of a request's body.
    """

    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    rate: Rate | None = None
    total_rate: Rate | None = None
    host: str | None = None
    request_fields: tuple[Edit, ...] = ()
    response_fields: tuple[Edit, ...] = ()
    max_body: int | None = None

    def asks(self) -> frozenset[Asks]:
        """What kinds of things it asks for."""
        kinds: dict[Asks, Any] = {
            "basic-auth": self.users,
            "ip": self.allow or self.deny,
            "rate": self.rate or self.total_rate,
            "host": self.host,
            "headers": self.request_fields or self.response_fields,
            "body": self.max_body is not None,
        }
        return frozenset(kind for kind, asked in kinds.items() if asked)

    def check_kind(self, kind: str) -> None:
        """:raises PolicyError: a service of that kind cannot have it."""
        extra = () if kind == "http" else sorted(self.asks() - {"ip", "rate"})
        if extra:
            raise PolicyError(f"a {kind} service can have no policy of {', '.join(extra)}")


# --- single values, as people write them and as they stand in a registration ----------------


def parse_rate(text: str) -> Rate:
    """``10/s``, ``100/m`` or ``1000/h``, and ``:BURST`` behind it where that is not the same.

    :raises PolicyError: it is none.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise PolicyError(f"{text!r} is no rate: write 10/s, 100/m or 1000/h, with :BURST or not")
    count = int(match[1])
    burst = int(match[3] or match[1])
    if burst > MAX_BURST or count > MAX_BURST:
        raise PolicyError(f"{text!r}: {MAX_BURST} at the most")
    return Rate(count, _SECONDS[match[2]], burst)


def format_rate(rate: Rate) -> str:
    """The same as text."""
    unit = next(unit for unit, seconds in _SECONDS.items() if seconds == rate.seconds)
    return f"{rate.count}/{unit}:{rate.burst}"


def parse_network(text: str) -> Network:
    """An address or a network in CIDR notation.

    :raises PolicyError: it is none.
    """
    try:
        network = ip_network(text.strip())
    except ValueError as error:
        hint = "has host bits set" in str(error)
        detail = "it has bits behind its prefix" if hint else "write 10.0.0.0/8 or 2001:db8::/32"
        raise PolicyError(f"{text!r} is no network: {detail}") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_edit(text: str) -> Edit:
    """``NAME: VALUE`` sets a field, ``+NAME: VALUE`` adds one, ``-NAME`` removes it.

    :raises PolicyError: it is none, or the field is not for agents to change.
    """
    text = text.strip()
    sign = text[:1] if text[:1] in ("+", "-") else ""
    name, colon, value = text[len(sign) :].partition(":")
    name, value = name.strip().lower(), value.strip()
    if not _FIELD_NAME.fullmatch(name):
        raise PolicyError(f"{name[:64]!r} is no name of a header field (and none may have a '_')")
    if name in _KEPT or name.startswith(_KEPT_PREFIXES):
        raise PolicyError(f"the field {name!r} is the relay's own")
    if sign == "-":
        if colon:
            raise PolicyError(f"-{name} removes a field: nothing stands behind its name")
        return Edit("remove", name.encode())
    if not colon:
        raise PolicyError(f"{name!r} has no value: write NAME: VALUE, or -NAME to remove it")
    if not _FIELD_VALUE.fullmatch(value) or len(value) > MAX_VALUE:
        # It may be a secret.
        raise PolicyError(f"the value of {name!r} is empty, too long, or not plain ASCII")
    return Edit("add" if sign else "set", name.encode(), value.encode())


def parse_host(text: str) -> str:
    """``HOST[:PORT]`` in lower case.

    :raises PolicyError: it is none.
    """
    host = text.strip().lower()
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise PolicyError(f"{text!r} is no host: write HOST or HOST:PORT")
    return host


# --- in a registration ----------------------------------------------------------------------


def encode(policy: Policy) -> dict[str, Any]:
    """A policy as the JSON object of a registration; empty where it asks for nothing."""
    members: dict[str, Any] = {
        "basic_auth": dict(policy.users),
        "allow": [str(each) for each in policy.allow],
        "deny": [str(each) for each in policy.deny],
        "rate": policy.rate and format_rate(policy.rate),
        "total_rate": policy.total_rate and format_rate(policy.total_rate),
        "host": policy.host,
        "request_headers": [str(each) for each in policy.request_fields],
        "response_headers": [str(each) for each in policy.response_fields],
    }
    members = {name: value for name, value in members.items() if value}
    if policy.max_body is not None:
        members["max_body"] = policy.max_body
    return members


def decode(members: Mapping[str, Any]) -> Policy:
    """The policy in a registration.

    :raises PolicyError: a member is unknown, or not what it should be. Nothing is left out in
        silence: whoever asks for a lock must get it, or a refusal.
    """
    unknown = sorted(set(members) - set(_MEMBERS))
    if unknown:
        raise PolicyError(f"the policy has the member {str(unknown[0])[:64]!r}, which is unknown")
    values = {}
    for name, value in members.items():
        attribute, read = _MEMBERS[name]
        try:
            values[attribute] = read(value)
        except PolicyError as error:
            raise PolicyError(f"{name}: {error}") from None
    return Policy(**values)


def check_response_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """:raises PolicyError: a cookie would be set, of which nobody looks at the domain."""
    found = tuple(edits)
    if any(each.how != "remove" and each.name == b"set-cookie" for each in found):
        raise PolicyError("'set-cookie' can be removed, but not set")
    return found


def _users(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_USERS:
        raise PolicyError(f"no object of 1 to {MAX_USERS} users")
    for user, stored in value.items():
        if not is_user(user):
            raise PolicyError("a user's name is empty, too long or holds ':' or control characters")
        if not isinstance(stored, str) or not is_hash(stored):
            raise PolicyError("a password is not hashed as it should be")
    return dict(value)


def is_user(name: str) -> bool:
    """Whether a text can be a user's name (RFC 7617, 2)."""
    return _USER.fullmatch(name) is not None


def _texts(value: Any, most: int) -> list[str]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise PolicyError(f"no list of 1 to {most} texts")
    return [_text(each) for each in value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("no text")
    return value


def _networks(value: Any) -> tuple[Network, ...]:
    return tuple(map(parse_network, _texts(value, MAX_NETWORKS)))


def _edits(value: Any) -> tuple[Edit, ...]:
    return tuple(map(parse_edit, _texts(value, MAX_EDITS)))


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise PolicyError("no number of bytes")
    return value


_MEMBERS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "basic_auth": ("users", _users),
    "allow": ("allow", _networks),
    "deny": ("deny", _networks),
    "rate": ("rate", lambda value: parse_rate(_text(value))),
    "total_rate": ("total_rate", lambda value: parse_rate(_text(value))),
    "host": ("host", lambda value: parse_host(_text(value))),
    "request_headers": ("request_fields", _edits),
    "response_headers": ("response_fields", lambda value: check_response_edits(_edits(value))),
    "max_body": ("max_body", _size),
}
