"""Who may go on with a session at a relay, and what everybody else is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from srrrs.net.tunnel import Tunnel
from srrrs.net.websocket import HandshakeDenied, HandshakeFailed
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.handshake import Hello, Resume, Welcome
from srrrs.protocol.mux import Limits, Role
from srrrs.protocol.resumption import Prover, Ticket, new_nonce
from srrrs.testing import HalfCloseRecorder
from tests.gate_kit import BUDGET, GRACE, VISITOR, Wire, World
from tests.net.kit import Side

RUN, OTHER_RUN = "0" * 32, "1" * 32
HELLO = Hello(RUN, "machine", "srrrs/0", 15.0, grace=GRACE)


def new_side(world: World) -> Side:
    """An agent's end, with nothing attached."""
    return Side(world.clock, Role.AGENT, Limits(), Budget(BUDGET))


class Owner:
    """An agent with a session, and a stream in it through which bytes went both ways."""

    def __init__(self, world: World, hello: Hello = HELLO, token: str = "own") -> None:
        self.world = world
        self.token = token
        self.hello = hello
        self.side = new_side(world)
        self.side.serve = lambda channel: channel.attach(HalfCloseRecorder())
        self.wire = world.enter(self.tunnel, lambda _: hello, token)
        self.welcome: Welcome = self.wire.answer
        assert self.welcome.grant is not None
        self.ticket = Ticket(self.welcome.grant.session, bytes.fromhex(self.welcome.grant.key))
        self.agent = world.agents[-1]
        self.visitor = HalfCloseRecorder()
        near = self.agent.tunnel.open(1, VISITOR)
        near.attach(self.visitor)
        near.write(b"question")
        world.settle()
        self.backend = self.side.channels[0]
        self.backend.write(b"answer")
        world.settle()
        assert self.visitor.data == b"answer"

    @property
    def tunnel(self) -> Tunnel:
        return self.side.tunnel

    def resume(self, relay_nonce: str, carrier: int = 1, received: int | None = None) -> Resume:
        """What proves it."""
        nonce = new_nonce()
        if received is None:
            received = self.tunnel.session.received
        proof = self.ticket.prove(Prover.AGENT, relay_nonce, nonce, carrier)
        return Resume(self.ticket.session, carrier, nonce, received, proof)

    def says(self, carrier: int = 1, received: int | None = None) -> Callable[[str], Hello]:
        """Its hello on a carrier."""
        return lambda nonce: replace(self.hello, resume=self.resume(nonce, carrier, received))

    def comes_back(self, carrier: int = 1) -> Wire:
        """A proper resume."""
        return self.world.enter(self.tunnel, self.says(carrier), self.token)


@pytest.mark.parametrize("noticed", [True, False])
def test_the_owner_goes_on(noticed: bool) -> None:
    """Also before the relay has noticed that the connection broke; nobody else's proof would do
    for the agent either."""
    world = World()
    owner = Owner(world)
    if noticed:
        owner.wire.cut()
        assert owner.agent.tunnel.parked
    else:
        owner.wire.cut_unseen()
        assert not owner.agent.tunnel.parked
    owner.backend.write(b", late")
    wire = owner.comes_back()
    assert isinstance(wire.answer, Welcome)
    assert wire.answer.grant is None
    assert wire.answer.resumed is not None
    assert wire.answer.tunnel == owner.welcome.tunnel
    assert owner.visitor.data == b"answer, late"
    assert world.agents == [owner.agent]
    assert world.registry.back == [owner.agent]
    assert not world.registry.lost


def test_it_goes_on_many_times() -> None:
    world = World()
    owner = Owner(world)
    wire = owner.wire
    for carrier in range(1, 20):
        wire.cut()
        wire = owner.comes_back(carrier)
        assert wire.answer.resumed is not None
    owner.backend.write(b"!")
    world.settle()
    assert owner.visitor.data == b"answer!"


def _unknown(owner: Owner, nonce: str) -> Resume:
    owner.ticket = Ticket.new()
    return owner.resume(nonce)


def _another_key(owner: Owner, nonce: str) -> Resume:
    owner.ticket = Ticket(owner.ticket.session, Ticket.new().key)
    return owner.resume(nonce)


def _another_nonce(owner: Owner, nonce: str) -> Resume:
    return replace(owner.resume(nonce), nonce=new_nonce())


def _another_carrier(owner: Owner, nonce: str) -> Resume:
    return replace(owner.resume(nonce), carrier=2)


def _the_relays_own_proof(owner: Owner, nonce: str) -> Resume:
    resume = owner.resume(nonce)
    proof = owner.ticket.prove(Prover.RELAY, nonce, resume.nonce, resume.carrier)
    return replace(resume, proof=proof)


def _for_an_older_challenge(owner: Owner, nonce: str) -> Resume:
    return owner.resume(new_nonce())


def _expired(owner: Owner, nonce: str) -> Resume:
    owner.agent.tunnel.expire("in time")
    return owner.resume(nonce)


def _own(owner: Owner, nonce: str) -> Resume:
    return owner.resume(nonce)


BAD = {
    "an unknown session": (_unknown, RUN, "own"),
    "another's token": (_own, RUN, "foreign"),
    "another run": (_own, OTHER_RUN, "own"),
    "another token and run": (_own, OTHER_RUN, "foreign"),
    "a wrong key": (_another_key, RUN, "own"),
    "a proof for another nonce": (_another_nonce, RUN, "own"),
    "a proof for another carrier": (_another_carrier, RUN, "own"),
    "a proof turned around": (_the_relays_own_proof, RUN, "own"),
    "a replayed proof": (_for_an_older_challenge, RUN, "own"),
    "an expired session": (_expired, RUN, "own"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_all_others_get_one_and_the_same_answer(case: str) -> None:
    """Whatever was wrong, the answer is that to a hello that asks for no session: a new one."""
    make, run, token = BAD[case]
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    session = owner.ticket.session
    hello = replace(HELLO, run=run)
    side = new_side(world)
    wire = world.enter(side.tunnel, lambda nonce: replace(hello, resume=make(owner, nonce)), token)
    answer = wire.answer
    assert isinstance(answer, Welcome)
    assert answer.grant is not None
    assert answer.grant.session != session
    assert answer.grant.key != owner.welcome.grant.key  # type: ignore[union-attr]

    fresh = World()
    first = Owner(fresh)
    first.wire.cut()
    plain = new_side(fresh)
    usual: Welcome = fresh.enter(plain.tunnel, lambda _: hello, token).answer
    assert replace(answer, grant=usual.grant) == usual
    assert usual.grant is not None
    assert answer.grant.grace == usual.grant.grace
    # Of the owner's stream nobody else gets a byte.
    owner.agent.tunnel.open(1, VISITOR) if owner.agent.live else None
    world.settle()
    assert side.channels == []


@pytest.mark.parametrize("case", ["an unknown session", "another's token", "another run"])
def test_a_stranger_does_the_owner_no_harm(case: str) -> None:
    """The session goes on with its owner after that."""
    make, run, token = BAD[case]
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    ticket = owner.ticket
    run = OTHER_RUN if token == "own" else run
    side = new_side(world)
    world.enter(
        side.tunnel, lambda nonce: replace(HELLO, run=run, resume=make(owner, nonce)), token
    )
    owner.ticket = ticket
    assert owner.comes_back().answer.resumed is not None
    owner.backend.write(b"!")
    world.settle()
    assert owner.visitor.data == b"answer!"


def test_a_hello_that_is_sent_again_word_for_word() -> None:
    """It was right once, for another challenge: on another connection it proves nothing."""
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    said: list[Hello] = []

    def first(nonce: str) -> Hello:
        said.append(owner.says()(nonce))
        return said[0]

    assert world.enter(owner.tunnel, first).answer.resumed is not None
    thief = new_side(world)
    answer = world.enter(thief.tunnel, lambda _: said[0]).answer
    assert answer.resumed is None
    assert answer.grant is not None


@pytest.mark.parametrize("carrier", [0, 1, 2])
def test_an_older_dial_that_comes_late(carrier: int) -> None:
    """It is denied, and the newer connection stays."""
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    assert owner.comes_back(2).answer.resumed is not None
    late = world.enter(None, owner.says(carrier))
    assert isinstance(late.answer, HandshakeDenied)
    assert (late.answer.denied.code, late.answer.denied.retry) == ("stale", True)
    owner.backend.write(b"!")
    world.settle()
    assert owner.visitor.data == b"answer!"
    assert world.agents == [owner.agent]


def test_a_dial_from_before_what_was_acknowledged() -> None:
    """It must be an old one too, for its owner has parsed more since."""
    world = World()
    owner = Owner(world)
    owner.agent.tunnel.session.acknowledged(owner.tunnel.session.received)
    owner.wire.cut()
    late = world.enter(None, owner.says(1, received=0))
    assert isinstance(late.answer, HandshakeDenied)
    assert late.answer.denied.code == "stale"
    assert owner.comes_back(2).answer.resumed is not None


def test_an_owner_that_claims_more_than_was_sent() -> None:
    """That breaks the protocol: the connection is closed so, and the session ends."""
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    sent = owner.agent.tunnel.session.sent
    wire = world.enter(None, owner.says(1, received=sent + 1))
    assert isinstance(wire.answer, HandshakeFailed)
    assert wire.answer.code == CloseCode.PROTOCOL
    assert world.registry.lost == [owner.agent]
    assert world.agents == []


def test_without_a_proof_nobody_learns_how_much_was_sent() -> None:
    """A wrong key with an impossible count is a wrong key."""
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    owner.ticket = Ticket(owner.ticket.session, Ticket.new().key)
    stranger = new_side(world)
    says = owner.says(1, received=1 << 40)
    answer = world.enter(stranger.tunnel, lambda nonce: replace(says(nonce), run=OTHER_RUN)).answer
    assert answer.grant is not None
    assert not world.registry.lost


@pytest.mark.parametrize(
    ("asked", "bound", "granted"), [(60.0, 10.0, 10.0), (5.0, 10.0, 5.0), (None, 10.0, None)]
)
def test_the_grace_time(asked: float | None, bound: float, granted: float | None) -> None:
    """What the agent asks for, within the relay's bound; who asks for none gets no session."""
    world = World(grace=bound)
    side = new_side(world)
    answer = world.enter(side.tunnel, lambda _: replace(HELLO, grace=asked)).answer
    (agent,) = world.agents
    world.wire.cut()
    if granted is None:
        assert answer.grant is None
        assert not agent.live
        return
    assert answer.grant.grace == granted
    world.clock.advance(granted - 0.01)
    assert agent.tunnel.ended is None
    world.clock.advance(0.01)
    assert world.registry.lost == [agent]


def test_a_relay_that_keeps_no_sessions() -> None:
    world = World(grace=0.0)
    side = new_side(world)
    assert world.enter(side.tunnel, lambda _: HELLO).answer.grant is None


def test_for_want_of_memory_the_oldest_gives_way_first() -> None:
    """One after the other as they broke, and none while there is memory; who is connected stays."""
    world = World()
    owners = [
        Owner(world, replace(HELLO, run=f"{number:032}"), token=f"token-{number}")
        for number in range(4)
    ]
    for number in (2, 0, 1):
        owners[number].wire.cut()
    assert all(owner.agent.live for owner in owners)
    world.budget.charge(BUDGET)
    owners[3].wire.cut()
    assert world.registry.lost == [owners[number].agent for number in (2, 0, 1, 3)]
    assert world.gate._sessions.parked == 0
    assert world.gate._sessions._by_id == {}


def test_memory_that_runs_out_while_they_wait() -> None:
    """No more give way than have to."""
    world = World()
    owners = [
        Owner(world, replace(HELLO, run=f"{number:032}"), token=f"token-{number}")
        for number in range(3)
    ]
    held = bytes(200_000)
    for owner in (owners[1], owners[0]):
        owner.wire.cut_unseen()
        near = owner.agent.tunnel.open(1, VISITOR)
        near.attach(HalfCloseRecorder())
        near.write(held)
        world.clock.advance(0)
        owner.wire.cut()
    world.gate.make_room()
    assert not world.registry.lost
    world.budget.charge(BUDGET - world.budget.used)
    world.gate.make_room()
    assert world.registry.lost == [owners[1].agent]
    assert owners[2].agent.live


def test_sessions_that_ended_are_forgotten() -> None:
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    assert world.gate._sessions.parked == 1
    owner.comes_back()
    assert world.gate._sessions.parked == 0
    owner.agent.tunnel.close(CloseCode.REVOKED, "revoked")
    assert world.gate._sessions._by_id == {}


def test_the_same_run_without_its_session() -> None:
    """An agent that has lost its session dials as new: its old tunnel does not wait on."""
    world = World()
    owner = Owner(world)
    owner.wire.cut()
    side = new_side(world)
    assert world.enter(side.tunnel, lambda _: HELLO).answer.grant is not None
    assert world.registry.lost == [owner.agent]
    assert len(world.agents) == 1
