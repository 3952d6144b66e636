"""Reservations: one owner a name or port, the same one after every restart."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from srrrs.relay.directory import (
    RECLAIM_AFTER,
    RETRY_EXHAUSTED,
    USED_GRAIN,
    Directory,
    Key,
    Refusal,
    RefusalCode,
    Reservation,
)
from srrrs.relay.names import Names
from srrrs.relay.store import Store, StoreError
from srrrs.relay.tokens import Tokens

NOW = 1_700_000_000.0
STALE = NOW + RECLAIM_AFTER + 1
LOW, HIGH = 20000, 29999


class World:
    """A store, two tokens and a directory over them; `live` are the keys in use."""

    def __init__(self, path: Path, per_token: int = 100) -> None:
        self.store = Store(path)
        self.tokens = Tokens(self.store)
        self.a = self.tokens.create("a", NOW)[0].id
        self.b = self.tokens.create("b", NOW)[0].id
        self.live: set[Key] = set()
        self.per_token = per_token
        self.directory = self.make()

    def make(self) -> Directory:
        return Directory(
            self.store,
            per_token=self.per_token,
            reserved={"tunnels"},
            live=self.live.__contains__,
            rng=random.Random(1),
        )

    def restart(self) -> Directory:
        self.store.close()
        self.store = Store(self.store.path.parent)
        self.directory = self.make()
        return self.directory


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "data")
    yield world
    world.store.close()


def refusal(caught: pytest.ExceptionInfo[Refusal]) -> tuple[RefusalCode, float | None]:
    assert "\n" not in caught.value.message
    return caught.value.code, caught.value.retry


def outcome(reserve: Callable[[], Reservation]) -> Reservation | RefusalCode:
    try:
        return reserve()
    except Refusal as refused:
        return refused.code


# -- names


def test_a_name_asked_for_is_given_and_found_and_survives_a_restart(world: World) -> None:
    key = Key(world.a, "i", "blog")
    made = world.directory.reserve_http(key, "blog", NOW)
    assert (made.label, made.port, made.new, made.replaced) == ("blog", None, True, None)
    again = world.restart().reserve_http(key, "blog", NOW + 60)
    assert (again.label, again.new, again.replaced) == ("blog", False, None)
    owner = world.directory.by_label("blog")
    assert owner is not None
    assert owner.key == key
    assert world.directory.by_label("other") is None


def test_with_no_name_asked_a_readable_one_is_made_and_kept(world: World) -> None:
    key = Key(world.a, "i", "http")
    label = world.directory.reserve_http(key, None, NOW).label
    assert label is not None
    assert len(label.split("-")) == 3
    assert world.restart().reserve_http(key, None, STALE).label == label


def test_every_part_of_the_key_counts(world: World) -> None:
    keys = [
        Key(world.a, "i", "http"),
        Key(world.a, "i", "web"),
        Key(world.a, "j", "http"),
        Key(world.b, "i", "http"),
    ]
    labels = {world.directory.reserve_http(key, None, NOW).label for key in keys}
    assert len(labels) == 4


@pytest.mark.parametrize(
    ("other", "whom"),
    [
        (("b", "i", "blog"), "another token"),
        (("a", "j", "blog"), "instance i of this token"),
        (("a", "i", "web"), "service 'blog' of this agent"),
    ],
)
def test_a_name_held_by_another_is_refused_saying_so(
    world: World, other: tuple[str, str, str], whom: str
) -> None:
    world.directory.reserve_http(Key(world.a, "i", "blog"), "blog", NOW)
    key = Key({"a": world.a, "b": world.b}[other[0]], other[1], other[2])
    with pytest.raises(Refusal, match=whom) as caught:
        world.directory.reserve_http(key, "blog", NOW)
    assert refusal(caught) == (RefusalCode.NAME_TAKEN, None)
    assert "'blog'" in caught.value.message
    assert "2023-11-14" in caught.value.message
    assert world.directory.get(key) is None, "no other name is given instead"


def test_another_token_learns_nothing_of_the_holder(world: World) -> None:
    world.directory.reserve_http(Key(world.a, "machine-7", "blog"), "blog", NOW)
    with pytest.raises(Refusal) as caught:
        world.directory.reserve_http(Key(world.b, "i", "x"), "blog", NOW)
    assert "machine-7" not in caught.value.message
    assert world.a not in caught.value.message


def test_asking_for_another_name_moves_the_service_and_frees_the_old_name(world: World) -> None:
    key, other = Key(world.a, "i", "web"), Key(world.b, "i", "web")
    world.directory.reserve_http(key, "blog", NOW)
    moved = world.directory.reserve_http(key, "shop", NOW)
    assert (moved.label, moved.replaced, moved.new) == ("shop", "blog", True)
    assert world.directory.by_label("blog") is None
    assert world.directory.reserve_http(other, "blog", NOW).label == "blog"
    assert len(world.directory.for_token(world.a)) == 1


def test_asking_for_a_name_that_is_taken_leaves_the_one_held(world: World) -> None:
    key = Key(world.a, "i", "web")
    world.directory.reserve_http(Key(world.b, "i", "web"), "shop", NOW)
    world.directory.reserve_http(key, "blog", NOW)
    with pytest.raises(Refusal):
        world.directory.reserve_http(key, "shop", NOW)
    held = world.directory.get(key)
    assert held is not None
    assert held.label == "blog"


def test_asking_for_none_keeps_the_name_once_asked_for(world: World) -> None:
    key = Key(world.a, "i", "web")
    world.directory.reserve_http(key, "blog", NOW)
    kept = world.directory.reserve_http(key, None, NOW)
    assert (kept.label, kept.new) == ("blog", False)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "-a",
        "a-",
        "-",
        "a.b",
        "Blog",
        "a_b",
        "é",
        "a b",
        "a\n",
        "x" * 64,
        "xn--bcher-kva",
        "ab--c",
    ],
)
def test_what_is_no_plain_dns_label_is_refused(world: World, label: str) -> None:
    with pytest.raises(Refusal, match="cannot be a name") as caught:
        world.directory.reserve_http(Key(world.a, "i", "web"), label, NOW)
    assert refusal(caught) == (RefusalCode.NAME_INVALID, None)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("label", ["a", "7", "0-0", "a-b-c", "x" * 63, "a--b", "abc--d", "xn-a"])
def test_every_plain_dns_label_is_taken(world: World, label: str) -> None:
    assert world.directory.reserve_http(Key(world.a, "i", "w"), label, NOW).label == label


@pytest.mark.parametrize("label", ["relay", "tunnels"])
def test_the_relays_own_names_are_never_given(world: World, label: str) -> None:
    with pytest.raises(Refusal, match="belongs to the relay") as caught:
        world.directory.reserve_http(Key(world.a, "i", "w"), label, NOW)
    assert refusal(caught) == (RefusalCode.NAME_RESERVED, None)


def test_a_name_that_became_the_relays_is_given_up(world: World) -> None:
    key = Key(world.a, "i", "w")
    world.directory.reserve_http(key, "edge", NOW)
    directory = Directory(world.store, per_token=10, reserved={"edge"}, rng=random.Random(1))
    with pytest.raises(Refusal, match="belongs to the relay"):
        directory.reserve_http(key, "edge", NOW)
    moved = directory.reserve_http(key, None, NOW)
    assert moved.label not in (None, "edge")
    assert moved.replaced == "edge"


def test_a_generated_name_that_is_taken_is_drawn_again(world: World) -> None:
    first = Names(random.Random(1)).make()  # what the directory will draw first
    world.directory.reserve_http(Key(world.b, "i", "w"), first, NOW)
    made = world.directory.reserve_http(Key(world.a, "i", "w"), None, NOW)
    assert made.label not in (None, first)


def test_a_generator_that_finds_nothing_is_a_clear_refusal(world: World) -> None:
    class Stuck(random.Random):
        def random(self) -> float:
            return 0.0

        def getrandbits(self, k: int, /) -> int:
            return 0

    directory = Directory(world.store, per_token=10, rng=Stuck())
    directory.reserve_http(Key(world.a, "i", "v"), None, NOW)
    with pytest.raises(Refusal) as caught:
        directory.reserve_http(Key(world.a, "i", "w"), None, NOW)
    assert refusal(caught) == (RefusalCode.NAMES_EXHAUSTED, RETRY_EXHAUSTED)


# -- ports


def test_a_port_is_random_in_the_range_and_survives_restarts(world: World) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(50)]
    made = [world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW).port for key in keys]
    assert len(set(made)) == 50
    assert all(port is not None and LOW <= port <= HIGH for port in made)
    assert made != sorted(port for port in made if port is not None)
    directory = world.restart()
    assert [directory.reserve_port(key, "tcp", LOW, HIGH, NOW).port for key in keys] == made
    assert made[0] is not None
    owner = directory.by_port(made[0])
    assert owner is not None
    assert owner.key == keys[0]


def test_ports_to_exclude_are_not_chosen_but_one_held_stays(world: World) -> None:
    key, other = Key(world.a, "i", "ssh"), Key(world.b, "i", "ssh")
    assert world.directory.reserve_port(key, "tcp", 1, 3, NOW, {1, 3}).port == 2
    held = world.directory.reserve_port(key, "tcp", 1, 3, NOW, {2})
    assert (held.port, held.new) == (2, False)
    with pytest.raises(Refusal) as caught:
        world.directory.reserve_port(other, "tcp", 1, 3, NOW, {1, 3})
    assert refusal(caught) == (RefusalCode.PORTS_EXHAUSTED, RETRY_EXHAUSTED)
    assert "1-3" in caught.value.message


def test_a_fresh_port_that_cannot_be_bound_is_released_for_another(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    made = world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW)
    assert made.new
    assert made.port is not None
    assert world.directory.release(key)
    assert not world.directory.release(key)
    assert world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW, {made.port}).port != made.port


def test_when_the_range_changed_a_new_port_is_given_and_reported(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    old = world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW).port
    moved = world.directory.reserve_port(key, "tcp", 40000, 40009, NOW)
    assert moved.port is not None
    assert 40000 <= moved.port <= 40009
    assert (moved.replaced, moved.new) == (old, True)
    assert world.directory.reserve_port(key, "tcp", 40000, 40009, NOW).replaced is None
    assert old is not None
    assert world.directory.by_port(old) is None


def test_the_last_free_port_is_found(world: World) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(60)]
    ports = {world.directory.reserve_port(key, "tcp", 1, 60, NOW).port for key in keys}
    assert ports == set(range(1, 61))


# -- kinds


def test_tcp_and_ssh_share_the_port(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    port = world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW).port
    turned = world.directory.reserve_port(key, "ssh", LOW, HIGH, NOW)
    assert (turned.port, turned.kind, turned.new) == (port, "ssh", False)
    held = world.restart().get(key)
    assert held is not None
    assert held.kind == "ssh"


def test_a_service_that_changes_its_kind_gives_up_what_it_had(world: World) -> None:
    key = Key(world.a, "i", "web")
    world.directory.reserve_http(key, "blog", NOW)
    turned = world.directory.reserve_port(key, "tcp", LOW, HIGH, NOW)
    assert (turned.kind, turned.label, turned.replaced) == ("tcp", None, "blog")
    assert world.directory.by_label("blog") is None
    back = world.directory.reserve_http(key, None, NOW)
    assert (back.kind, back.port, back.replaced) == ("http", None, turned.port)
    assert len(world.directory.for_token(world.a)) == 1


# -- reclaiming


def test_an_unused_name_goes_to_another_after_90_days_only(world: World) -> None:
    world.directory.reserve_http(Key(world.a, "i", "w"), "blog", NOW)
    other = Key(world.b, "i", "w")
    with pytest.raises(Refusal):
        world.directory.reserve_http(other, "blog", NOW + RECLAIM_AFTER)
    assert world.directory.reserve_http(other, "blog", STALE).label == "blog"
    assert world.directory.for_token(world.a) == []


def test_a_live_service_is_never_reclaimed(world: World) -> None:
    key = Key(world.a, "i", "w")
    world.directory.reserve_http(key, "blog", NOW)
    world.live.add(key)
    with pytest.raises(Refusal):
        world.directory.reserve_http(Key(world.b, "i", "w"), "blog", STALE)
    world.tokens.revoke("a", NOW)
    with pytest.raises(Refusal):
        world.directory.reserve_http(Key(world.b, "i", "w"), "blog", STALE)


def test_a_use_counts_before_and_after_it_is_written_down(world: World) -> None:
    key, other = Key(world.a, "i", "w"), Key(world.b, "i", "w")
    world.directory.reserve_http(key, "blog", NOW)
    world.directory.touch([key], STALE)
    with pytest.raises(Refusal):
        world.directory.reserve_http(other, "blog", STALE)
    assert world.directory.flush() == 0
    with pytest.raises(Refusal):
        world.restart().reserve_http(other, "blog", STALE)


def test_what_a_revoked_token_held_is_free_at_once_but_an_expired_ones_is_not(
    world: World,
) -> None:
    expiring = world.tokens.create("c", NOW, expires=1)[0].id
    world.directory.reserve_http(Key(world.a, "i", "w"), "blog", NOW)
    world.directory.reserve_http(Key(expiring, "i", "w"), "shop", NOW)
    world.tokens.revoke("a", NOW)
    assert world.directory.reserve_http(Key(world.b, "i", "1"), "blog", NOW + 2).label == "blog"
    with pytest.raises(Refusal):
        world.directory.reserve_http(Key(world.b, "i", "2"), "shop", NOW + 2)


def test_exhausted_ports_are_reclaimed_oldest_first_sparing_live_and_excluded(
    world: World,
) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(5)]
    made = [
        world.directory.reserve_port(key, "tcp", 1, 5, NOW + n).port for n, key in enumerate(keys)
    ]
    assert made[1] is not None
    world.live.add(keys[0])
    late = STALE + 3  # the last of the five is not old enough
    taker = world.directory.reserve_port(Key(world.b, "i", "x"), "tcp", 1, 5, late, {made[1]})
    assert taker.port == made[2]
    assert world.directory.reserve_port(Key(world.b, "i", "y"), "tcp", 1, 5, late).port == made[1]
    assert world.directory.reserve_port(Key(world.b, "i", "z"), "tcp", 1, 5, late).port == made[3]
    with pytest.raises(Refusal):
        world.directory.reserve_port(Key(world.b, "i", "!"), "tcp", 1, 5, late)


def test_a_token_holds_so_many_and_no_more(tmp_path: Path) -> None:
    world = World(tmp_path, per_token=2)
    world.directory.reserve_http(Key(world.a, "i", "1"), None, NOW)
    world.directory.reserve_port(Key(world.a, "j", "2"), "tcp", LOW, HIGH, NOW + 5)
    with pytest.raises(Refusal, match="limit is 2") as caught:
        world.directory.reserve_http(Key(world.a, "i", "3"), None, NOW)
    assert refusal(caught) == (RefusalCode.TOO_MANY_SERVICES, RETRY_EXHAUSTED)
    world.directory.reserve_http(Key(world.a, "i", "1"), "moved", NOW)
    world.directory.reserve_http(Key(world.b, "i", "1"), None, NOW)
    # One's own oldest reservation makes room in the end.
    world.directory.reserve_http(Key(world.a, "i", "3"), None, STALE)
    assert [r.key.service for r in world.directory.for_token(world.a)] == ["3", "2"]
    world.store.close()


# -- what is written, and when


def test_a_fleet_that_reconnects_writes_nothing(world: World) -> None:
    keys = [Key(world.a, f"i{n}", "http") for n in range(50)]
    with world.store.transaction():
        before = [world.directory.reserve_http(key, None, NOW) for key in keys]
    with Store(world.store.path.parent) as other:
        later = NOW + USED_GRAIN + 1
        after = [world.directory.reserve_http(key, None, later) for key in keys]
        assert not other.changed()
        assert [r.label for r in after] == [r.label for r in before]
        assert world.directory.flush(limit=20) == 30, "uses are written in bounded turns"
        assert other.changed()
        assert world.directory.flush() == 0
        assert other.changed()
        # Within the hour there is nothing to write at all.
        world.directory.touch(keys, later + USED_GRAIN - 1)
        world.directory.flush()
        assert not other.changed()


def test_many_new_reservations_share_one_commit_and_a_refusal_spoils_none(world: World) -> None:
    with Store(world.store.path.parent) as other:
        with world.store.transaction():
            world.directory.reserve_http(Key(world.a, "i", "1"), "one", NOW)
            with pytest.raises(Refusal):
                world.directory.reserve_http(Key(world.b, "i", "1"), "one", NOW)
            world.directory.reserve_http(Key(world.b, "i", "2"), "two", NOW)
            assert other.rows("SELECT * FROM reservations") == []
        assert len(other.rows("SELECT * FROM reservations")) == 2


def test_a_failing_database_is_a_refusal_that_may_heal(world: World) -> None:
    world.store.close()
    with pytest.raises(Refusal) as caught:
        world.directory.reserve_http(Key(world.a, "i", "w"), None, NOW)
    assert caught.value.code is RefusalCode.UNAVAILABLE
    assert caught.value.retry
    assert isinstance(caught.value.__cause__, StoreError)
    with pytest.raises(Refusal):
        world.directory.reserve_port(Key(world.a, "i", "w"), "tcp", LOW, HIGH, NOW)


@settings(deadline=None)
@given(st.text(max_size=70))
def test_every_label_given_is_a_dns_label(label: str) -> None:
    """Whatever is asked for is given exactly or refused; checked without a database."""
    with tempfile.TemporaryDirectory() as path, Store(Path(path)) as store:
        directory = Directory(store, per_token=1)
        made = outcome(lambda: directory.reserve_http(Key("t", "i", "s"), label, NOW))
        if isinstance(made, RefusalCode):
            assert made in (RefusalCode.NAME_INVALID, RefusalCode.NAME_RESERVED)
        else:
            assert made.label == label
            assert label.isascii()
            assert label.replace("-", "a").isalnum()
            assert label == label.lower()


class Model(RuleBasedStateMachine):
    """Any order of calls, revocations, restarts and waiting."""

    token = st.sampled_from(["a", "b"])
    key = st.tuples(token, st.sampled_from("ij"), st.sampled_from("st"))
    label = st.sampled_from([None, "blog", "shop"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), per_token=3)
        self.now = NOW
        self.revoked: set[str] = set()
        #: what each key was told last, and when it was last used
        self.told: dict[Key, Reservation] = {}
        self.used: dict[Key, float] = {}

    def teardown(self) -> None:
        self.world.store.close()
        self.folder.cleanup()

    def make_key(self, parts: tuple[str, str, str]) -> Key:
        return Key({"a": self.world.a, "b": self.world.b}[parts[0]], parts[1], parts[2])

    def tell(self, key: Key, given: Reservation) -> None:
        assert given.key == key
        before = self.told.get(key)
        if before is not None and given.new and self.kept(key):
            assert given.replaced == (before.label or before.port)
        self.told[key] = given
        self.used[key] = self.now

    def kept(self, key: Key) -> bool:
        """Whether nobody else may have taken what the key was told."""
        recent = self.used[key] >= self.now - RECLAIM_AFTER and key.token_id not in self.revoked
        return recent or key in self.world.live

    @rule(parts=key, asked=label)
    def http(self, parts: tuple[str, str, str], asked: str | None) -> None:
        key = self.make_key(parts)
        given = outcome(lambda: self.world.directory.reserve_http(key, asked, self.now))
        if isinstance(given, RefusalCode):
            assert given in (RefusalCode.NAME_TAKEN, RefusalCode.TOO_MANY_SERVICES)
            return
        assert given.label is not None
        assert asked in (None, given.label)
        before = self.told.get(key)
        if asked is None and before is not None and before.label and self.kept(key):
            assert given.label == before.label
        self.tell(key, given)

    @rule(parts=key, low=st.sampled_from([1, 3]))
    def port(self, parts: tuple[str, str, str], low: int) -> None:
        key = self.make_key(parts)
        given = outcome(
            lambda: self.world.directory.reserve_port(key, "tcp", low, low + 3, self.now)
        )
        if isinstance(given, RefusalCode):
            assert given in (RefusalCode.PORTS_EXHAUSTED, RefusalCode.TOO_MANY_SERVICES)
            return
        assert given.port is not None
        assert low <= given.port <= low + 3
        before = self.told.get(key)
        if before is not None and before.port and low <= before.port <= low + 3:
            if self.kept(key):
                assert given.port == before.port
        self.tell(key, given)

    @rule(parts=key)
    def release(self, parts: tuple[str, str, str]) -> None:
        key = self.make_key(parts)
        self.world.directory.release(key)
        self.told.pop(key, None)
        self.used.pop(key, None)
        self.world.live.discard(key)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def toggle_live(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.told)))
        if self.world.directory.get(key) is not None:
            self.world.live.symmetric_difference_update({key})

    @rule(days=st.sampled_from([1, 50, 91]))
    def wait(self, days: int) -> None:
        self.now += days * 86400

    @rule()
    def touch_live_and_flush(self) -> None:
        self.world.directory.touch(self.world.live, self.now)
        self.used.update(dict.fromkeys(self.world.live, self.now))
        self.world.directory.flush()

    @rule()
    def restart(self) -> None:
        self.world.directory.flush()
        self.world.restart()

    @precondition(lambda self: not self.revoked)
    @rule(name=token)
    def revoke(self, name: str) -> None:
        self.world.tokens = Tokens(self.world.store)
        self.revoked.add(self.world.tokens.revoke(name, self.now).id)

    @invariant()
    def one_owner_each(self) -> None:
        directory = self.world.directory
        held = directory.for_token(self.world.a) + directory.for_token(self.world.b)
        labels = [r.label for r in held if r.label is not None]
        ports = [r.port for r in held if r.port is not None]
        assert len(labels) == len(set(labels))
        assert len(ports) == len(set(ports))
        assert len(labels) + len(ports) == len(held)

    @invariant()
    def nobody_lost_what_was_promised(self) -> None:
        for key, told in self.told.items():
            if self.kept(key):
                held = self.world.directory.get(key)
                assert held is not None
                assert (held.label, held.port) == (told.label, told.port)


def test_no_order_of_events_takes_from_an_owner_or_gives_twice() -> None:
    run_state_machine_as_test(
        Model, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
