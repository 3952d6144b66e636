"""New names and ports of one turn: one commit, and nobody is told before it."""

from __future__ import annotations

import random
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from srrrs.relay.directory import Directory
from srrrs.relay.refusal import Refusal, RefusalCode
from srrrs.relay.reservation import Key, Reservation
from srrrs.relay.reserver import Reserver
from srrrs.relay.store import Store
from srrrs.relay.tokens import Tokens

NOW = 1_700_000_000.0


class World:
    """A reserver over a real store, whose commits are counted."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path, busy=0.0)
        self.token = Tokens(self.store).create("a", NOW)[0].id
        self.clock = Clock()
        self.directory = Directory(self.store, per_token=100, rng=random.Random(1))
        self.reserver = Reserver(self.clock, lambda: NOW, self.directory)
        self.statements: list[str] = []
        self.store._db.set_trace_callback(self.statements.append)

    def key(self, number: int) -> Key:
        return Key(self.token, f"machine-{number}", "web")

    def begin(self, reserving: Coroutine[Any, Any, Reservation]) -> list[Any]:
        """What comes of it, once it does."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(reserving).addErrback(lambda f: f.value).addBoth(outcome.append)
        return outcome

    @property
    def commits(self) -> int:
        return self.statements.count("COMMIT")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


def test_a_turn_has_one_commit(world: World, tmp_path: Path) -> None:
    """Names and ports alike; whoever is told can be told after a crash, too."""
    seen: list[Any] = []
    outcomes = [world.begin(world.reserver.name(world.key(n), "http", None, "")) for n in range(50)]
    outcomes += [
        world.begin(world.reserver.port(world.key(n), "tcp", [(20000, 29999)], ()))
        for n in range(50, 60)
    ]
    assert not any(outcomes)
    with Store(tmp_path) as beside:
        other = Directory(beside, per_token=100)
        late = Deferred.fromCoroutine(world.reserver.name(world.key(60), "http", "late", ""))
        late.addCallback(lambda got: seen.append((got, other.get(got.key))))
        world.clock.advance(0)
    assert world.commits == 1
    assert len({each[0].name or each[0].port for each in outcomes}) == 60
    assert seen[0][0].name == seen[0][1].name == "late"


def test_what_is_held_is_given_at_once(world: World) -> None:
    """Nothing is written, whoever else holds the database; a name that may not be asked for is
    still refused."""
    first = world.begin(world.reserver.name(world.key(1), "http", None, ""))
    port = world.begin(world.reserver.port(world.key(2), "tcp", [(20000, 29999)], ()))
    world.clock.advance(0)
    world.statements.clear()
    assert world.begin(world.reserver.name(world.key(1), "http", None, ""))[0].name == first[0].name
    again = world.begin(world.reserver.port(world.key(2), "tcp", [(20000, 29999)], ()))
    assert again[0].port == port[0].port
    assert all(each.startswith("SELECT") for each in world.statements)
    assert (
        world.begin(world.reserver.name(world.key(1), "http", "-", ""))[0].code
        == RefusalCode.NAME_INVALID
    )
    assert not world.clock.getDelayedCalls()


def test_a_port_of_another_kind_or_range(world: World) -> None:
    """A new kind keeps the port, a new range replaces it."""
    (before,) = after_turn(world, world.reserver.port(world.key(1), "tcp", [(20000, 20009)], ()))
    (kind,) = after_turn(world, world.reserver.port(world.key(1), "ssh", [(20000, 20009)], ()))
    assert (kind.port, kind.kind) == (before.port, "ssh")
    (moved,) = after_turn(world, world.reserver.port(world.key(1), "ssh", [(30000, 30009)], ()))
    assert moved.replaced == before.port


def after_turn(world: World, reserving: Coroutine[Any, Any, Reservation]) -> list[Any]:
    outcome = world.begin(reserving)
    world.clock.advance(0)
    return outcome


def test_a_refusal_leaves_the_others_alone(world: World) -> None:
    """Of two that ask for one name in one turn, the first has it."""
    first, second, third = (
        world.begin(world.reserver.name(world.key(n), "http", name, ""))
        for n, name in enumerate(["blog", "blog", "shop"])
    )
    world.clock.advance(0)
    assert first[0].name == "blog"
    assert isinstance(second[0], Refusal)
    assert second[0].code == RefusalCode.NAME_TAKEN
    assert third[0].name == "shop"


def test_no_commit_no_promise(world: World, tmp_path: Path) -> None:
    """Where the database cannot be written, all are put off, and nothing of it remains."""
    outcomes = [
        world.begin(world.reserver.name(world.key(n), "http", f"name-{n}", "")) for n in range(3)
    ]
    with Store(tmp_path) as beside, beside.transaction():
        world.clock.advance(0)
    assert [each[0].code for each in outcomes] == [RefusalCode.UNAVAILABLE] * 3
    assert world.directory.for_token(world.token) == []
    (later,) = after_turn(world, world.reserver.name(world.key(1), "http", "name-1", ""))
    assert later.name == "name-1"


def test_a_fault_reaches_whoever_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever, whatever goes wrong."""

    def broken(*_: object) -> Reservation:
        raise RuntimeError("odd")

    good = world.begin(world.reserver.name(world.key(1), "http", None, ""))
    monkeypatch.setattr(world.directory, "reserve_name", broken)
    bad = world.begin(world.reserver.name(world.key(2), "http", None, ""))
    world.clock.advance(0)
    assert isinstance(good[0], RuntimeError)
    assert isinstance(bad[0], RuntimeError)
    assert world.directory.for_token(world.token) == []


def test_who_gave_up_gets_nothing(world: World) -> None:
    """A cancelled claim reserves nothing; after the stop nothing is reserved at all."""
    cancelled = Deferred.fromCoroutine(world.reserver.name(world.key(1), "http", "gone", ""))
    kept = world.begin(world.reserver.name(world.key(2), "http", "kept", ""))
    failures: list[Any] = []
    cancelled.addErrback(failures.append)
    cancelled.cancel()
    world.clock.advance(0)
    assert failures[0].check(CancelledError)
    assert kept[0].name == "kept"
    assert [each.name for each in world.directory.for_token(world.token)] == ["kept"]
    world.begin(world.reserver.name(world.key(3), "http", "late", ""))
    world.reserver.stop()
    world.clock.advance(0)
    assert not world.clock.getDelayedCalls()
    assert len(world.directory.for_token(world.token)) == 1
