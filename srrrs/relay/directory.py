"""Reservations: who owns which public name or port.

A reservation belongs to a key: (token id, instance, service name), or for a service that several
agents share (token id, no instance, name and path). It is made when the service is first registered
and then survives reconnects and restarts of both ends. A name belongs to one token; under it each
path, and what is passed on as TLS, belongs to one key. Nobody else is given a name or port, except:

* when it has been unused for 90 days and its service is not live, then whoever asks for that very
  name, or meets exhaustion, may have it (oldest first);
* when its token was revoked: a port at once, a name after 30 days;
* a service that changes from HTTP to TCP, or asks for another name, gives up what it had; its last
  token may have the name at once, others after 30 days.

A name once given stays when the service later asks for none.

A name is a label under the relay's domain (:mod:`srrrs.relay.names`) or a whole host,
which has a dot in it.

Looking up what is reserved already writes nothing; when it was last used is noted in memory and
written by :meth:`Directory.flush`. A new reservation is one commit. To make many in one commit,
wrap the calls in `store.transaction()`, and promise nothing before that block has ended.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Final

from srrrs.relay.kept import KEEP_FOR, KeptNames, kept_from_others
from srrrs.relay.names import RESERVED_LABELS, Names, check_name
from srrrs.relay.refusal import RETRY_EXHAUSTED, Refusal, RefusalCode, unavailable
from srrrs.relay.reservation import Key, Reservation, Reservations
from srrrs.relay.scope import PortRange, format_ports
from srrrs.relay.store import Store, StoreError

#: Seconds without use after which a reservation may be given to somebody else.
RECLAIM_AFTER: Final = 90 * 86400.0
#: Seconds by which the time of last use in the database may lag: rewriting it at every reconnect
#: of every agent would be most of what the relay writes.
USED_GRAIN: Final = 3600.0

#: Seconds for which a new reservation is not given up to a service that shares the name, or no
#: longer does: its own service may be about to be live.
_SETTLED: Final = 1.0
_NAME_TRIES: Final = 16
_PORT_TRIES: Final = 8


class Directory:
    """The reservations in a store. Nothing is cached: the database is the truth.

    One relay at a time reserves (a key that two processes reserve at the same moment gets the
    later one's answer); that no two keys share a name or port, the database itself sees to.

    `now` is always the wall clock, in seconds since the epoch. Failures of the database are
    refusals (`UNAVAILABLE`, with the StoreError as `__cause__`) from the `reserve_…` methods and
    :exc:`~srrrs.relay.store.StoreError` from the others.

    :param reserved: more labels that are never given.
    :param per_token: the most reservations that one token may hold, live or not.
    :param live: whether the service of a key is live now: it is never reclaimed then.
    :param rng: chooses names and ports; the system's generator when none is given.
    """

    def __init__(
        self,
        store: Store,
        *,
        per_token: int,
        reserved: Collection[str] = (),
        live: Callable[[Key], bool] = lambda key: False,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._per_token = per_token
        self._reserved = RESERVED_LABELS.union(reserved)
        self._live = live
        self._rng = rng if rng is not None else random.SystemRandom()
        self._names = Names(self._rng)
        self._kept = KeptNames(store)
        self._rows = Reservations(store)
        self._used: dict[Key, float] = {}

    def kept_name(
        self, key: Key, kind: str, asked: str | None, path: str, now: float
    ) -> Reservation | None:
        """What :meth:`reserve_name` gives where the service has it already: nothing is written.

        :raises Refusal: the name cannot be given, or the database cannot be read.
        """
        if asked is not None:
            check_name(asked, self._reserved)
        try:
            held = self._rows.get(key)
        except StoreError as error:
            raise unavailable() from error
        if held is None or not self._keeps_name(held, kind, asked, path):
            return None
        return self._note(held, now)

    def kept_port(
        self, key: Key, kind: str, ranges: Sequence[PortRange], now: float
    ) -> Reservation | None:
        """The same for :meth:`reserve_port`."""
        try:
            held = self._rows.get(key)
        except StoreError as error:
            raise unavailable() from error
        if held is None or held.kind != kind or not _in(held.port, ranges):
            return None
        return self._note(held, now)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is reserved inside is written with one commit, or none of it.

        Nothing of it may be promised to anybody before the block has ended. A refusal inside, if
        caught there, leaves the others alone.

        :raises Refusal: it cannot be written.
        """
        try:
            with self._store.transaction():
                yield
        except StoreError as error:
            raise unavailable() from error

    def reserve_name(
        self, key: Key, kind: str, asked: str | None, path: str, now: float
    ) -> Reservation:
        """The name of an HTTP or TLS service: the one asked for, else the one it has, else a new
        one.

        :param kind: "http" or "tls".
        :param asked: a label, or a whole host; None: any.
        :param path: what paths of requests begin with; empty: any.
        :raises Refusal: always, rather than another name than the one asked for.
        """
        if asked is not None:
            check_name(asked, self._reserved)
        try:
            held = self._rows.get(key)
            if held is not None and self._keeps_name(held, kind, asked, path):
                return self._note(held, now)
            with self._store.transaction():
                self._check_room(key, held, now)
                name = self._free_label(key, now) if asked is None else asked
                if asked is not None:
                    self._take_name(key, kind, asked, path, now)
                return self._put(key, held, kind, name, path, None, now)
        except StoreError as error:
            raise unavailable() from error

    def reserve_port(
        self,
        key: Key,
        kind: str,
        ranges: Sequence[PortRange],
        now: float,
        exclude: Collection[int] = (),
    ) -> Reservation:
        """The port of a TCP service: the one it has, else a random free one of the ranges.

        A port outside of them (they were changed) is replaced, and the answer says so.

        :param kind: "tcp" or "ssh"; a service may go from one to the other with its port.
        :param ranges: lowest and highest of each; they do not overlap.
        :param exclude: ports not to choose now. One held already stays, even if it is among
            them: that a port is busy at the moment is reported, and no reason for another one.
        :raises Refusal: when there is no room.
        """
        try:
            held = self._rows.get(key)
            if held is not None and _in(held.port, ranges):
                if held.kind != kind:
                    with self._store.transaction():
                        held = self._rows.set_kind(held, kind)
                return self._note(held, now)
            with self._store.transaction():
                self._check_room(key, held, now)
                port = self._free_port(ranges, now, exclude)
                return self._put(key, held, kind, None, "", port, now)
        except StoreError as error:
            raise unavailable() from error

    def get(self, key: Key) -> Reservation | None:
        """What a service holds; its use is not noted."""
        return self._rows.get(key)

    def by_name(self, name: str, tls: bool = False) -> list[Reservation]:
        """What is reserved under a name: with each path, or of what is passed on as TLS."""
        return [
            replace(each, used=self._last_use(each))
            for each in self._rows.named(name)
            if (each.kind == "tls") == tls
        ]

    def by_port(self, port: int) -> Reservation | None:
        """Who owns a port."""
        return self._rows.of_port(port)

    def for_token(self, token_id: str) -> list[Reservation]:
        """All that one token holds, by instance and service."""
        return self._rows.of_token(token_id)

    def release(self, key: Key) -> bool:
        """Give up a port that nobody was told of; whether there was one. A service that stops keeps
        its own."""
        with self._store.transaction():
            return self._delete(key)

    def touch(self, keys: Iterable[Key], now: float) -> None:
        """Note that services are in use; :meth:`flush` writes it down.

        Each `reserve_…` notes it by itself; a service that stays live for days needs this from
        time to time.
        """
        for key in keys:
            self._used[key] = now

    def flush(self, limit: int = 1000) -> int:
        """Write down up to `limit` noted uses, in one transaction; how many are left.

        Times that would move by less than an hour are not written.
        """
        some = dict(islice(self._used.items(), limit))
        if some:
            with self._store.transaction():
                self._rows.set_used(some, USED_GRAIN)
            for key in some:
                del self._used[key]
        return len(self._used)

    # -- names

    def _keeps_name(self, held: Reservation, kind: str, asked: str | None, path: str) -> bool:
        if held.name is None or held.kind != kind or held.path != path:
            return False
        if asked is not None:
            return held.name == asked
        return "." not in held.name and held.name not in self._reserved

    def _take_name(self, key: Key, kind: str, name: str, path: str, now: float) -> None:
        """See to it that nobody else holds what is asked for, or refuse."""
        for holder in self._rows.named(name):
            same = (holder.kind == "tls", holder.path) == (kind == "tls", path)
            ours = holder.key.token_id == key.token_id
            if holder.key == key or (ours and not same):
                continue
            if self._reclaimable(holder, now) or (ours and self._gives_way(holder, key, now)):
                self._delete(holder.key)
            else:
                raise self._taken(holder, key, name + path)
        self._kept.check(name, key.token_id, now)

    def _gives_way(self, holder: Reservation, key: Key, now: float) -> bool:
        """Whether one that is shared is to be one that is not, or the other way round."""
        if holder.key.shared == key.shared or holder.created > now - _SETTLED:
            return False
        return not self._live(holder.key)

    def _taken(self, holder: Reservation, key: Key, what: str) -> Refusal:
        mine = holder.key.token_id == key.token_id
        revoked = None if mine else self._revoked(holder.key.token_id)
        if revoked is not None:
            return kept_from_others(holder.name or "", revoked)
        hint = "choose another name"
        if not mine:
            whom = "another token"
        elif holder.key.shared:
            whom, hint = "agents of this token that share it", "give this one --share, too"
        elif holder.key.instance != key.instance and not key.shared:
            whom = f"instance {holder.key.instance} of this token"
        elif key.shared:
            whom = f"instance {holder.key.instance} of this token, which does not share it"
        else:
            whom = f"service {holder.key.service!r} of this agent"
        since = time.strftime("%Y-%m-%d", time.gmtime(holder.created))
        return Refusal(
            RefusalCode.NAME_TAKEN,
            f"the name {what!r} has been held by {whom} since {since}; {hint}",
        )

    def _free_label(self, key: Key, now: float) -> str:
        for _ in range(_NAME_TRIES):
            label = self._names.make()
            if label in self._reserved:
                continue
            holders = self._rows.named(label)
            if all(self._reclaimable(holder, now) for holder in holders):
                try:
                    self._kept.check(label, key.token_id, now)
                except Refusal:
                    continue
                for holder in holders:
                    self._delete(holder.key)
                return label
        raise Refusal(
            RefusalCode.NAMES_EXHAUSTED, "no free name was found; try again", RETRY_EXHAUSTED
        )

    # -- ports

    def _free_port(self, ranges: Sequence[PortRange], now: float, exclude: Collection[int]) -> int:
        for _ in range(_PORT_TRIES):
            port = self._rng.randint(*self._rng.choice(ranges))
            if port not in exclude and self.by_port(port) is None:
                return port
        free: list[int] = []
        for low, high in ranges:
            free += set(range(low, high + 1)).difference(self._rows.ports(low, high), exclude)
        if free:
            return self._rng.choice(sorted(free))
        oldest = [
            holder
            for each in ranges
            for holder in self._reclaim(self._rows.stale_ports(*each, now - RECLAIM_AFTER), now)
            if holder.port not in exclude
        ]
        if oldest:
            holder = min(oldest, key=lambda each: each.used)
            self._delete(holder.key)
            assert holder.port is not None
            return holder.port
        raise Refusal(
            RefusalCode.PORTS_EXHAUSTED,
            f"all ports of {', '.join(map(format_ports, ranges))} are taken",
            RETRY_EXHAUSTED,
        )

    # -- both

    def _check_room(self, key: Key, held: Reservation | None, now: float) -> None:
        """Make room for one more reservation of the token, or refuse."""
        if held is not None:
            return
        count = self._rows.count(key.token_id)
        if count < self._per_token:
            return
        stale = self._rows.stale_of_token(key.token_id, now - RECLAIM_AFTER)
        for holder in self._reclaim(stale, now):
            self._delete(holder.key)
            return
        raise Refusal(
            RefusalCode.TOO_MANY_SERVICES,
            f"this token holds {count} services, and the relay's limit is {self._per_token}",
            RETRY_EXHAUSTED,
        )

    def _put(
        self,
        key: Key,
        held: Reservation | None,
        kind: str,
        name: str | None,
        path: str,
        port: int | None,
        now: float,
    ) -> Reservation:
        made = Reservation(key, kind, name, path, port, now, now)
        self._rows.put(made)
        if name is not None:
            self._kept.take(name)
        replaced = None if held is None else (held.name or held.port)
        if isinstance(replaced, str) and not self._rows.named(replaced):
            self._kept.keep(replaced, key.token_id, now)
        return replace(made, new=True, replaced=replaced)

    def _reclaimable(self, holder: Reservation, now: float) -> bool:
        if self._live(holder.key):
            return False
        if self._last_use(holder) < now - RECLAIM_AFTER:
            return True
        revoked = self._revoked(holder.key.token_id)
        return revoked is not None and (holder.name is None or revoked <= now - KEEP_FOR)

    def _last_use(self, holder: Reservation) -> float:
        return max(holder.used, self._used.get(holder.key, holder.used))

    def _revoked(self, token_id: str) -> float | None:
        """When a token was revoked; None: it was not."""
        row = self._store.row("SELECT revoked FROM tokens WHERE id = ?", (token_id,))
        return 0.0 if row is None else row[0]

    def _reclaim(self, stale: Iterable[Reservation], now: float) -> list[Reservation]:
        """Those that may be reclaimed, the longest unused first."""
        return [holder for holder in stale if self._reclaimable(holder, now)]

    def _note(self, held: Reservation, now: float) -> Reservation:
        if held.used < now - USED_GRAIN:
            self._used[held.key] = now
        return held

    def _delete(self, key: Key) -> bool:
        self._used.pop(key, None)
        return self._rows.delete(key)


def _in(port: int | None, ranges: Sequence[PortRange]) -> bool:
    return port is not None and any(low <= port <= high for low, high in ranges)
