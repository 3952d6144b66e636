"""Visitors who wait for a service whose agent is away for a moment."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from srrrs.relay.edge.interfaces import ServiceAway
from srrrs.relay.reservation import Key
from srrrs.relay.waiting import WaitingRoom

SITE, OTHER = Key("token", "machine", "site"), Key("token", "machine", "other")
SERVICE: Any = "the service"


class Room:
    """A waiting room, and what came of those who wait in it."""

    def __init__(self, most: int = 3, patience: float = 30.0) -> None:
        self.clock = Clock()
        self.room = WaitingRoom(self.clock, most, patience)
        self.told: dict[str, Any] = {}

    def wait(self, who: str, key: Key = SITE) -> Deferred[Any]:
        waiter = self.room.wait(key)
        waiter.addCallbacks(
            lambda service: self.told.update({who: service}),
            lambda failure: self.told.update({who: failure.type}),
        )
        return waiter

    def is_empty(self) -> bool:
        return (
            len(self.room) == 0 and self.room._waiting == {} and self.clock.getDelayedCalls() == []
        )


def test_all_are_let_in_once_it_is_served_again() -> None:
    """In the order in which they came; who waits for another service waits on."""
    room = Room()
    for who in ("a", "b"):
        room.wait(who)
    room.wait("c", OTHER)
    assert (room.told, len(room.room)) == ({}, 3)
    room.room.let_in(SITE, SERVICE)
    assert list(room.told.items()) == [("a", SERVICE), ("b", SERVICE)]
    assert len(room.room) == 1
    room.room.let_in(OTHER, SERVICE)
    assert room.told["c"] == SERVICE
    assert room.is_empty()


def test_who_has_waited_too_long_is_turned_away() -> None:
    """Each after a time of its own."""
    room = Room(patience=30.0)
    room.wait("a")
    room.clock.advance(20)
    room.wait("b")
    room.clock.advance(9.9)
    assert room.told == {}
    room.clock.advance(0.1)
    assert room.told == {"a": ServiceAway}
    room.clock.advance(19.9)
    assert list(room.told) == ["a"]
    room.clock.advance(0.1)
    assert room.told == {"a": ServiceAway, "b": ServiceAway}
    assert room.is_empty()


def test_too_many() -> None:
    """Of one service; there is room again as soon as one has left."""
    room = Room(most=2)
    first = room.wait("a")
    room.wait("b")
    room.wait("c")
    assert room.told == {"c": ServiceAway}
    room.wait("d", OTHER)
    assert "d" not in room.told
    first.cancel()
    assert room.told["a"] is CancelledError
    room.wait("e")
    assert "e" not in room.told
    room.room.let_in(SITE, SERVICE)
    room.room.let_in(OTHER, SERVICE)
    assert [room.told[who] for who in "bde"] == [SERVICE] * 3
    assert room.is_empty()


def test_nobody_waits_where_none_may() -> None:
    for room in (Room(patience=0.0), Room(most=0)):
        room.wait("a")
        assert room.told == {"a": ServiceAway}
        assert room.is_empty()


def test_who_leaves_is_forgotten() -> None:
    room = Room()
    waiter = room.wait("a")
    waiter.cancel()
    assert room.told == {"a": CancelledError}
    assert room.is_empty()
    room.room.let_in(SITE, SERVICE)
    assert room.told == {"a": CancelledError}


def test_who_leaves_while_others_are_let_in() -> None:
    """Also because one of those was."""
    room = Room()
    waiters: list[Deferred[Any]] = []
    first = room.room.wait(SITE)
    first.addCallback(lambda _: waiters[0].cancel())
    waiters.append(room.wait("b"))
    room.wait("c")
    room.room.let_in(SITE, SERVICE)
    assert room.told == {"b": CancelledError, "c": SERVICE}
    assert room.is_empty()


def test_who_waits_again_is_not_let_in_at_once() -> None:
    """The service went away while they were let in: that is no endless loop."""
    room = Room()
    room.room.wait(SITE).addCallback(lambda _: bool(room.wait("again")))
    room.room.let_in(SITE, SERVICE)
    assert room.told == {}
    assert len(room.room) == 1
    room.room.let_in(SITE, SERVICE)
    assert room.told == {"again": SERVICE}
    assert room.is_empty()


def test_the_end() -> None:
    """When the relay stops, nobody waits on."""
    room = Room()
    room.wait("a")
    room.wait("b", OTHER)
    room.room.stop()
    assert room.told == {"a": ServiceAway, "b": ServiceAway}
    assert room.is_empty()
