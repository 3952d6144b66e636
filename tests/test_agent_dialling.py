"""What one dial of an agent believes, and what it makes of failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from srrrs.agent.dialling import Dialling, explained
from srrrs.agent.edges import Edge, Edges
from srrrs.agent.resuming import Held
from srrrs.config import TokenUnavailable
from srrrs.net.dial import DialError
from srrrs.net.tunnel import Tunnel
from srrrs.protocol.handshake import Grant, Hello, Resumed
from srrrs.protocol.resumption import Prover, Ticket, new_nonce
from tests.agent_fakes import WELCOME, FakeCarrier
from tests.conftest import FlushLoggedErrors

HELLO = Hello("0" * 32, "machine", "srrrs/0", 15.0, grace=60.0)


class FakeSession:
    received = 0


class FakeTunnel:
    session = FakeSession()
    ended: object = None


class Relay:
    """One that welcomes who dials it, and goes on with the session whose ticket it has."""

    def __init__(self, ticket: Ticket | None = None) -> None:
        self.ticket = ticket
        self.carriers: list[FakeCarrier] = []
        self.edge = Edge("wss://relay.example/tunnel", self.dial)
        self.dialling = Dialling(Edges(Clock(), [self.edge]), HELLO, lambda: "secret")

    def dial(self, token: str, make_hello: Any, answered: Any) -> Deferred[Any]:
        nonce = new_nonce()
        resume = make_hello(nonce).resume
        welcome = WELCOME
        if self.ticket is not None:
            parts = (nonce, resume.nonce, resume.carrier) if resume else (nonce, nonce, 1)
            proof = self.ticket.prove(Prover.RELAY, *parts)
            welcome = replace(WELCOME, resumed=Resumed(0, proof))
        self.carriers.append(FakeCarrier())
        return succeed((self.carriers[-1], welcome))


def held(ticket: Ticket) -> Held:
    grant = Grant(ticket.session, ticket.key.hex(), 60.0)
    return Held.of(grant, cast(Tunnel, FakeTunnel()))


def test_a_relay_that_has_the_session() -> None:
    ticket = Ticket.new()
    relay = Relay(ticket)
    answers: list[Any] = []
    relay.dialling.dial(held(ticket)).addCallback(answers.append)
    edge, carrier, welcome = answers[0]
    assert edge is relay.edge
    assert carrier is relay.carriers[0]
    assert welcome.resumed is not None


@pytest.mark.parametrize("asked", [True, False])
def test_a_relay_that_only_says_so(asked: bool) -> None:
    """Its carrier is not used, whatever was asked of it."""
    relay = Relay(Ticket.new())
    failures: list[Any] = []
    relay.dialling.dial(held(Ticket.new()) if asked else None).addErrback(failures.append)
    assert "cannot prove" in str(failures[0].value)
    assert failures[0].check(DialError)
    assert relay.carriers[0].aborted


def test_a_token_that_cannot_be_read() -> None:
    def token() -> str:
        raise TokenUnavailable("no such file")

    relay = Relay()
    failures: list[Any] = []
    dialling = Dialling(Edges(Clock(), [relay.edge]), HELLO, token)
    dialling.dial().addErrback(failures.append)
    assert str(failures[0].value) == "no such file"
    assert not failures[0].value.heals
    assert relay.carriers == []


def test_what_no_dial_should_fail_with(flush_logged_errors: FlushLoggedErrors) -> None:
    problem = explained(Failure(ZeroDivisionError("oops")), True)
    assert str(problem) == "the dial failed: oops"
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    explained(Failure(ZeroDivisionError("oops")), False)
    assert flush_logged_errors(ZeroDivisionError) == []
