"""Many waits with one timer."""

from __future__ import annotations

from twisted.internet.task import Clock

from srrrs.relay.edge.deadlines import Deadlines


def test_each_waits_from_when_it_was_added() -> None:
    """One after the other, with one timer; who is added again waits anew."""
    clock, over = Clock(), list[str]()
    waits: Deadlines[str] = Deadlines(clock, 10.0, over.append)
    for name in ("a", "b", "c"):
        waits.add(name)
        clock.advance(1)
    waits.add("a")
    waits.discard("b")
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(8.9)
    assert over == []
    clock.advance(0.2)
    assert over == ["c"]
    clock.advance(1)
    assert over == ["c", "a"]
    assert not len(waits)
    assert clock.getDelayedCalls() == []


def test_one_that_ends_may_end_others() -> None:
    """Who was discarded meanwhile is not called, and who was added waits its time."""
    clock, over = Clock(), list[str]()

    def expired(name: str) -> None:
        over.append(name)
        waits.discard("b")
        waits.add("c")

    waits: Deadlines[str] = Deadlines(clock, 10.0, expired)
    waits.add("a")
    waits.add("b")
    clock.advance(10)
    assert over == ["a"]
    assert waits.all() == ["c"]
    clock.advance(9.9)
    assert over == ["a"]
    waits.stop()
    assert clock.getDelayedCalls() == []
    assert "c" not in waits


def test_no_time_is_for_ever() -> None:
    """Nobody is kept, and no timer runs."""
    clock, over = Clock(), list[str]()
    waits: Deadlines[str] = Deadlines(clock, 0.0, over.append)
    waits.add("a")
    assert "a" not in waits
    assert clock.getDelayedCalls() == []
    waits.discard("a")
