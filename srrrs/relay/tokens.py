"""Tokens: who may open a tunnel.

A token reads `srrrs_<public id>_<secret>`. The public id names it in the database, in logs and
as the owner of reservations; the secret is 256 random bits, of which only the SHA-256 is kept (a
secret that cannot be guessed needs no slow hash). Both are lower-case base32 (RFC 4648, 6), so
that a token has one spelling, no ambiguous `_`, and is selected by a double click.

Rotation gives a token a new secret and keeps its public id. Old secrets stay good for new dials
until the grace ends; tunnels opened with one go on after that, for a tunnel and its reservations
belong to the public id. Only revocation and expiry end tunnels.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from srrrs.relay.scope import UNSCOPED, Scope
from srrrs.relay.store import Store

#: Seconds for which an old secret stays good after a rotation, unless said otherwise.
DEFAULT_GRACE: Final = 24 * 3600.0
#: Secrets kept of one token, lapsed ones (so that the log can tell them from guesses) among
#: them; a rotation beyond it forgets the oldest, in its grace or not.
MAX_SECRETS: Final = 8

_ID_LENGTH: Final = 10  # characters of base32: 50 bits
_SECRET_BYTES: Final = 32
_TEXT: Final = re.compile(r"srrrs_([a-z2-7]{10})_([a-z2-7]{52})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_NO_DIGEST: Final = bytes(hashlib.sha256().digest_size)


class TokenError(Exception):
    """A command about a token cannot be done; one line that says why, without any secret."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who showed a good token, and what may be published with it."""

    token_id: str
    name: str
    scope: Scope = field(default=UNSCOPED, compare=False)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; all times are seconds since the epoch."""

    id: str
    name: str
    created: float
    #: when it ends by itself; None: never
    expires: float | None
    #: when it was revoked; None: it was not
    revoked: float | None
    #: when it last let somebody in, as of the last :meth:`Tokens.flush`; None: never
    used: float | None
    #: until when secrets from before a rotation are good, a past time perhaps; None: no rotation
    grace_until: float | None
    #: what may be published with it
    scope: Scope = UNSCOPED

    def usable(self, now: float) -> bool:
        """Whether it lets anybody in at `now`."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class Tokens:
    """The tokens in a store. Nothing is cached: what another process changes counts at once.

    `now` is always the wall clock, in seconds since the epoch. Every method may raise
    :exc:`~srrrs.relay.store.StoreError`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._used: dict[str, float] = {}

    # -- for the `token` commands

    def create(
        self,
        name: str,
        now: float,
        expires: float | None = None,
        scope: Scope = UNSCOPED,
    ) -> tuple[Token, str]:
        """Make a token; `expires` is seconds from now (None: never).

        A token of that name which has expired makes room for the new one: it is revoked.

        :returns: what is known of it, and its text, which cannot be had again.
        :raises TokenError: the name is in use or no name, or `expires` is no time to come.
        """
        if not _NAME.fullmatch(name):
            raise TokenError(
                f"{name!r} is no name for a token: "
                "use 1 to 64 letters, digits, '.', '_', '@' or '-', a letter or digit first"
            )
        ends = _from_now(expires, now)
        with self._store.transaction():
            held = self._find(name)
            if held is not None:
                if held.usable(now):
                    raise TokenError(
                        f"there is a token named {name!r} already: choose another name, "
                        "or rotate or revoke that one"
                    )
                self._revoke(held.id, now)
            token_id = _random_id()
            while self._store.row("SELECT 1 FROM tokens WHERE id = ?", (token_id,)):
                token_id = _random_id()
            self._store.run(
                "INSERT INTO tokens (id, name, created, expires, hosts, ports) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    token_id,
                    name,
                    now,
                    ends,
                    " ".join(scope.host_texts()) or None,
                    " ".join(scope.port_texts()) or None,
                ),
            )
            secret = self._add_secret(token_id)
        return Token(token_id, name, now, ends, None, None, None, scope), _text(token_id, secret)

    def list(self, *, revoked: bool = False) -> tuple[Token, ...]:
        """All tokens by name, expired ones among them; on request the revoked ones too."""
        return self._select("" if revoked else "WHERE revoked IS NULL", ())

    def rotate(
        self,
        name: str,
        now: float,
        grace: float = DEFAULT_GRACE,
        expires: float | None = None,
    ) -> str:
        """Give a token a new secret; old ones are good for `grace` more seconds at most.

        `expires`, in seconds from now, sets a new end, which also renews an expired token; None
        leaves the end as it is.

        :returns: the token's new text, which cannot be had again.
        :raises TokenError: no such token, it has expired, or a time is out of range.
        """
        if not (math.isfinite(grace) and grace >= 0):
            raise TokenError("the grace must be 0 seconds or more")
        ends = _from_now(expires, now)
        with self._store.transaction():
            token = self._get(name)
            if ends is not None:
                self._store.run("UPDATE tokens SET expires = ? WHERE id = ?", (ends, token.id))
            elif not token.usable(now):
                raise TokenError(f"token {name!r} has expired: give it a new expiry to renew it")
            until = now + grace
            self._store.run(
                "UPDATE secrets SET until = min(coalesce(until, ?), ?) WHERE token_id = ?",
                (until, until, token.id),
            )
            self._store.run(
                "DELETE FROM secrets WHERE token_id = ? AND number NOT IN "
                "(SELECT number FROM secrets WHERE token_id = ? ORDER BY number DESC LIMIT ?)",
                (token.id, token.id, MAX_SECRETS - 1),
            )
            secret = self._add_secret(token.id)
        return _text(token.id, secret)

    def revoke(self, name: str, now: float, *, release: bool = False) -> Token:
        """End a token for good. Its ports are anybody's from then on, its names after a while.

        :param release: its names are, too, at once.
        :returns: the token as it was.
        :raises TokenError: no such token.
        """
        with self._store.transaction():
            token = self._get(name)
            self._revoke(token.id, now)
            if release:
                self._store.run("DELETE FROM reservations WHERE token_id = ?", (token.id,))
                self._store.run("DELETE FROM kept_names WHERE token_id = ?", (token.id,))
        return token

    # -- for the relay

    def check(self, text: str, now: float) -> Identity | None:
        """Who shows this token, or None; the time taken does not tell how good a guess was."""
        return self._judge(text, now)[0]

    def why(self, text: str, now: float) -> str:
        """Why :meth:`check` says None: for the relay's log, not for whoever showed the token."""
        return self._judge(text, now)[1]

    def valid(self, token_id: str, now: float) -> bool:
        """Whether tunnels of this token may go on (whichever of its secrets opened them)."""
        return any(token.usable(now) for token in self._select("WHERE id = ?", (token_id,)))

    def ended(self, token_ids: Iterable[str], now: float) -> set[str]:
        """Those of the ids whose tunnels must end; one query, however many there are."""
        rows = self._store.rows(
            "SELECT id FROM tokens WHERE revoked IS NULL AND (expires IS NULL OR expires > ?)",
            (now,),
        )
        return set(token_ids).difference(row[0] for row in rows)

    def next_expiry(self, now: float) -> float | None:
        """When the next token that is good now expires (seconds since the epoch), or None."""
        row = self._store.row(
            "SELECT min(expires) FROM tokens WHERE revoked IS NULL AND expires > ?", (now,)
        )
        return None if row is None else row[0]

    def any_usable(self, now: float) -> bool:
        """Whether anybody could get in at all: False on a first run."""
        row = self._store.row(
            "SELECT 1 FROM tokens WHERE revoked IS NULL AND (expires IS NULL OR expires > ?) "
            "LIMIT 1",
            (now,),
        )
        return row is not None

    def flush(self) -> None:
        """Write down when tokens were last used, in one transaction; cheap when none was."""
        if not self._used:
            return
        with self._store.transaction():
            self._store.run_many(
                "UPDATE tokens SET used = max(coalesce(used, 0), ?) WHERE id = ?",
                [(used, token_id) for token_id, used in self._used.items()],
            )
        self._used.clear()

    # -- private

    def _judge(self, text: str, now: float) -> tuple[Identity | None, str]:
        match = _TEXT.fullmatch(text)
        if match is None:
            return None, "not of the form srrrs_ID_SECRET"
        token_id, digest = match[1], _digest(match[2])
        known = self._store.rows(
            "SELECT digest, until FROM secrets WHERE token_id = ?", (token_id,)
        )
        # All are compared, a dummy at least, so that the time tells nothing.
        good = lapsed = False
        for expected, until in known or [(_NO_DIGEST, None)]:
            equal = hmac.compare_digest(digest, expected)
            good |= equal and (until is None or now < until)
            lapsed |= equal
        tokens = self._select("WHERE id = ?", (token_id,))
        if not known or not tokens:
            return None, f"no token has the id {token_id}"
        token = tokens[0]
        what = f"token {token.name!r} ({token.id})"
        if token.revoked is not None:
            return None, f"{what} was revoked"
        if not good:
            reason = "was rotated and this secret's grace is over" if lapsed else "wrong secret"
            return None, f"{what}: {reason}"
        if not token.usable(now):
            return None, f"{what} has expired"
        self._used[token.id] = now
        return Identity(token.id, token.name, token.scope), f"{what} is good"

    def _select(self, where: str, parameters: tuple[object, ...]) -> tuple[Token, ...]:
        rows = self._store.rows(
            "SELECT id, name, created, expires, revoked, used, "
            "(SELECT max(until) FROM secrets WHERE token_id = tokens.id), hosts, ports "
            f"FROM tokens {where} ORDER BY name, created",
            parameters,
        )
        return tuple(replace(Token(*row[:-2]), scope=_scope(*row[-2:])) for row in rows)

    def _find(self, name: str) -> Token | None:
        tokens = self._select("WHERE revoked IS NULL AND name = ?", (name,))
        return tokens[0] if tokens else None

    def _get(self, name: str) -> Token:
        token = self._find(name)
        if token is None:
            raise TokenError(f"there is no token named {name!r}")
        return token

    def _revoke(self, token_id: str, now: float) -> None:
        self._store.run("UPDATE tokens SET revoked = ? WHERE id = ?", (now, token_id))

    def _add_secret(self, token_id: str) -> str:
        secret = _base32(secrets.token_bytes(_SECRET_BYTES))
        self._store.run(
            "INSERT INTO secrets (token_id, digest) VALUES (?, ?)", (token_id, _digest(secret))
        )
        return secret


def _from_now(seconds: float | None, now: float) -> float | None:
    if seconds is None:
        return None
    if not (math.isfinite(seconds) and seconds > 0):
        raise TokenError("the expiry must be more than 0 seconds from now")
    return now + seconds


def _scope(hosts: str | None, ports: str | None) -> Scope:
    if hosts is None and ports is None:
        return UNSCOPED
    return Scope.parse((hosts or "").split(), (ports or "").split())


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _random_id() -> str:
    return _base32(secrets.token_bytes(7))[:_ID_LENGTH]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _text(token_id: str, secret: str) -> str:
    return f"srrrs_{token_id}_{secret}"
