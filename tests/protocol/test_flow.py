"""Budgets and windows keep their invariants whatever happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srrrs.protocol.flow import BASE_WINDOW, Budget, ReceiveWindow


def test_a_child_cannot_reserve_what_its_parent_lacks() -> None:
    process = Budget(100)
    one, two = Budget(80, process), Budget(80, process)
    assert one.reserve(80)
    assert not two.reserve(30)
    assert two.reserve(20)
    assert two.exhausted
    assert process.exhausted
    one.release(80)
    assert (process.used, one.used, two.used) == (20, 0, 20)
    assert not two.exhausted


def test_elastic_reservations_leave_the_rest_for_base_windows() -> None:
    budget = Budget(800)
    assert budget.reserve_elastic(300)
    assert not budget.reserve_elastic(1)
    assert budget.reserve(500)
    assert budget.scarce


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 3)), max_size=60),
    st.integers(1, 40),
    st.sampled_from([None, 0.001, 1.0]),
)
def test_a_window_accounts_for_every_byte(
    steps: list[tuple[bool, float, float]], room: int, rtt: float | None
) -> None:
    """The sum of what the peer may send, what is held and what is ungranted is the window, and the
    window is what is reserved, at every step; after the close only held bytes are."""
    budget = Budget(BASE_WINDOW * room)
    assert budget.reserve(BASE_WINDOW)
    window = ReceiveWindow(budget, BASE_WINDOW, 1 << 20)
    now = 0.0
    promised = BASE_WINDOW
    for arrives, share, wait in steps:
        now += wait
        if arrives:
            size = int(window.credit * share)
            if size:
                promised += window.received(size) - size
        else:
            size = int(window.held * share)
            if size:
                promised += window.consumed(size, now, rtt)
        assert window.credit == promised
        assert window.credit + window.held + window.ungranted == window.size == budget.used
        assert BASE_WINDOW <= window.size <= 1 << 20
        assert budget.used <= budget.limit
    held = window.held
    window.close()
    assert budget.used == held
    if held:
        assert window.consumed(held, now, rtt) == 0
    assert budget.used == 0
