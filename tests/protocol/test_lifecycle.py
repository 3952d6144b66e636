"""A tunnel's lifecycle, as a table."""

from __future__ import annotations

from srrrs.protocol.lifecycle import TRANSITIONS, Action, Input, State


def test_every_state_answers_every_input() -> None:
    assert set(TRANSITIONS) == {(state, event) for state in State for event in Input}


def test_the_end_is_told_once() -> None:
    """From every state there is one way in, and none out."""
    for (before, _), (after, actions) in TRANSITIONS.items():
        assert (Action.FINISH in actions) is (after is State.ENDED and before is not State.ENDED)
    assert {after for (before, _), (after, _) in TRANSITIONS.items() if before is State.ENDED} == {
        State.ENDED
    }


def test_a_tunnel_that_has_no_carrier_yet_has_nothing_to_resume() -> None:
    assert TRANSITIONS[State.NEW, Input.RESUMED] == (State.NEW, (Action.REFUSE,))
