"""IP addresses as whoever counts, compares or lists them reads them. Pure: of every room."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


def parse_address(text: str) -> Address | None:
    """An IP address; one of IPv4 that is written as IPv6 becomes what it is, and zones go."""
    try:
        return unmapped(ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def unmapped(address: Address) -> Address:
    """The same, or the address of IPv4 that it stands for (RFC 4291, 2.5.5.2)."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
