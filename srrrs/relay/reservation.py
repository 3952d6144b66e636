"""What a service owns: a name or a port, and the table that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from srrrs.relay.store import Store

_COLUMNS: Final = "token_id, instance, service, kind, name, path, port, created, used"
_WHERE_KEY: Final = "token_id = ? AND instance = ? AND service = ?"
_STALE: Final = (
    "(used < ? OR token_id NOT IN (SELECT id FROM tokens WHERE revoked IS NULL)) ORDER BY used"
)


class Key(NamedTuple):
    """Whom a reservation belongs to.

    ``instance`` is empty where several agents of the token may serve it (:func:`shared_key`).
    """

    token_id: str
    instance: str
    service: str

    @property
    def shared(self) -> bool:
        """Whether several agents may serve it."""
        return not self.instance


def shared_key(token_id: str, kind: str, name: str, path: str) -> Key:
    """The key of a service that several agents share: whatever they call it, and wherever they are,
    it is one service by its name and path."""
    return Key(token_id, "", f"{'tls:' if kind == 'tls' else ''}{name}{path}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A public name or a port, one of the two; times are seconds since the epoch.

    :ivar name: a label under the relay's domain, or a whole host, which has a dot in it.
    :ivar path: what paths of requests begin with; empty: any.
    :ivar new: made by this very call, so that it may be released again if it turns out to be
        unusable.
    :ivar replaced: the name or port that the same service had before this call, when it has
        another one now.
    """

    key: Key
    kind: str
    name: str | None
    path: str
    port: int | None
    created: float
    used: float
    new: bool = False
    replaced: str | int | None = None


class Reservations:
    """The reservations in a store. Every method may raise
    :exc:`~srrrs.relay.store.StoreError`; what writes, is to be called in a transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: Key) -> Reservation | None:
        """What a service holds."""
        return next(iter(self._select(_WHERE_KEY, key)), None)

    def named(self, name: str) -> list[Reservation]:
        """What is reserved under a name."""
        return self._select("name = ?", (name,))

    def of_port(self, port: int) -> Reservation | None:
        """Who holds a port."""
        return next(iter(self._select("port = ?", (port,))), None)

    def of_token(self, token_id: str) -> list[Reservation]:
        """All that one token holds, by instance and service."""
        return self._select("token_id = ? ORDER BY instance, service", (token_id,))

    def count(self, token_id: str) -> int:
        """How many that are."""
        rows = self._store.rows("SELECT count(*) FROM reservations WHERE token_id = ?", (token_id,))
        number: int = rows[0][0]
        return number

    def ports(self, low: int, high: int) -> set[int]:
        """The ports from ``low`` to ``high`` that somebody holds."""
        rows = self._store.rows(
            "SELECT port FROM reservations WHERE port BETWEEN ? AND ?", (low, high)
        )
        return {row[0] for row in rows}

    def stale_ports(self, low: int, high: int, before: float) -> list[Reservation]:
        """Of ports, those unused since ``before`` or of no good token, the longest unused first."""
        return self._select(f"port BETWEEN ? AND ? AND {_STALE}", (low, high, before))

    def stale_of_token(self, token_id: str, before: float) -> list[Reservation]:
        """The same of a token's."""
        return self._select(f"token_id = ? AND {_STALE}", (token_id, before))

    def put(self, made: Reservation) -> None:
        """Write one, in the place of what its service held."""
        self._store.run(
            f"INSERT INTO reservations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (token_id, instance, service) DO UPDATE SET kind = excluded.kind, "
            "name = excluded.name, path = excluded.path, port = excluded.port, "
            "created = excluded.created, used = excluded.used",
            (*made.key, made.kind, made.name, made.path, made.port, made.created, made.used),
        )

    def set_kind(self, held: Reservation, kind: str) -> Reservation:
        """The same reservation, of another kind."""
        self._store.run(f"UPDATE reservations SET kind = ? WHERE {_WHERE_KEY}", (kind, *held.key))
        return replace(held, kind=kind)

    def set_used(self, uses: Mapping[Key, float], grain: float) -> None:
        """Write when services were last used, where that moves by ``grain`` seconds or more."""
        self._store.run_many(
            f"UPDATE reservations SET used = ? WHERE {_WHERE_KEY} AND used < ?",
            [(used, *key, used - grain) for key, used in uses.items()],
        )

    def delete(self, key: Key) -> bool:
        """Whether there was one."""
        return self._store.run(f"DELETE FROM reservations WHERE {_WHERE_KEY}", key) > 0

    def _select(self, where: str, parameters: tuple[object, ...]) -> list[Reservation]:
        rows = self._store.rows(f"SELECT {_COLUMNS} FROM reservations WHERE {where}", parameters)
        return [Reservation(Key(*row[:3]), *row[3:]) for row in rows]
