"""What a token may publish."""

from __future__ import annotations

import pytest

from srrrs.relay.scope import MOST, UNSCOPED, Scope, ScopeError

DOMAIN = "tunnels.example"


def test_without_a_scope_any_name_directly_under_the_domain_and_any_port() -> None:
    assert UNSCOPED.allows_host("blog.tunnels.example", DOMAIN)
    assert UNSCOPED.allows_any_name(DOMAIN)
    assert UNSCOPED.ports_within(20_000, 20_099) == ((20_000, 20_099),)
    for host in ("app.example.com", "a.b.tunnels.example", "tunnels.example", ".tunnels.example"):
        assert not UNSCOPED.allows_host(host, DOMAIN), host


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("app.example.com", True),
        ("x.dev.example.com", True),
        ("xn--bcher-kva.dev.example.com", True),
        # The star is one label, as in a certificate.
        ("dev.example.com", False),
        ("a.b.dev.example.com", False),
        ("evil-dev.example.com", False),
        ("x.dev.example.com.evil.example", False),
        ("www.app.example.com", False),
        # And what is allowed by default is not, beside it.
        ("blog.tunnels.example", False),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    scope = Scope.parse(["App.Example.com.", "*.dev.example.com"], [])
    assert scope.allows_host(host, DOMAIN) is allowed
    assert not scope.allows_any_name(DOMAIN)
    assert scope.ports_within(1, 9) == ((1, 9),)


def test_the_relays_own_domain_can_be_a_pattern() -> None:
    """So that a token has it beside others, and the relay may choose a name."""
    scope = Scope.parse(["*.tunnels.example", "app.example.com"], [])
    assert scope.allows_any_name(DOMAIN)
    assert scope.allows_host("blog.tunnels.example", DOMAIN)
    assert Scope.parse(["*.localhost"], []).allows_host("blog.localhost", "localhost")


def test_ports_are_those_of_the_relay_that_the_token_may_have() -> None:
    scope = Scope.parse([], ["20000-20100", "443", "29990-40000"])
    assert scope.ports_within(20_050, 29_999) == ((20_050, 20_100), (29_990, 29_999))
    assert scope.ports_within(1, 442) == ()
    assert scope.allows_any_name(DOMAIN)


def test_none_is_nothing_at_all() -> None:
    scope = Scope.parse(["none"], ["none"])
    assert not scope.allows_any_name(DOMAIN)
    assert not scope.allows_host("blog.tunnels.example", DOMAIN)
    assert scope.ports_within(1, 65535) == ()


@pytest.mark.parametrize(
    ("hosts", "ports"),
    [
        ([], []),
        (["none"], ["none"]),
        (["a.example", "*.b.example"], ["1-2", "7"]),
        (["a.example", "a.example"], ["7", "7"]),
    ],
)
def test_a_scope_survives_being_written_down(hosts: list[str], ports: list[str]) -> None:
    scope = Scope.parse(hosts, ports)
    assert Scope.parse(scope.host_texts(), scope.port_texts()) == scope


@pytest.mark.parametrize(
    ("hosts", "ports", "complaint"),
    [
        (["*"], [], r"'\*' is no host"),
        (["**.a"], [], "is no host"),
        (["a.*.b"], [], "is no host"),
        (["*a.b"], [], "is no host"),
        (["a b"], [], "is no host"),
        (["1.2.3.4"], [], "is no host"),
        (["http://a.b"], [], "is no host"),
        ([""], [], "is no host"),
        ([], ["0"], "is no range of ports"),
        ([], ["7-3"], "is no range of ports"),
        ([], ["65536"], "is no range of ports"),
        ([], ["a-b"], "is no range of ports"),
        (["none", "a.b"], [], "'none' stands alone"),
        ([], ["none", "7"], "'none' stands alone"),
        ([f"a{n}.b" for n in range(MOST + 1)], [], "at most 100"),
    ],
)
def test_what_is_no_scope(hosts: list[str], ports: list[str], complaint: str) -> None:
    with pytest.raises(ScopeError, match=complaint):
        Scope.parse(hosts, ports)
