"""Visitors, held against the policy of a service and the bounds of the relay."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from srrrs.config import RelayConfig
from srrrs.http.passwords import hash_password
from srrrs.http.policy import ALL_ASKS, PolicyError, parse_network, parse_rate
from srrrs.relay.edge import signin
from srrrs.relay.edge.gatekeeper import Gatekeeper, Policies, PolicyBounds
from srrrs.relay.edge.pages import Answer
from srrrs.relay.visitors import Visitors

ALICE = hash_password("secret")


class Threads:
    """Does nothing until it is told to.

    :ivar under_way: what was asked to be called.
    """

    def __init__(self) -> None:
        self.under_way: list[tuple[Callable[[], bool], Deferred[bool]]] = []

    def __call__(self, look: Callable[[], bool]) -> Deferred[bool]:
        self.under_way.append((look, Deferred()))
        return self.under_way[-1][1]

    def work(self) -> None:
        """Do all of it."""
        while self.under_way:
            look, deferred = self.under_way.pop(0)
            deferred.callback(look())


class Relay:
    """A relay's policies, and one service."""

    def __init__(self, members: dict[str, Any], kind: str = "http", **bounds: Any) -> None:
        self.clock = Clock()
        self.threads = Threads()
        self.policies = Policies(self.clock, self.threads, PolicyBounds(**bounds))
        self.keeper = self.made(members, kind)

    def made(self, members: dict[str, Any], kind: str = "http") -> Gatekeeper:
        """One more gatekeeper, of the same address."""
        keeper = self.policies.gatekeeper(members, kind, "site", "http://site.example")
        assert keeper is not None
        return keeper

    def ask(self, credentials: str | None = None, visitor: str = "192.0.2.1") -> Any:
        """A request; None, an answer, or a Deferred."""
        fields = [(b"host", b"site.example")]
        if credentials is not None:
            fields.append((b"authorization", basic(credentials)))
        return self.keeper.check_request(fields, address(visitor))

    def sign_in(self, credentials: str | None, visitor: str = "192.0.2.1") -> int:
        """A request, at once or after the threads' work: its status, 0 if it may go on."""
        found = self.ask(credentials, visitor)
        if isinstance(found, Deferred):
            results: list[Any] = []
            found.addBoth(results.append)
            self.threads.work()
            (found,) = results
        assert found is None or isinstance(found, Answer)
        return 0 if found is None else found.status


def basic(credentials: str) -> bytes:
    return b"Basic " + base64.b64encode(credentials.encode())


def address(host: str) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, 1234)


# --- networks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "host", "admitted"),
    [
        ({"allow": ["192.0.2.0/24"]}, "192.0.2.1", True),
        ({"allow": ["192.0.2.0/24"]}, "::ffff:192.0.2.1", True),
        ({"allow": ["192.0.2.0/24"]}, "198.51.100.1", False),
        ({"allow": ["192.0.2.0/24"]}, "2001:db8::1", False),
        ({"allow": ["2001:db8::/32"]}, "2001:db8::1%eth0", True),
        ({"deny": ["192.0.2.0/24"]}, "192.0.2.1", False),
        ({"deny": ["192.0.2.0/24"]}, "::ffff:192.0.2.1", False),
        ({"deny": ["192.0.2.0/24"]}, "198.51.100.1", True),
        ({"deny": ["192.0.2.1"], "allow": ["192.0.2.0/24"]}, "192.0.2.1", False),
        ({"deny": ["192.0.2.1"], "allow": ["192.0.2.0/24"]}, "192.0.2.2", True),
    ],
)
def test_networks(members: dict[str, Any], host: str, admitted: bool) -> None:
    """For requests and connections alike; deny counts more."""
    relay = Relay(members)
    for _ in range(2):  # From memory the second time.
        assert relay.keeper.check_connection(address(host)) is admitted
    assert relay.sign_in(None, host) == (0 if admitted else 403)


def test_a_visitor_without_an_address() -> None:
    """By a Unix socket: denied by no network, and allowed by none."""
    nobody = UNIXAddress(None)
    assert Relay({"deny": ["0.0.0.0/0", "::/0"]}).keeper.check_connection(nobody)
    assert not Relay({"allow": ["0.0.0.0/0", "::/0"]}).keeper.check_connection(nobody)


def test_the_relays_networks_count_more() -> None:
    """Whatever an agent allows; also where it asks for nothing."""
    deny = (parse_network("192.0.2.0/24"),)
    for members in ({}, {"allow": ["192.0.2.0/24"]}):
        assert Relay(members, deny=deny).sign_in(None) == 403
        assert not Relay(members, "tcp", deny=deny).keeper.check_connection(address("192.0.2.1"))


# --- rates --------------------------------------------------------------------------------


def test_a_rate_of_each_visitor() -> None:
    """429, and Retry-After says when to come again; another visitor is not held up."""
    relay = Relay({"rate": "1/m:2"})
    assert [relay.sign_in(None) for _ in range(3)] == [0, 0, 429]
    answer = relay.ask()
    assert (b"retry-after", b"60") in answer.fields
    assert relay.sign_in(None, "192.0.2.2") == 0
    relay.clock.advance(60.0)
    assert [relay.sign_in(None) for _ in range(2)] == [0, 429]


def test_an_ipv6_visitor_is_its_network() -> None:
    """One host has all of a /64."""
    relay = Relay({"rate": "1/m"})
    hosts = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
    assert [relay.sign_in(None, host) for host in hosts] == [0, 429, 0]


def test_a_rate_of_all_visitors() -> None:
    relay = Relay({"total_rate": "1/m:2"})
    statuses = [relay.sign_in(None, f"192.0.2.{number}") for number in range(3)]
    assert statuses == [0, 0, 429]


def test_a_rate_outlives_a_reconnect() -> None:
    """An agent that comes back brings nobody a new burst."""
    relay = Relay({"rate": "1/m"})
    assert relay.sign_in(None) == 0
    relay.keeper = relay.made({"rate": "1/m"})
    assert relay.sign_in(None) == 429


def test_connections_have_rates_too() -> None:
    relay = Relay({"rate": "1/m"}, "ssh")
    assert [relay.keeper.check_connection(address("192.0.2.1")) for _ in range(2)] == [True, False]


def test_the_relays_rate_is_of_all_services() -> None:
    relay = Relay({}, rate=parse_rate("1/m:2"))
    other = relay.policies.gatekeeper(None, "tcp", "other", "tcp://relay.example:20000")
    assert other is not None
    assert relay.sign_in(None) == 0
    assert other.check_connection(address("192.0.2.1"))
    assert relay.sign_in(None) == 429


# --- passwords ----------------------------------------------------------------------------


def test_passwords() -> None:
    """Wrong, missing, unknown, right; the challenge is in the answer; and a password once known to
    be right costs no thread."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    assert [
        relay.sign_in(text) for text in (None, "alice:wrong", "bob:secret", "alice", ":", "alice:")
    ] == [401] * 6
    answer = relay.ask()
    assert (b"www-authenticate", b'Basic realm="site", charset="UTF-8"') in answer.fields
    assert relay.sign_in("alice:secret") == 0
    assert relay.ask("alice:secret") is None
    assert not relay.threads.under_way
    assert relay.sign_in("bob:secret") == 401


def test_two_authorizations_are_none() -> None:
    """Which of them would the service have believed?"""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    fields = [(b"authorization", basic("alice:secret"))] * 2
    answer = relay.keeper.check_request(fields, address("192.0.2.1"))
    assert isinstance(answer, Answer)
    assert answer.status == 401


def test_a_page_of_many_parts_waits_for_one_look() -> None:
    """The same password is looked at once, and whoever leaves meanwhile holds nobody up."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    waiting = [relay.ask("alice:secret") for _ in range(30)]
    assert len(relay.threads.under_way) == 1
    results: list[Any] = []
    for each in waiting:
        each.addBoth(results.append)
    waiting[3].cancel()
    assert isinstance(results[0], Failure)
    assert results[0].check(CancelledError)
    relay.threads.work()
    assert results[1:] == [None] * 29


def test_a_guesser_is_slowed_down() -> None:
    """Ten tries, then 429; others, and those who know the password already, go on."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    assert relay.sign_in("alice:secret") == 0
    # That was one, too: its result was not known before.
    statuses = [relay.sign_in(f"alice:{number}") for number in range(11)]
    assert statuses == [401] * 9 + [429] * 2
    assert (b"retry-after", b"6") in relay.ask("alice:x").fields
    assert relay.sign_in("alice:secret") == 0
    assert relay.sign_in("alice:x", "192.0.2.2") == 401
    relay.clock.advance(6.0)
    assert relay.sign_in("alice:x") == 401


def test_no_more_than_so_many_are_looked_at() -> None:
    """Neither side by side, nor waiting; and also where nobody waits for the result any more."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    found = [relay.ask(f"alice:x{n}", f"192.0.2.{n}") for n in range(signin.WAITING + 1)]
    assert len(relay.threads.under_way) == signin.AT_A_TIME
    assert found.pop().status == 503
    for each in found:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    assert len(relay.threads.under_way) == signin.AT_A_TIME
    assert relay.ask("alice:y", "198.51.100.1").status == 503
    relay.threads.work()
    assert relay.sign_in("alice:secret", "198.51.100.1") == 0


def test_a_changed_password() -> None:
    """What was right before is not any more."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    assert relay.sign_in("alice:secret") == 0
    relay.keeper = relay.made({"basic_auth": {"alice": hash_password("other")}})
    assert relay.sign_in("alice:secret") == 401
    assert relay.sign_in("alice:other") == 0


def test_a_thread_that_fails(flush_logged_errors: Callable[..., list[Failure]]) -> None:
    """Nobody is let in, and the password is not in the log."""
    relay = Relay({"basic_auth": {"alice": ALICE}})
    relay.policies.sign_in._run = lambda look: succeed(1 / 0)  # type: ignore[arg-type]
    assert relay.sign_in("alice:secret") == 401
    (failure,) = flush_logged_errors(ZeroDivisionError)
    assert "secret" not in failure.getTraceback()


# --- fields and bounds --------------------------------------------------------------------


def test_fields() -> None:
    """Set, added, removed; Host replaced; and the password stays with the relay."""
    relay = Relay(
        {
            "basic_auth": {"alice": ALICE},
            "host": "localhost:3000",
            "request_headers": ["X-A: new", "+X-B: two", "-Cookie"],
            "response_headers": ["-Server", "X-Frame-Options: DENY"],
        }
    )
    fields = [
        (b"host", b"site.example"), (b"authorization", b"Basic x"), (b"x-a", b"old"),
        (b"x-b", b"one"), (b"cookie", b"a=b"), (b"x-forwarded-host", b"site.example"),
    ]  # fmt: skip
    assert relay.keeper.rewrite_request(fields) == [
        (b"host", b"localhost:3000"),
        (b"x-b", b"one"),
        (b"x-forwarded-host", b"site.example"),
        (b"x-a", b"new"),
        (b"x-b", b"two"),
    ]
    assert relay.keeper.rewrite_response([(b"server", b"x"), (b"x-frame-options", b"y")]) == [
        (b"x-frame-options", b"DENY")
    ]


def test_a_service_may_set_the_authorization_that_it_gets() -> None:
    relay = Relay({"basic_auth": {"alice": ALICE}, "request_headers": ["Authorization: Bearer x"]})
    assert relay.keeper.rewrite_request([(b"authorization", b"Basic x")]) == [
        (b"authorization", b"Bearer x")
    ]


def test_changes_are_made_one_after_the_other() -> None:
    relay = Relay({"request_headers": ["X-A: 1", "+X-A: 2", "X-B: 1", "-X-B"]})
    fields = relay.keeper.rewrite_request([(b"x-a", b"0"), (b"x-b", b"0")])
    assert fields == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_sizes() -> None:
    assert Relay({"max_body": 10}).keeper.max_body == 10
    assert Relay({"rate": "1/s"}).keeper.max_body is None


def test_what_the_relay_does_not_allow_is_refused() -> None:
    """Not served without: whoever asks for a lock must not be open."""
    policies = Policies(Clock(), Threads(), PolicyBounds(asks=frozenset(ALL_ASKS) - {"ip"}))
    with pytest.raises(PolicyError, match="allows no policy of ip"):
        policies.gatekeeper({"deny": ["192.0.2.1"]}, "tcp", "db", "tcp://relay.example:1")
    with pytest.raises(PolicyError, match="a tcp service can have no policy of basic-auth"):
        policies.gatekeeper({"basic_auth": {"a": ALICE}}, "tcp", "db", "tcp://relay.example:1")


def test_nothing_asked_is_nothing_looked_at() -> None:
    """No gatekeeper, and so no step more for a request."""
    policies = Policies(Clock(), Threads())
    assert policies.gatekeeper(None, "http", "site", "http://site.example") is None
    assert policies.gatekeeper({}, "tcp", "db", "tcp://relay.example:1") is None


def test_the_owners_bound_of_bodies_is_no_policy() -> None:
    """It holds for every request; no service needs a gatekeeper for it."""
    clock = Clock()
    visitors = Visitors(clock, RelayConfig(data_dir=Path("/state"), max_body=5), clock.seconds)
    assert visitors.policies.gatekeeper({}, "http", "site", "http://site.example") is None
