"""Basic authentication of visitors: slow for a password that is new, quick for one known to be
right."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from srrrs.http.passwords import STAND_IN, credentials, verify
from srrrs.http.policy import Rate
from srrrs.relay.edge.rates import RateTable

AT_A_TIME: Final = 2
"""Passwords looked at side by side, each on a thread and in 16 MiB."""
WAITING: Final = 64
"""Passwords looked at, or waiting for that."""
TRIES: Final = Rate(10, 60.0, 10)
"""New passwords that one visitor's address may try at one service."""
REMEMBERED: Final = 16_384
"""Users whose right password is remembered, as a keyed digest."""

Run = Callable[[Callable[[], bool]], Deferred[bool]]


class TooManyTries(Exception):
    """:ivar wait: seconds until the next one."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


class Busy(Exception):
    """Too many passwords are looked at now."""


class SignIn:
    """Looks at passwords, for all services of a relay.

    :param run: calls what it is given on another thread.
    """

    _log = Logger()

    def __init__(self, run: Run, rates: RateTable) -> None:
        self._run = run
        self._rates = rates
        self._turns = DeferredSemaphore(AT_A_TIME)
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._looking: dict[bytes, list[Deferred[bool]]] = {}

    def check(
        self, users: Mapping[str, str], value: bytes, who: tuple[str, str], now: float
    ) -> bool | Deferred[bool]:
        """Whether an Authorization field is that of one of the users. The Deferred is cancellable,
        and never fails otherwise.

        :param users: names and hashes.
        :param who: the service and the visitor's address.
        :raises TooManyTries: the visitor has tried too many.
        :raises Busy: all threads have enough to do.
        """
        given = credentials(value)
        if given is None:
            return False
        user, password = given
        stored = users.get(user)
        compared = stored or STAND_IN
        digest = hmac.digest(self._key, compared.encode() + b"\0" + password, hashlib.sha256)
        right = self._right.get(compared)
        if right is not None and hmac.compare_digest(right, digest):
            return True
        waiters = self._looking.get(digest)
        if waiters is None:
            if len(self._looking) >= WAITING:
                raise Busy
            wait = self._rates.take(("tries", *who), TRIES, now)
            if wait:
                raise TooManyTries(wait)
            waiters = self._looking[digest] = []
            self._look(compared, password, digest, known=stored is not None)
            if digest not in self._looking:  # It was done at once.
                right = self._right.get(compared)
                return right is not None and hmac.compare_digest(right, digest)
        waiter: Deferred[bool] = Deferred(waiters.remove)
        waiters.append(waiter)
        return waiter

    def _look(self, stored: str, password: bytes, digest: bytes, *, known: bool) -> None:
        def done(same: bool) -> None:
            self._tell(stored, digest, known and same)

        def failed(failure: object) -> None:
            self._log.failure("a password could not be looked at", failure)  # type: ignore[arg-type]
            self._tell(stored, digest, False)

        # It goes on, and holds its turn, also where nobody waits for it any more: else whoever asks
        # and leaves would have more than AT_A_TIME.
        self._turns.run(self._run, lambda: verify(stored, password)).addCallbacks(done, failed)

    def _tell(self, stored: str, digest: bytes, right: bool) -> None:
        if right:
            self._right.pop(stored, None)
            self._right[stored] = digest
            if len(self._right) > REMEMBERED:
                del self._right[next(iter(self._right))]
        waiters = self._looking.pop(digest)
        while waiters:  # What one does may cancel another.
            waiters.pop(0).callback(right)
