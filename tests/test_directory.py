"""Reservations: one owner a name or port, the same one after every restart."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Collection, Iterator
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

from srrrs.relay.directory import RECLAIM_AFTER, USED_GRAIN, Directory
from srrrs.relay.kept import KEEP_FOR, MOST_KEPT
from srrrs.relay.names import Names
from srrrs.relay.refusal import RETRY_EXHAUSTED, Refusal, RefusalCode
from srrrs.relay.reservation import Key, Reservation, shared_key
from srrrs.relay.store import Store, StoreError
from srrrs.relay.tokens import Tokens

NOW = 1_700_000_000.0
STALE = NOW + RECLAIM_AFTER + 1
LOW, HIGH = 20000, 29999


def named(
    directory: Directory,
    key: Key,
    asked: str | None,
    now: float,
    path: str = "",
    kind: str = "http",
) -> Reservation:
    return directory.reserve_name(key, kind, asked, path, now)


def ported(
    directory: Directory,
    key: Key,
    kind: str,
    low: int,
    high: int,
    now: float,
    exclude: Collection[int] = (),
) -> Reservation:
    return directory.reserve_port(key, kind, [(low, high)], now, exclude)


def owner(directory: Directory, name: str) -> Reservation | None:
    found = directory.by_name(name)
    return found[0] if found else None


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
    made = named(world.directory, key, "blog", NOW)
    assert (made.name, made.port, made.new, made.replaced) == ("blog", None, True, None)
    again = named(world.restart(), key, "blog", NOW + 60)
    assert (again.name, again.new, again.replaced) == ("blog", False, None)
    found = owner(world.directory, "blog")
    assert found is not None
    assert found.key == key
    assert owner(world.directory, "other") is None


def test_with_no_name_asked_a_readable_one_is_made_and_kept(world: World) -> None:
    key = Key(world.a, "i", "http")
    label = named(world.directory, key, None, NOW).name
    assert label is not None
    assert len(label.split("-")) == 3
    assert named(world.restart(), key, None, STALE).name == label


def test_every_part_of_the_key_counts(world: World) -> None:
    keys = [
        Key(world.a, "i", "http"),
        Key(world.a, "i", "web"),
        Key(world.a, "j", "http"),
        Key(world.b, "i", "http"),
    ]
    labels = {named(world.directory, key, None, NOW).name for key in keys}
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
    named(world.directory, Key(world.a, "i", "blog"), "blog", NOW)
    key = Key({"a": world.a, "b": world.b}[other[0]], other[1], other[2])
    with pytest.raises(Refusal, match=whom) as caught:
        named(world.directory, key, "blog", NOW)
    assert refusal(caught) == (RefusalCode.NAME_TAKEN, None)
    assert "'blog'" in caught.value.message
    assert "2023-11-14" in caught.value.message
    assert world.directory.get(key) is None, "no other name is given instead"


def test_another_token_learns_nothing_of_the_holder(world: World) -> None:
    named(world.directory, Key(world.a, "machine-7", "blog"), "blog", NOW)
    with pytest.raises(Refusal) as caught:
        named(world.directory, Key(world.b, "i", "x"), "blog", NOW)
    assert "machine-7" not in caught.value.message
    assert world.a not in caught.value.message


def test_asking_for_another_name_moves_the_service_and_frees_the_old_name(world: World) -> None:
    key, other = Key(world.a, "i", "web"), Key(world.a, "j", "web")
    named(world.directory, key, "blog", NOW)
    moved = named(world.directory, key, "shop", NOW)
    assert (moved.name, moved.replaced, moved.new) == ("shop", "blog", True)
    assert owner(world.directory, "blog") is None
    assert named(world.directory, other, "blog", NOW).name == "blog"


def test_asking_for_a_name_that_is_taken_leaves_the_one_held(world: World) -> None:
    key = Key(world.a, "i", "web")
    named(world.directory, Key(world.b, "i", "web"), "shop", NOW)
    named(world.directory, key, "blog", NOW)
    with pytest.raises(Refusal):
        named(world.directory, key, "shop", NOW)
    held = world.directory.get(key)
    assert held is not None
    assert held.name == "blog"


def test_asking_for_none_keeps_the_name_once_asked_for(world: World) -> None:
    key = Key(world.a, "i", "web")
    named(world.directory, key, "blog", NOW)
    kept = named(world.directory, key, None, NOW)
    assert (kept.name, kept.new) == ("blog", False)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "-a",
        "a-",
        "-",
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
        named(world.directory, Key(world.a, "i", "web"), label, NOW)
    assert refusal(caught) == (RefusalCode.NAME_INVALID, None)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("label", ["a", "7", "0-0", "a-b-c", "x" * 63, "a--b", "abc--d", "xn-a"])
def test_every_plain_dns_label_is_taken(world: World, label: str) -> None:
    assert named(world.directory, Key(world.a, "i", "w"), label, NOW).name == label


@pytest.mark.parametrize("label", ["relay", "tunnels"])
def test_the_relays_own_names_are_never_given(world: World, label: str) -> None:
    with pytest.raises(Refusal, match="belongs to the relay") as caught:
        named(world.directory, Key(world.a, "i", "w"), label, NOW)
    assert refusal(caught) == (RefusalCode.NAME_RESERVED, None)


def test_a_name_that_became_the_relays_is_given_up(world: World) -> None:
    key = Key(world.a, "i", "w")
    named(world.directory, key, "edge", NOW)
    directory = Directory(world.store, per_token=10, reserved={"edge"}, rng=random.Random(1))
    with pytest.raises(Refusal, match="belongs to the relay"):
        named(directory, key, "edge", NOW)
    moved = named(directory, key, None, NOW)
    assert moved.name not in (None, "edge")
    assert moved.replaced == "edge"


def test_a_generated_name_that_is_taken_is_drawn_again(world: World) -> None:
    first = Names(random.Random(1)).make()  # what the directory will draw first
    named(world.directory, Key(world.b, "i", "w"), first, NOW)
    made = named(world.directory, Key(world.a, "i", "w"), None, NOW)
    assert made.name not in (None, first)


def test_a_generator_that_finds_nothing_is_a_clear_refusal(world: World) -> None:
    class Stuck(random.Random):
        def random(self) -> float:
            return 0.0

        def getrandbits(self, k: int, /) -> int:
            return 0

    directory = Directory(world.store, per_token=10, rng=Stuck())
    named(directory, Key(world.a, "i", "v"), None, NOW)
    with pytest.raises(Refusal) as caught:
        named(directory, Key(world.a, "i", "w"), None, NOW)
    assert refusal(caught) == (RefusalCode.NAMES_EXHAUSTED, RETRY_EXHAUSTED)


# -- ports


def test_a_port_is_random_in_the_range_and_survives_restarts(world: World) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(50)]
    made = [ported(world.directory, key, "tcp", LOW, HIGH, NOW).port for key in keys]
    assert len(set(made)) == 50
    assert all(port is not None and LOW <= port <= HIGH for port in made)
    assert made != sorted(port for port in made if port is not None)
    directory = world.restart()
    assert [ported(directory, key, "tcp", LOW, HIGH, NOW).port for key in keys] == made
    assert made[0] is not None
    owner = directory.by_port(made[0])
    assert owner is not None
    assert owner.key == keys[0]


def test_ports_to_exclude_are_not_chosen_but_one_held_stays(world: World) -> None:
    key, other = Key(world.a, "i", "ssh"), Key(world.b, "i", "ssh")
    assert ported(world.directory, key, "tcp", 1, 3, NOW, {1, 3}).port == 2
    held = ported(world.directory, key, "tcp", 1, 3, NOW, {2})
    assert (held.port, held.new) == (2, False)
    with pytest.raises(Refusal) as caught:
        ported(world.directory, other, "tcp", 1, 3, NOW, {1, 3})
    assert refusal(caught) == (RefusalCode.PORTS_EXHAUSTED, RETRY_EXHAUSTED)
    assert "1-3" in caught.value.message


def test_a_fresh_port_that_cannot_be_bound_is_released_for_another(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    made = ported(world.directory, key, "tcp", LOW, HIGH, NOW)
    assert made.new
    assert made.port is not None
    assert world.directory.release(key)
    assert not world.directory.release(key)
    assert ported(world.directory, key, "tcp", LOW, HIGH, NOW, {made.port}).port != made.port


def test_when_the_range_changed_a_new_port_is_given_and_reported(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    old = ported(world.directory, key, "tcp", LOW, HIGH, NOW).port
    moved = ported(world.directory, key, "tcp", 40000, 40009, NOW)
    assert moved.port is not None
    assert 40000 <= moved.port <= 40009
    assert (moved.replaced, moved.new) == (old, True)
    assert ported(world.directory, key, "tcp", 40000, 40009, NOW).replaced is None
    assert old is not None
    assert world.directory.by_port(old) is None


def test_the_last_free_port_is_found(world: World) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(60)]
    ports = {ported(world.directory, key, "tcp", 1, 60, NOW).port for key in keys}
    assert ports == set(range(1, 61))


# -- kinds


def test_tcp_and_ssh_share_the_port(world: World) -> None:
    key = Key(world.a, "i", "ssh")
    port = ported(world.directory, key, "tcp", LOW, HIGH, NOW).port
    turned = ported(world.directory, key, "ssh", LOW, HIGH, NOW)
    assert (turned.port, turned.kind, turned.new) == (port, "ssh", False)
    held = world.restart().get(key)
    assert held is not None
    assert held.kind == "ssh"


def test_a_service_that_changes_its_kind_gives_up_what_it_had(world: World) -> None:
    key = Key(world.a, "i", "web")
    named(world.directory, key, "blog", NOW)
    turned = ported(world.directory, key, "tcp", LOW, HIGH, NOW)
    assert (turned.kind, turned.name, turned.replaced) == ("tcp", None, "blog")
    assert owner(world.directory, "blog") is None
    back = named(world.directory, key, None, NOW)
    assert (back.kind, back.port, back.replaced) == ("http", None, turned.port)
    assert len(world.directory.for_token(world.a)) == 1


# -- reclaiming


def test_an_unused_name_goes_to_another_after_90_days_only(world: World) -> None:
    named(world.directory, Key(world.a, "i", "w"), "blog", NOW)
    other = Key(world.b, "i", "w")
    with pytest.raises(Refusal):
        named(world.directory, other, "blog", NOW + RECLAIM_AFTER)
    assert named(world.directory, other, "blog", STALE).name == "blog"
    assert world.directory.for_token(world.a) == []


def test_a_live_service_is_never_reclaimed(world: World) -> None:
    key = Key(world.a, "i", "w")
    named(world.directory, key, "blog", NOW)
    world.live.add(key)
    with pytest.raises(Refusal):
        named(world.directory, Key(world.b, "i", "w"), "blog", STALE)
    world.tokens.revoke("a", NOW)
    with pytest.raises(Refusal):
        named(world.directory, Key(world.b, "i", "w"), "blog", STALE)


def test_a_use_counts_before_and_after_it_is_written_down(world: World) -> None:
    key, other = Key(world.a, "i", "w"), Key(world.b, "i", "w")
    named(world.directory, key, "blog", NOW)
    world.directory.touch([key], STALE)
    with pytest.raises(Refusal):
        named(world.directory, other, "blog", STALE)
    assert world.directory.flush() == 0
    with pytest.raises(Refusal):
        named(world.restart(), other, "blog", STALE)


def test_what_a_revoked_token_held_is_kept_a_month_but_an_expired_ones_till_it_is_stale(
    world: World,
) -> None:
    expiring = world.tokens.create("c", NOW, expires=1)[0].id
    named(world.directory, Key(world.a, "i", "w"), "blog", NOW)
    named(world.directory, Key(expiring, "i", "w"), "shop", NOW)
    world.tokens.revoke("a", NOW)
    other = Key(world.b, "i", "1")
    with pytest.raises(Refusal, match="'blog' was another token's and is kept") as caught:
        named(world.directory, other, "blog", NOW + KEEP_FOR - 1)
    assert refusal(caught) == (RefusalCode.NAME_KEPT, None)
    assert named(world.directory, other, "blog", NOW + KEEP_FOR).name == "blog"
    with pytest.raises(Refusal):
        named(world.directory, Key(world.b, "i", "2"), "shop", NOW + KEEP_FOR)


def test_a_port_of_a_revoked_token_is_anybodys_at_once(world: World) -> None:
    ported(world.directory, Key(world.a, "i", "t"), "tcp", 1, 1, NOW)
    world.tokens.revoke("a", NOW)
    assert ported(world.directory, Key(world.b, "i", "t"), "tcp", 1, 1, NOW + 2).port == 1


def test_names_can_be_released_when_a_token_is_revoked(world: World) -> None:
    key, other = Key(world.a, "i", "w"), Key(world.b, "i", "w")
    named(world.directory, key, "blog", NOW)
    named(world.directory, key, "shop", NOW)
    world.tokens.revoke("a", NOW, release=True)
    assert named(world.directory, other, "blog", NOW).name == "blog"
    assert named(world.directory, other, "shop", NOW).name == "shop"


def test_a_name_given_up_is_kept_from_other_tokens_for_a_month(world: World) -> None:
    key, other = Key(world.a, "i", "w"), Key(world.b, "i", "w")
    named(world.directory, key, "blog", NOW)
    named(world.directory, key, "app.example.org", NOW)
    ported(world.directory, key, "tcp", LOW, HIGH, NOW)
    for name in ("blog", "app.example.org"):
        with pytest.raises(Refusal, match="is kept from others until 2023-12-14"):
            named(world.restart(), other, name, NOW + KEEP_FOR - 1)
    assert named(world.directory, Key(world.a, "j", "w"), "blog", NOW).name == "blog"
    assert named(world.directory, other, "app.example.org", NOW + KEEP_FOR).new
    # The way back: it is b's now, and kept from a in its turn.
    later = NOW + KEEP_FOR + 5
    named(world.directory, other, "elsewhere", later)
    with pytest.raises(Refusal):
        named(world.directory, key, "app.example.org", later + 1)


def test_no_name_is_chosen_that_is_kept_from_the_token(world: World) -> None:
    """The relay's own choice meets the same bar."""
    first = Names(random.Random(1)).make()
    key = Key(world.b, "i", "w")
    named(world.directory, key, first, NOW)
    named(world.directory, key, "other", NOW)
    assert named(world.directory, Key(world.a, "i", "w"), None, NOW).name != first


def test_few_names_are_kept_for_one_token(world: World) -> None:
    """One that renames for ever locks up a bounded number, its latest."""
    key, other = Key(world.a, "i", "w"), Key(world.b, "i", "w")
    with world.directory.together():
        for n in range(MOST_KEPT + 2):
            named(world.directory, key, f"n{n}", NOW + n)
    assert world.store.rows("SELECT count(*) FROM kept_names") == [(MOST_KEPT,)]
    assert named(world.directory, other, "n0", NOW + 5000).name == "n0"
    with pytest.raises(Refusal):
        named(world.directory, other, "n1", NOW + 5000)


# --- hosts, paths and what is shared


@pytest.mark.parametrize("host", ["app.example.org", "xn--bcher-kva.example", "a.b"])
def test_a_whole_host_is_reserved_like_a_label(world: World, host: str) -> None:
    key = Key(world.a, "i", "w")
    assert named(world.directory, key, host, NOW).name == host
    with pytest.raises(Refusal, match=f"'{host}' has been held by another token since"):
        named(world.directory, Key(world.b, "i", "w"), host, NOW)
    assert named(world.restart(), key, host, NOW).new is False


@pytest.mark.parametrize("host", ["1.2.3.4", "a..b", ".a", "a.", "*.a.b", "A.b", "a.b_c", "a.b\n"])
def test_what_is_no_host_is_refused(world: World, host: str) -> None:
    with pytest.raises(Refusal, match="is no host name"):
        named(world.directory, Key(world.a, "i", "w"), host, NOW)


def test_a_whole_host_is_not_kept_by_a_service_that_asks_for_none(world: World) -> None:
    key = Key(world.a, "i", "w")
    named(world.directory, key, "app.example.org", NOW)
    assert "." not in (named(world.directory, key, None, NOW).name or ".")


def test_paths_of_one_name_belong_to_services_of_one_token(world: World) -> None:
    root, api = Key(world.a, "i", "blog"), Key(world.a, "j", "blog/api")
    named(world.directory, root, "blog", NOW)
    made = named(world.directory, api, "blog", NOW, "/api")
    assert (made.name, made.path, made.new) == ("blog", "/api", True)
    assert {each.path for each in world.directory.by_name("blog")} == {"", "/api"}
    with pytest.raises(Refusal, match="'blog/v2' has been held by another token"):
        named(world.directory, Key(world.b, "i", "x"), "blog", NOW, "/v2")
    with pytest.raises(Refusal, match=r"'blog/api' has been held by instance j of this token"):
        named(world.directory, Key(world.a, "i", "blog/api"), "blog", NOW, "/api")
    # A name is not given up while another path of it is held.
    named(world.directory, root, "shop", NOW)
    assert world.store.rows("SELECT name FROM kept_names") == []


def test_what_is_passed_on_as_tls_stands_beside_http_of_the_same_name(world: World) -> None:
    named(world.directory, Key(world.a, "i", "web"), "app.example.org", NOW)
    made = named(world.directory, Key(world.a, "i", "tls"), "app.example.org", NOW, kind="tls")
    assert made.new
    assert [each.kind for each in world.directory.by_name("app.example.org")] == ["http"]
    assert [each.kind for each in world.directory.by_name("app.example.org", True)] == ["tls"]
    with pytest.raises(Refusal):
        named(world.directory, Key(world.b, "i", "w"), "app.example.org", NOW, kind="tls")


def test_a_name_goes_from_one_agent_to_sharers_and_back_while_nobody_serves_it(
    world: World,
) -> None:
    """Live, or just made, it stays as it is, and the refusal says what to do."""
    later = NOW + 2
    alone, shared = Key(world.a, "i", "blog"), shared_key(world.a, "http", "blog", "")
    named(world.directory, alone, "blog", NOW)
    with pytest.raises(Refusal):
        named(world.directory, shared, "blog", NOW)
    world.live.add(alone)
    with pytest.raises(Refusal, match="instance i of this token, which does not share it"):
        named(world.directory, shared, "blog", later)
    world.live.clear()
    assert named(world.directory, shared, "blog", later).new
    world.live.add(shared)
    with pytest.raises(Refusal, match=r"agents of this token that share it .* --share"):
        named(world.directory, alone, "blog", later + 2)
    with pytest.raises(Refusal, match="another token"):
        named(world.directory, shared_key(world.b, "http", "blog", ""), "blog", later + 2)
    world.live.clear()
    assert named(world.directory, alone, "blog", later + 2).new


def test_ports_of_several_ranges(world: World) -> None:
    """Those of a token, within the relay's."""
    ranges = [(1, 2), (7, 7)]
    ports = {
        world.directory.reserve_port(Key(world.a, "i", str(n)), "tcp", ranges, NOW).port
        for n in range(3)
    }
    assert ports == {1, 2, 7}
    with pytest.raises(Refusal, match="all ports of 1-2, 7 are taken"):
        world.directory.reserve_port(Key(world.a, "i", "x"), "tcp", ranges, NOW)


def test_exhausted_ports_are_reclaimed_oldest_first_sparing_live_and_excluded(
    world: World,
) -> None:
    keys = [Key(world.a, "i", f"s{n}") for n in range(5)]
    made = [ported(world.directory, key, "tcp", 1, 5, NOW + n).port for n, key in enumerate(keys)]
    assert made[1] is not None
    world.live.add(keys[0])
    late = STALE + 3  # the last of the five is not old enough
    taker = ported(world.directory, Key(world.b, "i", "x"), "tcp", 1, 5, late, {made[1]})
    assert taker.port == made[2]
    assert ported(world.directory, Key(world.b, "i", "y"), "tcp", 1, 5, late).port == made[1]
    assert ported(world.directory, Key(world.b, "i", "z"), "tcp", 1, 5, late).port == made[3]
    with pytest.raises(Refusal):
        ported(world.directory, Key(world.b, "i", "!"), "tcp", 1, 5, late)


def test_a_token_holds_so_many_and_no_more(tmp_path: Path) -> None:
    world = World(tmp_path, per_token=2)
    named(world.directory, Key(world.a, "i", "1"), None, NOW)
    ported(world.directory, Key(world.a, "j", "2"), "tcp", LOW, HIGH, NOW + 5)
    with pytest.raises(Refusal, match="limit is 2") as caught:
        named(world.directory, Key(world.a, "i", "3"), None, NOW)
    assert refusal(caught) == (RefusalCode.TOO_MANY_SERVICES, RETRY_EXHAUSTED)
    named(world.directory, Key(world.a, "i", "1"), "moved", NOW)
    named(world.directory, Key(world.b, "i", "1"), None, NOW)
    # One's own oldest reservation makes room in the end.
    named(world.directory, Key(world.a, "i", "3"), None, STALE)
    assert [r.key.service for r in world.directory.for_token(world.a)] == ["3", "2"]
    world.store.close()


# -- what is written, and when


def test_a_fleet_that_reconnects_writes_nothing(world: World) -> None:
    keys = [Key(world.a, f"i{n}", "http") for n in range(50)]
    with world.store.transaction():
        before = [named(world.directory, key, None, NOW) for key in keys]
    with Store(world.store.path.parent) as other:
        later = NOW + USED_GRAIN + 1
        after = [named(world.directory, key, None, later) for key in keys]
        assert not other.changed()
        assert [r.name for r in after] == [r.name for r in before]
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
            named(world.directory, Key(world.a, "i", "1"), "one", NOW)
            with pytest.raises(Refusal):
                named(world.directory, Key(world.b, "i", "1"), "one", NOW)
            named(world.directory, Key(world.b, "i", "2"), "two", NOW)
            assert other.rows("SELECT * FROM reservations") == []
        assert len(other.rows("SELECT * FROM reservations")) == 2


def test_a_failing_database_is_a_refusal_that_may_heal(world: World) -> None:
    world.store.close()
    with pytest.raises(Refusal) as caught:
        named(world.directory, Key(world.a, "i", "w"), None, NOW)
    assert caught.value.code is RefusalCode.UNAVAILABLE
    assert caught.value.retry
    assert isinstance(caught.value.__cause__, StoreError)
    with pytest.raises(Refusal):
        ported(world.directory, Key(world.a, "i", "w"), "tcp", LOW, HIGH, NOW)


@settings(deadline=None)
@given(st.text(max_size=70))
def test_every_label_given_is_a_dns_label(label: str) -> None:
    """Whatever is asked for is given exactly or refused; checked without a database."""
    with tempfile.TemporaryDirectory() as path, Store(Path(path)) as store:
        directory = Directory(store, per_token=1)
        made = outcome(lambda: named(directory, Key("t", "i", "s"), label, NOW))
        if isinstance(made, RefusalCode):
            assert made in (RefusalCode.NAME_INVALID, RefusalCode.NAME_RESERVED)
        else:
            assert made.name == label
            assert label.isascii()
            for each in label.split("."):
                assert each.replace("-", "a").isalnum()
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
        #: who gave a name up, and when
        self.lost: dict[str, tuple[str, float]] = {}

    def teardown(self) -> None:
        self.world.store.close()
        self.folder.cleanup()

    def make_key(self, parts: tuple[str, str, str]) -> Key:
        return Key({"a": self.world.a, "b": self.world.b}[parts[0]], parts[1], parts[2])

    def tell(self, key: Key, given: Reservation) -> None:
        assert given.key == key
        before = self.told.get(key)
        if before is not None and given.new and self.kept(key):
            assert given.replaced == (before.name or before.port)
        if isinstance(given.replaced, str):
            self.lost[given.replaced] = key.token_id, self.now
        if given.name is not None:
            token, since = self.lost.pop(given.name, (key.token_id, 0.0))
            assert token == key.token_id or since <= self.now - KEEP_FOR
        self.told[key] = given
        self.used[key] = self.now

    def kept(self, key: Key) -> bool:
        """Whether nobody else may have taken what the key was told."""
        recent = self.used[key] >= self.now - RECLAIM_AFTER and key.token_id not in self.revoked
        return recent or key in self.world.live

    @rule(parts=key, asked=label)
    def http(self, parts: tuple[str, str, str], asked: str | None) -> None:
        key = self.make_key(parts)
        given = outcome(lambda: named(self.world.directory, key, asked, self.now))
        if isinstance(given, RefusalCode):
            assert given in (
                RefusalCode.NAME_TAKEN,
                RefusalCode.NAME_KEPT,
                RefusalCode.TOO_MANY_SERVICES,
            )
            return
        assert given.name is not None
        assert asked in (None, given.name)
        before = self.told.get(key)
        if asked is None and before is not None and before.name and self.kept(key):
            assert given.name == before.name
        self.tell(key, given)

    @rule(parts=key, low=st.sampled_from([1, 3]))
    def port(self, parts: tuple[str, str, str], low: int) -> None:
        key = self.make_key(parts)
        given = outcome(lambda: ported(self.world.directory, key, "tcp", low, low + 3, self.now))
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
        held = self.world.directory.get(key)
        if held is None or held.port is None:
            return
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
        token = self.world.tokens.revoke(name, self.now).id
        self.revoked.add(token)
        for held in self.world.directory.for_token(token):
            if held.name is not None and held.used >= self.now - RECLAIM_AFTER:
                self.lost[held.name] = token, self.now

    @invariant()
    def one_owner_each(self) -> None:
        directory = self.world.directory
        held = directory.for_token(self.world.a) + directory.for_token(self.world.b)
        names = [r.name for r in held if r.name is not None]
        ports = [r.port for r in held if r.port is not None]
        assert len(names) == len(set(names))
        assert len(ports) == len(set(ports))
        assert len(names) + len(ports) == len(held)

    @invariant()
    def nobody_lost_what_was_promised(self) -> None:
        for key, told in self.told.items():
            if self.kept(key):
                held = self.world.directory.get(key)
                assert held is not None
                assert (held.name, held.port) == (told.name, told.port)


def test_no_order_of_events_takes_from_an_owner_or_gives_twice() -> None:
    run_state_machine_as_test(
        Model, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
