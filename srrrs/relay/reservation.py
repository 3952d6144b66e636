"""What a service owns: a name or a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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
