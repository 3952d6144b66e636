"""Names that were given up, and are kept from other tokens for a while: links, bookmarks and
cookies still lead there."""

from __future__ import annotations

import time
from typing import Final

from srrrs.relay.refusal import Refusal, RefusalCode
from srrrs.relay.store import Store

#: Seconds for which nobody but its last token gets a name that was given up or whose token was
#: revoked.
KEEP_FOR: Final = 30 * 86400.0
#: Names kept that way for one token; of more, the oldest are anybody's.
MOST_KEPT: Final = 1024


class KeptNames:
    """The names given up, in a store. `now` is the wall clock, in seconds since the epoch.

    Every method may raise :exc:`~srrrs.relay.store.StoreError`; what writes, is to be called in a
    transaction.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(self, name: str, token_id: str, now: float) -> None:
        """A token gave a name up."""
        self._store.run(
            "INSERT INTO kept_names (name, token_id, since) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET token_id = excluded.token_id, since = excluded.since",
            (name, token_id, now),
        )
        self._store.run("DELETE FROM kept_names WHERE since <= ?", (now - KEEP_FOR,))
        self._store.run(
            "DELETE FROM kept_names WHERE token_id = ? AND name NOT IN (SELECT name FROM "
            "kept_names WHERE token_id = ? ORDER BY since DESC LIMIT ?)",
            (token_id, token_id, MOST_KEPT),
        )

    def check(self, name: str, token_id: str, now: float) -> None:
        """Whether a token may have a name that nobody has.

        :raises Refusal: another gave it up not long ago.
        """
        row = self._store.row(
            "SELECT since FROM kept_names WHERE name = ? AND token_id <> ?", (name, token_id)
        )
        if row is not None and row[0] > now - KEEP_FOR:
            raise kept_from_others(name, row[0])

    def take(self, name: str) -> None:
        """Somebody has it now."""
        self._store.run("DELETE FROM kept_names WHERE name = ?", (name,))


def kept_from_others(name: str, since: float) -> Refusal:
    """The refusal of a name that was another token's until `since`."""
    until = time.strftime("%Y-%m-%d", time.gmtime(since + KEEP_FOR))
    return Refusal(
        RefusalCode.NAME_KEPT,
        f"the name {name!r} was another token's and is kept from others until {until}; "
        "choose another name",
    )
