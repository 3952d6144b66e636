"""Addresses as text: a visitor's in OPEN (``SPEC.md``, *OPEN*), and for people."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

HOSTS_KEPT: Final = 1024
"""Hosts whose reading is kept."""


def visitor_text(address: IAddress) -> str:
    """``ADDRESS PORT``; ``-`` for a visitor without an IP address (a UNIX socket)."""
    if isinstance(address, IPv4Address | IPv6Address):
        return f"{address.host.partition('%')[0]} {address.port}"
    return "-"


def visitor_address(text: str) -> IAddress:
    """The address that :func:`visitor_text` wrote; anything odd reads as an unnamed UNIX socket."""
    host, _, port = text.partition(" ")
    try:
        kind, host = _read_host(host)
        number = int(port)
    except ValueError:
        return UNIXAddress(None)
    if not 0 <= number < 65536:
        return UNIXAddress(None)
    if kind is IPv4Address:
        return ipv4_address(host, number)
    return kind("TCP", host, number)


def ipv4_address(host: str, port: int) -> IPv4Address:
    """``IPv4Address("TCP", host, port)``, which checks the first each time."""
    address: IPv4Address = object.__new__(IPv4Address)
    address.type = "TCP"
    address.host = host
    address.port = port
    return address


# Visitors come back, and many come through one proxy.
@lru_cache(maxsize=HOSTS_KEPT)
def _read_host(host: str) -> tuple[type[IPv4Address | IPv6Address], str]:
    ip = ip_address(host)
    return (IPv4Address if ip.version == 4 else IPv6Address), str(ip)


def place_of(address: IAddress) -> tuple[str, int] | None:
    """Host and port; ``None`` for an address that has none (a UNIX socket)."""
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host, address.port
    return None


def is_ip_address(host: str) -> bool:
    """Whether ``host`` is an IPv4 or IPv6 literal, without brackets."""
    if not host[-1:].isdigit() and ":" not in host:
        return False  # As most are that a relay is asked for.
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def format_address(address: IAddress) -> str:
    """An address for a log line."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return "a local socket"
