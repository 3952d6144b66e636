"""Each visitor held against what the agent asked for its service, within what the relay allows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime

from srrrs.addresses import parse_address
from srrrs.http.policy import ALL_ASKS, Edit, Network, Policy, PolicyError, Rate, decode
from srrrs.net.accept import address_key
from srrrs.relay.edge.pages import RETRY_AFTER, Answer, Pages
from srrrs.relay.edge.rates import RateTable
from srrrs.relay.edge.signin import Busy, Run, SignIn, TooManyTries

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
FieldList: TypeAlias = list[tuple[bytes, bytes]]

ADDRESSES_KEPT: Final = 1024
"""Addresses for which a gatekeeper remembers what its lists say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBounds:
    """What the relay's owner says for all services.

    :ivar asks: what agents may ask for; a service that asks for more is refused.
    :ivar deny: networks whose visitors get nowhere.
    :ivar rate: of each visitor's address, at all services together.
    """

    asks: frozenset[str] = frozenset(ALL_ASKS)
    deny: tuple[Network, ...] = ()
    rate: Rate | None = None


class Policies:
    """Makes the gatekeepers of a relay's services. What they count outlives a reconnect.

    :param run: calls what it is given on another thread.
    :param pages: what turned-away visitors see.
    """

    def __init__(
        self,
        clock: IReactorTime,
        run: Run,
        bounds: PolicyBounds | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.bounds = PolicyBounds() if bounds is None else bounds
        self.pages = Pages() if pages is None else pages
        self.clock = clock
        self.rates = RateTable()
        self.sign_in = SignIn(run, self.rates)

    def gatekeeper(
        self, members: Mapping[str, Any] | None, kind: str, name: str, address: str
    ) -> Gatekeeper | None:
        """For a service; ``None`` where nothing is to be looked at.

        :param members: the policy in its registration.
        :param kind: the service's.
        :param name: the service's, for its visitors.
        :param address: its public one: services of the same one are counted together.
        :raises PolicyError: it cannot be, or may not.
        """
        policy = decode(members or {})
        policy.check_kind(kind)
        refused = sorted(policy.asks() - self.bounds.asks)
        if refused:
            raise PolicyError(f"this relay allows no policy of {', '.join(refused)}")
        if not (policy.asks() or self.bounds.deny or self.bounds.rate):
            return None
        return Gatekeeper(self, policy, name, address)


class Gatekeeper:
    """The policy of one service. A service without one has ``None`` in its place.

    :ivar max_body: bytes of one request's body that the policy allows; ``None``: any.
    """

    def __init__(self, shared: Policies, policy: Policy, name: str, address: str) -> None:
        self._shared = shared
        self._policy = policy
        self._address = address
        self.max_body = policy.max_body
        self._lists = bool(policy.allow or policy.deny or shared.bounds.deny)
        self._listed: dict[str, bool] = {}
        # A quoted-string (RFC 9110, 5.6.4) that needs no quoting.
        realm = re.sub(r"[^A-Za-z0-9 ./:_-]", "", name) or "private"
        self._challenge = ("WWW-Authenticate", f'Basic realm="{realm}", charset="UTF-8"')
        dropped, self._request_added = _plan(policy.request_fields)
        if policy.users:
            # It was for the relay; what the service is to get in its place may be set.
            dropped.add(b"authorization")
        self._request_dropped = frozenset(dropped)
        dropped, self._response_added = _plan(policy.response_fields)
        self._response_dropped = frozenset(dropped)
        self._host = None if policy.host is None else policy.host.encode()

    def is_like(self, other: Gatekeeper | None) -> bool:
        """Whether another holds visitors to the same."""
        return other is not None and other._policy == self._policy

    # --- who may come -------------------------------------------------------------------

    def check_request(
        self, fields: Fields, visitor: IAddress
    ) -> Answer | Deferred[Answer | None] | None:
        """Whether a request may go on: ``None``, or the answer that it gets instead (401, 403, 429,
        503), or a Deferred of either, while a password is looked at.

        The Deferred never fails by itself; cancel it when the visitor goes.

        :param fields: of the request as it came, names in lower case.
        :param visitor: who asks, as believed (proxies that are trusted have spoken for it).
        """
        pages = self._shared.pages
        if self._lists and not self._is_listed(visitor):
            return pages.page(403, "Not for you", "This site is not open to your address.")
        wait = self._rate(visitor)
        if wait:
            return self._later(wait, "Your address asks too often.")
        if self._policy.users:
            return self._signed_in(fields, visitor)
        return None

    def check_connection(self, visitor: IAddress) -> bool:
        """Whether a TCP, ssh or TLS connection may go on; where not, it is reset."""
        return (not self._lists or self._is_listed(visitor)) and not self._rate(visitor)

    def _is_listed(self, visitor: IAddress) -> bool:
        if not isinstance(visitor, IPv4Address | IPv6Address):
            return not self._policy.allow
        host = visitor.host
        known = self._listed.get(host)
        if known is None:
            if len(self._listed) >= ADDRESSES_KEPT:
                self._listed.clear()
            known = self._listed[host] = self._looked_up(host)
        return known

    def _looked_up(self, host: str) -> bool:
        number = parse_address(host)
        if number is None:
            return False
        policy, bounds = self._policy, self._shared.bounds
        if any(number in each for each in (*bounds.deny, *policy.deny)):
            return False
        return not policy.allow or any(number in each for each in policy.allow)

    def _rate(self, visitor: IAddress) -> float:
        """Takes one of each rate: 0, or the seconds to wait."""
        bounds, policy = self._shared.bounds, self._policy
        if bounds.rate is None and policy.rate is None and policy.total_rate is None:
            return 0.0
        rates, now = self._shared.rates, self._shared.clock.seconds()
        who = address_key(visitor) or "-"
        for key, rate in (
            (("relay", who), bounds.rate),
            (("visitor", self._address, who), policy.rate),
            (("service", self._address), policy.total_rate),
        ):
            wait = 0.0 if rate is None else rates.take(key, rate, now)
            if wait:
                return wait
        return 0.0

    def _later(self, wait: float, text: str) -> Answer:
        seconds = str(max(1, math.ceil(wait)))
        return self._shared.pages.page(429, "Too often", text, ("Retry-After", seconds))

    # --- passwords ----------------------------------------------------------------------

    def _signed_in(
        self, fields: Fields, visitor: IAddress
    ) -> Answer | Deferred[Answer | None] | None:
        values = [value for name, value in fields if name == b"authorization"]
        if len(values) != 1:
            return self._unauthorized()
        shared, who = self._shared, (self._address, address_key(visitor) or "-")
        try:
            found = shared.sign_in.check(self._policy.users, values[0], who, shared.clock.seconds())
        except TooManyTries as tries:
            return self._later(tries.wait, "There were too many wrong passwords.")
        except Busy:
            return shared.pages.page(503, "Too busy", "Please try again.", RETRY_AFTER)
        if isinstance(found, Deferred):
            return found.addCallback(lambda right: None if right else self._unauthorized())
        return None if found else self._unauthorized()

    def _unauthorized(self) -> Answer:
        text = "This site asks for a name and a password."
        return self._shared.pages.page(401, "Who is there?", text, self._challenge)

    # --- fields -------------------------------------------------------------------------

    def rewrite_request(self, fields: FieldList) -> FieldList:
        """The fields that the service gets, with those of the agent's choice set, added and removed
        and Host replaced. Comes last, after the relay's own forwarding fields were added."""
        dropped, host = self._request_dropped, self._host
        if dropped:
            fields = [each for each in fields if each[0] not in dropped]
        if host is not None:
            fields = [(n, host if n == b"host" else value) for n, value in fields]
        return fields + self._request_added if self._request_added else fields

    def rewrite_response(self, fields: FieldList) -> FieldList:
        """The same for a final response of the service's. Framing and hop-by-hop fields stay as
        they are, and no Set-Cookie is added."""
        dropped = self._response_dropped
        if dropped:
            fields = [each for each in fields if each[0] not in dropped]
        return fields + self._response_added if self._response_added else fields


def lets_in_again(before: Gatekeeper | None, now: Gatekeeper | None, visitor: IAddress) -> bool:
    """Whether a connection that ``before`` let in, and that has waited, may go on now."""
    if now is None or not is_new_policy(before, now):
        return True
    return now.check_connection(visitor)


def is_new_policy(before: Gatekeeper | None, now: Gatekeeper | None) -> bool:
    """Whether whom one gatekeeper let in (``None``: nobody looked) has to be looked at again."""
    return now is not None and now is not before and not now.is_like(before)


def _plan(edits: Iterable[Edit]) -> tuple[set[bytes], FieldList]:
    """What goes, and what comes then, by changes that are made one after the other."""
    dropped: set[bytes] = set()
    added: FieldList = []
    for edit in edits:
        if edit.how != "add":
            dropped.add(edit.name)
            added = [each for each in added if each[0] != edit.name]
        if edit.how != "remove":
            added.append((edit.name, edit.value))
    return dropped, added
