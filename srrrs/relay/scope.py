"""What a token may publish."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

PortRange: TypeAlias = tuple[int, int]
_Each = TypeVar("_Each")

NONE: Final = "none"
"""In the place of a pattern or a range: nothing at all."""
MOST: Final = 100
"""Patterns, or ranges, of one token."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERN: Final = re.compile(rf"(?=.{{1,253}}$)(?:\*\.)?(?:{_LABEL}\.)*(?![0-9]+$){_LABEL}")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class ScopeError(ValueError):
    """No scope can be made of it; one line that says why."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The hosts and ports that a token's services may have.

    :ivar hosts: whole hosts, and patterns ``*.REST``, where ``*`` is exactly one label, as in
        certificates (RFC 9525, 6.3). ``None``: any name directly under the relay's domain, and no
        other host.
    :ivar ports: lowest and highest of each range; ``None``: any of the relay's.
    """

    hosts: tuple[str, ...] | None = None
    ports: tuple[PortRange, ...] | None = None

    @classmethod
    def parse(cls, hosts: Iterable[str], ports: Iterable[str]) -> Scope:
        """From patterns and ranges as people write them; of neither: all that there is by default.

        :raises ScopeError: one is none.
        """
        patterns = [each.strip().lower().removesuffix(".") for each in hosts]
        ranges = [each.strip().lower() for each in ports]
        if max(len(patterns), len(ranges)) > MOST:
            raise ScopeError(f"at most {MOST} hosts and {MOST} ranges of ports")
        for given in (patterns, ranges):
            if NONE in given and len(given) > 1:
                raise ScopeError(f"{NONE!r} stands alone, or not at all")
        return cls(
            None if not patterns else _some(_pattern(each) for each in patterns if each != NONE),
            None if not ranges else _some(_range(each) for each in ranges if each != NONE),
        )

    def allows_host(self, host: str, domain: str) -> bool:
        """Whether a service may have the host.

        :param domain: the relay's.
        """
        label, _, rest = host.partition(".")
        if self.hosts is None:
            return bool(label) and rest == domain
        return host in self.hosts or f"*.{rest}" in self.hosts

    def allows_any_name(self, domain: str) -> bool:
        """Whether the relay may choose a name under its domain."""
        return self.hosts is None or f"*.{domain}" in self.hosts

    def ports_within(self, low: int, high: int) -> tuple[PortRange, ...]:
        """The ports of the relay's range that a service may have."""
        if self.ports is None:
            return ((low, high),)
        cut = [(max(low, first), min(high, last)) for first, last in self.ports]
        return tuple(each for each in cut if each[0] <= each[1])

    def host_texts(self) -> tuple[str, ...]:
        """As :meth:`parse` takes them; empty: the default."""
        return () if self.hosts is None else (self.hosts or (NONE,))

    def port_texts(self) -> tuple[str, ...]:
        """As :meth:`parse` takes them; empty: the default."""
        if self.ports is None:
            return ()
        return tuple(format_ports(each) for each in self.ports) or (NONE,)


UNSCOPED: Final = Scope()
"""Of a token that was given none: any free name directly under the domain, any port."""


def format_ports(ports: PortRange) -> str:
    """``LOW-HIGH``, or one port."""
    low, high = ports
    return str(low) if low == high else f"{low}-{high}"


def _some(found: Iterable[_Each]) -> tuple[_Each, ...]:
    return tuple(dict.fromkeys(found))


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise ScopeError(
            f"{text!r} is no host: write app.example.com, *.example.com (one label more), or {NONE}"
        )
    return text


def _range(text: str) -> PortRange:
    match = _RANGE.fullmatch(text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= 65535:
        raise ScopeError(f"{text!r} is no range of ports: LOW-HIGH within 1 to 65535, or {NONE}")
    return low, high
