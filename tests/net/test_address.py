"""What is an address, and what a relay's own names are."""

from __future__ import annotations

import pytest

from srrrs.net.address import is_ip_address
from srrrs.net.loopback import is_loopback
from srrrs.relay.urls import PublicNames


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "fe80::1%eth0", "2001:db8::a"])
def test_literals(host: str) -> None:
    """IPv4 and IPv6, with a zone or without."""
    assert is_ip_address(host)


@pytest.mark.parametrize(
    "host", ["", "a", "example.org", "host-1", "1.2.3", "1.2.3.4.", "[::1]", "a:b", "\u0663.1.1.1"]
)
def test_no_literals(host: str) -> None:
    """Names, and what only looks like an address."""
    assert not is_ip_address(host)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "LOCALHOST.", "127.8.9.1", "::1"])
def test_this_machine(host: str) -> None:
    """By name and by address; IPv4 in IPv6, too."""
    assert is_loopback(host)
    assert is_loopback("::ffff:127.0.0.1")


@pytest.mark.parametrize("host", ["example.org", "localhost.example", "10.0.0.1", "::2", ""])
def test_other_machines(host: str) -> None:
    """Everything else."""
    assert not is_loopback(host)


def test_control_hosts() -> None:
    """The relay's own: its domain, a name under it, its public URL's host, and any address."""
    names = PublicNames("example.org", 443, True, "https://Tunnels.example.net:8443")
    assert names.control_hosts == {"example.org", "relay.example.org", "tunnels.example.net"}
    for host in (*names.control_hosts, "192.0.2.1", "[2001:db8::1]"):
        assert names.is_control_host(host)
    for host in ("shop.example.org", "example.net", ""):
        assert not names.is_control_host(host)
    assert PublicNames("example.org", 80, False).control_hosts == {
        "example.org",
        "relay.example.org",
    }
