"""What an exchange asks of others on its way: policies, the front, who the visitor is."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge.front import Front
from srrrs.relay.edge.h1 import HttpVisitor
from srrrs.relay.edge.pages import Answer
from srrrs.relay.edge.site import ConnectionInfo, SiteLimits
from srrrs.testing import FakeTransport
from tests.edge.h1kit import OK, Lab, get, split

PROXY = IPv4Address("TCP", "203.0.113.1", 4000)
NO = Answer(403, ((b"content-type", b"text/plain"),), b"no")
UPLOAD = b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 4\r\n\r\n"


class Keeper:
    """A policy that answers what it is told to."""

    max_body: int | None = None

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def check_request(self, fields: Any, visitor: Any) -> Any:
        self.asked.append(visitor)
        return self.answer

    def rewrite_request(self, fields: Any) -> Any:
        return [*(each for each in fields if each[0] != b"x-forwarded-proto"), (b"x-in", b"1")]

    def rewrite_response(self, fields: Any) -> Any:
        return [*fields, (b"x-out", b"1")]


def test_a_policy_refuses() -> None:
    """Nothing is opened, and the connection goes on."""
    lab = Lab()
    lab.service.gatekeeper = Keeper(NO)
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 403
    assert split(visitor.sent)[2] == b"no"
    assert not lab.service.channels
    visitor.receive(get("/", "other.example"))
    lab.settle(visitor)
    assert lab.other.channels
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_a_policy_rewrites() -> None:
    """Both ways, last."""
    lab = Lab()
    lab.service.gatekeeper = Keeper()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    assert b"\r\nx-in: 1\r\n" in lab.channel.sent
    assert b"x-forwarded-proto" not in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[1]["x-out"] == "1"
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


@pytest.mark.parametrize("answer", [None, NO])
def test_a_policy_takes_its_time(answer: Answer | None) -> None:
    """The request waits meanwhile, its body unread."""
    lab = Lab()
    keeper = lab.service.gatekeeper = Keeper(Deferred())
    visitor = lab.connect()
    visitor.receive(UPLOAD + b"12")
    assert not visitor.reading
    visitor.receive(b"34")
    keeper.answer.callback(answer)
    lab.settle(visitor)
    if answer is None:
        assert lab.channel.sent.endswith(b"\r\n\r\n1234")
        lab.channel.receive(OK)
        lab.settle(visitor)
        assert split(visitor.sent)[0] == 200
    else:
        assert split(visitor.sent)[0] == 403
        assert not lab.service.channels
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_who_leaves_while_a_policy_takes_its_time() -> None:
    """The wait is cancelled, and nothing is opened."""
    lab = Lab()
    keeper = lab.service.gatekeeper = Keeper(Deferred())
    visitor = lab.connect()
    visitor.receive(get())
    visitor.peer_reset()
    assert keeper.answer.called
    assert not lab.service.channels
    lab.assert_nothing_left()


@pytest.mark.parametrize(("relays", "policys"), [(None, 3), (3, None), (3, 10), (10, 3)])
def test_a_policys_bound_of_bodies(relays: int | None, policys: int | None) -> None:
    """Of the relay's and the policy's the smaller counts."""
    lab = Lab(SiteLimits(body_bytes=relays))
    keeper = lab.service.gatekeeper = Keeper()
    keeper.max_body = policys
    visitor = lab.connect()
    visitor.receive(UPLOAD + b"1234")
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 413
    assert not lab.service.channels
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def behind_a_proxy(lab: Lab, trusted: bool = True) -> FakeTransport:
    lab.site.trusted = (ip_network("203.0.113.0/24"),)
    transport = FakeTransport(peer=PROXY)
    info = ConnectionInfo(PROXY, PROXY, trusted=trusted, id="p")
    transport.attach(HttpVisitor(lab.site, info))
    return transport


def test_a_trusted_proxy_speaks_for_others() -> None:
    """Policies, streams and the log get the client's address; a connection to a service is used
    again for the same client alone, as the service may have been told of it once."""
    lab = Lab()
    keeper = lab.service.gatekeeper = Keeper()
    proxy = behind_a_proxy(lab)
    clients = ["198.51.100.1", "198.51.100.1", "198.51.100.2"]
    for client in clients:
        proxy.receive(get("/", "site.example", f"X-Forwarded-For: {client}"))
        lab.settle(proxy)
        lab.channel.receive(OK)
        lab.settle(proxy)
    assert [visitor.host for visitor in keeper.asked] == clients
    assert [getattr(channel.visitor, "host", "") for channel in lab.service.channels] == clients[1:]
    assert [entry.visitor for entry in lab.log.requests] == clients
    proxy.peer_reset()
    lab.clock.advance(61)
    lab.assert_nothing_left()


def test_anybody_else_does_not() -> None:
    """What it says of itself is not believed."""
    lab = Lab()
    keeper = lab.service.gatekeeper = Keeper()
    visitor = behind_a_proxy(lab, trusted=False)
    visitor.receive(get("/", "site.example", "X-Forwarded-For: 198.51.100.1"))
    lab.settle(visitor)
    assert keeper.asked == [PROXY]
    assert b"198.51.100.1" not in lab.channel.sent
    visitor.peer_reset()
    lab.assert_nothing_left()


def test_the_front_answers_first() -> None:
    """A redirect to HTTPS instead of the service; by HTTPS the service's answer with HSTS."""
    lab = Lab()
    lab.site.front = Front(https_redirect=True, hsts=60)
    visitor = lab.connect()
    visitor.receive(get("/a?b"))
    lab.settle(visitor)
    status, fields, _ = split(visitor.sent)
    assert (status, fields["location"]) == (308, "https://site.example/a?b")
    assert "strict-transport-security" not in fields
    visitor.peer_half_close()
    lab.settle(visitor)
    secure = lab.connect(tls=True)
    secure.receive(get("/a?b"))
    lab.settle(secure)
    assert b"x-forwarded-proto: https\r\n" in lab.channel.sent
    lab.channel.receive(OK)
    lab.settle(secure)
    assert split(secure.sent)[1]["strict-transport-security"] == "max-age=60"
    secure.peer_half_close()
    lab.settle(secure)
    lab.assert_nothing_left()


def test_one_that_shares_the_name_is_asked_where_another_is_down() -> None:
    """Once; who was down is told of."""
    lab = Lab()

    class Shared:
        """Two that serve one name in turn."""

        name = "shared"
        token_name = "token"
        gatekeeper = None
        leaving = False

        def __init__(self) -> None:
            self.turn = 0

        def pick(self) -> Any:
            self.turn += 1
            return (lab.service, lab.other)[(self.turn - 1) % 2]

    lab.routes.services["shared.example"] = Shared()  # type: ignore[assignment]
    visitor = lab.connect()
    visitor.receive(get("/", "shared.example"))
    lab.settle(visitor)
    lab.channel.peer_resets(ResetCode.REFUSED)
    lab.settle(visitor)
    assert lab.service.failures == 1
    (channel,) = lab.other.channels
    channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 200
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()


def test_a_fault_within_ends_the_request_alone(
    monkeypatch: pytest.MonkeyPatch, flush_logged_errors: Any
) -> None:
    """An error of ours in the midst of a response does not reach the tunnel, where it would end
    everybody's streams."""
    lab = Lab()
    keeper = lab.service.gatekeeper = Keeper()
    visitor = lab.connect()
    visitor.receive(get())
    lab.settle(visitor)
    monkeypatch.setattr(keeper, "rewrite_response", None)
    lab.channel.receive(OK)
    lab.settle(visitor)
    assert split(visitor.sent)[0] == 502
    assert lab.channel.resets
    assert len(flush_logged_errors(TypeError)) == 1
    visitor.peer_half_close()
    lab.settle(visitor)
    lab.assert_nothing_left()
