"""Who may go on with a session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srrrs.protocol.resumption import KEY_SIZE, Prover, Ticket, new_nonce

TICKET = Ticket("ab" * 16, bytes(range(KEY_SIZE)))
RELAY, AGENT = "1" * 32, "2" * 32


def test_a_proof_holds_for_what_it_was_made_for() -> None:
    proof = TICKET.prove(Prover.AGENT, RELAY, AGENT, 7)
    assert len(proof) == 64
    assert TICKET.proves(proof, Prover.AGENT, RELAY, AGENT, 7)


@pytest.mark.parametrize(
    ("ticket", "prover", "relay", "agent", "carrier"),
    [
        (replace(TICKET, key=bytes(KEY_SIZE)), Prover.AGENT, RELAY, AGENT, 7),
        (replace(TICKET, session="cd" * 16), Prover.AGENT, RELAY, AGENT, 7),
        (TICKET, Prover.RELAY, RELAY, AGENT, 7),
        (TICKET, Prover.AGENT, "3" * 32, AGENT, 7),
        (TICKET, Prover.AGENT, RELAY, "3" * 32, 7),
        (TICKET, Prover.AGENT, AGENT, RELAY, 7),
        (TICKET, Prover.AGENT, RELAY, AGENT, 8),
    ],
)
def test_and_for_nothing_else(
    ticket: Ticket, prover: Prover, relay: str, agent: str, carrier: int
) -> None:
    """Another key, session, side, nonce or carrier; among them a proof that is said again."""
    proof = TICKET.prove(Prover.AGENT, RELAY, AGENT, 7)
    assert not ticket.proves(proof, prover, relay, agent, carrier)
    assert not TICKET.proves("no proof", Prover.AGENT, RELAY, AGENT, 7)
    assert not TICKET.proves("ü" * 64, Prover.AGENT, RELAY, AGENT, 7)


def test_no_two_sessions_or_nonces_are_the_same_and_keys_are_not_shown() -> None:
    tickets = [Ticket.new() for _ in range(100)]
    assert len({each.session for each in tickets}) == len({each.key for each in tickets}) == 100
    assert len({new_nonce() for _ in range(100)}) == 100
    assert tickets[0].key.hex() not in repr(tickets[0])
    assert str(tickets[0].key) not in repr(tickets[0])
