"""Reservations: who owns which public name or port.

A reservation belongs to a key: (token id, instance, service name). It is made when the service
is first registered and then survives reconnects and restarts of both ends. Nobody else is given
its name or port, except:

* when it has been unused for 90 days, or its token was revoked, and its service is not live, then
  whoever asks for that very name, or meets exhaustion, may have it (oldest first);
* a service that changes from HTTP to TCP, or asks for another name, gives up what it had.

A name once given stays when the service later asks for none.

Names are one DNS label: 1 to 63 of a-z, 0-9 and hyphen, no hyphen at either end (RFC 1123, 2.1).
Labels with hyphens in the third and fourth place are refused (RFC 5890, 2.3.1: among them "xn--",
which would let a tenant take a name that only looks like another's); so are capitals, for a name
is never replaced by another spelling of it.

Looking up what is reserved already writes nothing; when it was last used is noted in memory and
written by :meth:`Directory.flush`. A new reservation is one commit. To make many in one commit,
wrap the calls in `store.transaction()`, and promise nothing before that block has ended.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

from srrrs.relay.names import Names
from srrrs.relay.store import Row, Store, StoreError

#: Seconds without use after which a reservation may be given to somebody else.
RECLAIM_AFTER: Final = 90 * 86400.0
#: Seconds by which the time of last use in the database may lag: rewriting it at every reconnect
#: of every agent would be most of what the relay writes.
USED_GRAIN: Final = 3600.0
#: Labels never given to a service: the control host is `relay.<domain>`.
RESERVED_LABELS: Final = frozenset({"relay"})
#: Seconds after which a refusal for want of room is worth another try.
RETRY_EXHAUSTED: Final = 600.0
#: Seconds after which a refusal for a failing database is worth another try.
RETRY_UNAVAILABLE: Final = 30.0

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME_TRIES: Final = 16
_PORT_TRIES: Final = 8
_COLUMNS: Final = "token_id, instance, service, kind, label, port, created, used"
_WHERE_KEY: Final = "token_id = ? AND instance = ? AND service = ?"
_HTTP: Final = "http"


class Key(NamedTuple):
    """Whom a reservation belongs to."""

    token_id: str
    instance: str
    service: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """A public name (`label`) or a `port`, one of the two; times are seconds since the epoch."""

    key: Key
    kind: str
    label: str | None
    port: int | None
    created: float
    used: float
    #: made by this very call, so that it may be released again if it turns out to be unusable
    new: bool = False
    #: the name or port that the same service had before this call, when it has another one now
    replaced: str | int | None = None


class RefusalCode(StrEnum):
    """Why a service is not registered; `HELD` to `PORT_BUSY` are the registrar's reasons."""

    NAME_INVALID = "name-invalid"
    NAME_RESERVED = "name-reserved"
    NAME_TAKEN = "name-taken"
    NAMES_EXHAUSTED = "names-exhausted"
    PORTS_EXHAUSTED = "ports-exhausted"
    TOO_MANY_SERVICES = "too-many-services"
    UNAVAILABLE = "unavailable"
    HELD = "held"
    DUPLICATE = "duplicate"
    PORT_BUSY = "port-busy"


class Refusal(Exception):
    """No reservation, and why.

    :ivar retry: seconds after which asking again may help; None: it cannot heal by itself.
    """

    def __init__(self, code: RefusalCode, message: str, retry: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry


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
        self._used: dict[Key, float] = {}

    def kept_http(self, key: Key, asked: str | None, now: float) -> Reservation | None:
        """What :meth:`reserve_http` gives where the service has it already: nothing is written.

        :raises Refusal: the name cannot be given, or the database cannot be read.
        """
        if asked is not None:
            self._check_label(asked)
        try:
            held = self._get(key)
        except StoreError as error:
            raise _unavailable() from error
        if held is None or not self._keeps_label(held, asked):
            return None
        return self._note(held, now)

    def kept_port(self, key: Key, kind: str, low: int, high: int, now: float) -> Reservation | None:
        """The same for :meth:`reserve_port`."""
        try:
            held = self._get(key)
        except StoreError as error:
            raise _unavailable() from error
        if held is None or held.kind != kind or held.port is None or not low <= held.port <= high:
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
            raise _unavailable() from error

    def reserve_http(self, key: Key, asked: str | None, now: float) -> Reservation:
        """The name of an HTTP service: the one asked for, else the one it has, else a new one.

        :raises Refusal: always, rather than another name than the one asked for.
        """
        if asked is not None:
            self._check_label(asked)
        try:
            held = self._get(key)
            if held is not None and self._keeps_label(held, asked):
                return self._note(held, now)
            with self._store.transaction():
                self._check_room(key, held, now)
                label = self._free_label(now) if asked is None else asked
                if asked is not None:
                    self._take_label(key, asked, now)
                return self._put(key, held, _HTTP, label, None, now)
        except StoreError as error:
            raise _unavailable() from error

    def reserve_port(
        self,
        key: Key,
        kind: str,
        low: int,
        high: int,
        now: float,
        exclude: Collection[int] = (),
    ) -> Reservation:
        """The port of a TCP service: the one it has, else a random free one in low-high.

        A port outside of low-high (the range was changed) is replaced, and the answer says so.

        :param kind: "tcp" or "ssh"; a service may go from one to the other with its port.
        :param exclude: ports not to choose now. One held already stays, even if it is among
            them: that a port is busy at the moment is reported, and no reason for another one.
        :raises Refusal: when there is no room.
        """
        try:
            held = self._get(key)
            if held is not None and held.port is not None and low <= held.port <= high:
                if held.kind != kind:
                    held = self._set_kind(held, kind)
                return self._note(held, now)
            with self._store.transaction():
                self._check_room(key, held, now)
                port = self._free_port(low, high, now, exclude)
                return self._put(key, held, kind, None, port, now)
        except StoreError as error:
            raise _unavailable() from error

    def get(self, key: Key) -> Reservation | None:
        """What a service holds; its use is not noted."""
        return self._get(key)

    def by_label(self, label: str) -> Reservation | None:
        """Who owns a name."""
        return self._first("label = ?", (label,))

    def by_port(self, port: int) -> Reservation | None:
        """Who owns a port."""
        return self._first("port = ?", (port,))

    def for_token(self, token_id: str) -> list[Reservation]:
        """All that one token holds, by instance and service."""
        return self._select("token_id = ? ORDER BY instance, service", (token_id,))

    def release(self, key: Key) -> bool:
        """Give up a reservation; whether there was one. A service that stops keeps its own."""
        self._used.pop(key, None)
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
                self._store.run_many(
                    f"UPDATE reservations SET used = ? WHERE {_WHERE_KEY} AND used < ?",
                    [(used, *key, used - USED_GRAIN) for key, used in some.items()],
                )
            for key in some:
                del self._used[key]
        return len(self._used)

    # -- labels

    def _check_label(self, label: str) -> None:
        if not _LABEL.fullmatch(label):
            raise Refusal(
                RefusalCode.NAME_INVALID,
                f"{_shown(label)} cannot be a name: use 1 to 63 lower-case letters, digits and "
                "hyphens, none at either end",
            )
        if label[2:4] == "--":
            raise Refusal(
                RefusalCode.NAME_INVALID,
                f"{_shown(label)} cannot be a name: hyphens in the third and fourth place are "
                "kept for internationalized names",
            )
        if label in self._reserved:
            raise Refusal(
                RefusalCode.NAME_RESERVED,
                f"the name {label!r} belongs to the relay; choose another name",
            )

    def _keeps_label(self, held: Reservation, asked: str | None) -> bool:
        if asked is not None:
            return held.label == asked
        return held.label is not None and held.label not in self._reserved

    def _take_label(self, key: Key, label: str, now: float) -> None:
        """See to it that nobody else holds the label, or refuse."""
        holder = self.by_label(label)
        if holder is None or holder.key == key:
            return
        if self._reclaimable(holder, now):
            self._delete(holder.key)
            return
        if holder.key.token_id != key.token_id:
            whom = "another token"
        elif holder.key.instance != key.instance:
            whom = f"instance {holder.key.instance} of this token"
        else:
            whom = f"service {holder.key.service!r} of this agent"
        since = time.strftime("%Y-%m-%d", time.gmtime(holder.created))
        raise Refusal(
            RefusalCode.NAME_TAKEN,
            f"the name {label!r} has been held by {whom} since {since}; choose another name",
        )

    def _free_label(self, now: float) -> str:
        for _ in range(_NAME_TRIES):
            label = self._names.make()
            if label in self._reserved:
                continue
            holder = self.by_label(label)
            if holder is None:
                return label
            if self._reclaimable(holder, now):
                self._delete(holder.key)
                return label
        raise Refusal(
            RefusalCode.NAMES_EXHAUSTED, "no free name was found; try again", RETRY_EXHAUSTED
        )

    # -- ports

    def _free_port(self, low: int, high: int, now: float, exclude: Collection[int]) -> int:
        for _ in range(_PORT_TRIES):
            port = self._rng.randint(low, high)
            if port not in exclude and self.by_port(port) is None:
                return port
        taken = {
            row[0]
            for row in self._store.rows(
                "SELECT port FROM reservations WHERE port BETWEEN ? AND ?", (low, high)
            )
        }
        free = [port for port in range(low, high + 1) if port not in taken and port not in exclude]
        if free:
            return self._rng.choice(free)
        for holder in self._oldest("port BETWEEN ? AND ?", (low, high), now):
            if holder.port is not None and holder.port not in exclude:
                self._delete(holder.key)
                return holder.port
        raise Refusal(
            RefusalCode.PORTS_EXHAUSTED,
            f"all ports of the relay's range {low}-{high} are taken",
            RETRY_EXHAUSTED,
        )

    # -- both

    def _check_room(self, key: Key, held: Reservation | None, now: float) -> None:
        """Make room for one more reservation of the token, or refuse."""
        if held is not None:
            return
        row = self._store.row(
            "SELECT count(*) FROM reservations WHERE token_id = ?", (key.token_id,)
        )
        if row is None or row[0] < self._per_token:
            return
        for holder in self._oldest("token_id = ?", (key.token_id,), now):
            self._delete(holder.key)
            return
        raise Refusal(
            RefusalCode.TOO_MANY_SERVICES,
            f"this token holds {row[0]} services, and the relay's limit is {self._per_token}",
            RETRY_EXHAUSTED,
        )

    def _put(
        self,
        key: Key,
        held: Reservation | None,
        kind: str,
        label: str | None,
        port: int | None,
        now: float,
    ) -> Reservation:
        self._store.run(
            f"INSERT INTO reservations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (token_id, instance, service) DO UPDATE SET kind = excluded.kind, "
            "label = excluded.label, port = excluded.port, created = excluded.created, "
            "used = excluded.used",
            (*key, kind, label, port, now, now),
        )
        replaced = None if held is None else (held.label or held.port)
        return Reservation(key, kind, label, port, now, now, new=True, replaced=replaced)

    def _set_kind(self, held: Reservation, kind: str) -> Reservation:
        with self._store.transaction():
            self._store.run(
                f"UPDATE reservations SET kind = ? WHERE {_WHERE_KEY}", (kind, *held.key)
            )
        return replace(held, kind=kind)

    def _reclaimable(self, holder: Reservation, now: float) -> bool:
        if self._live(holder.key):
            return False
        used = max(holder.used, self._used.get(holder.key, holder.used))
        if used < now - RECLAIM_AFTER:
            return True
        return (
            self._store.row(
                "SELECT 1 FROM tokens WHERE id = ? AND revoked IS NULL", (holder.key.token_id,)
            )
            is None
        )

    def _oldest(self, where: str, parameters: tuple[object, ...], now: float) -> list[Reservation]:
        """The reservations that may be reclaimed, the longest unused first."""
        candidates = self._select(
            f"{where} AND (used < ? OR token_id NOT IN (SELECT id FROM tokens WHERE revoked IS "
            "NULL)) ORDER BY used",
            (*parameters, now - RECLAIM_AFTER),
        )
        return [holder for holder in candidates if self._reclaimable(holder, now)]

    def _note(self, held: Reservation, now: float) -> Reservation:
        if held.used < now - USED_GRAIN:
            self._used[held.key] = now
        return held

    def _delete(self, key: Key) -> bool:
        self._used.pop(key, None)
        return self._store.run(f"DELETE FROM reservations WHERE {_WHERE_KEY}", key) > 0

    def _get(self, key: Key) -> Reservation | None:
        return self._first(_WHERE_KEY, key)

    def _first(self, where: str, parameters: tuple[object, ...]) -> Reservation | None:
        found = self._select(where, parameters)
        return found[0] if found else None

    def _select(self, where: str, parameters: tuple[object, ...]) -> list[Reservation]:
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM reservations WHERE {where}", parameters)
        return [_reservation(row) for row in rows]


def _reservation(row: Row) -> Reservation:
    return Reservation(Key(*row[:3]), *row[3:])


def _shown(label: str) -> str:
    return repr(label if len(label) <= 63 else label[:60] + "...")


def _unavailable() -> Refusal:
    return Refusal(
        RefusalCode.UNAVAILABLE, "the relay cannot reserve anything now", RETRY_UNAVAILABLE
    )
