"""Accepting connections no faster than they can be served.

Accept pauses before the open files run out (where they have, Twisted's ports would close what
waits in the kernel's queue) and while the handshakes of agents are at their limit. Connections of
one address beyond its share wait for their turn, unread and with no clock running.
"""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address as NumericIPv6
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime
from twisted.logger import Logger

from srrrs.addresses import parse_address

RESERVE: Final = 256
"""Open files kept free for everything but connections; a quarter where the limit is small."""
BATCH: Final = 32
"""Connections accepted in one go at about the most, so that a pause comes in time."""
LOOK_AGAIN: Final = 0.5
"""Seconds between looks at whether files have become free."""
COUNT_UP_TO: Final = 65_536
"""Limits of open files up to which they are counted again at each look; beyond, that is slow."""
WARN_EVERY: Final = 60.0
"""Seconds between warnings that files are short."""

_log = Logger()


def raise_nofile_limit() -> tuple[int, int] | None:
    """Raise the soft limit of open files to the hard one.

    :return: the soft limit before and after; ``None`` where the system has none.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard
    if hard == resource.RLIM_INFINITY:
        wanted = max(soft, 1 << 20)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft, soft
    return soft, wanted


def file_limit() -> int | None:
    """The soft limit of open files; ``None``: there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def count_open_files() -> int | None:
    """How many files this process has open; ``None`` where the system does not tell."""
    try:
        return len(os.listdir("/dev/fd")) - 1  # Without the one that lists them.
    except FileNotFoundError:
        return None
    except OSError:  # None is left for looking.
        return file_limit()


def address_key(peer: IAddress) -> str | None:
    """Whose connection it is: an IPv4 address, an IPv6 network of 64 bits (one host may use any
    address of it), or ``None`` where nobody can tell (a UNIX socket)."""
    if isinstance(peer, IPv4Address):
        return peer.host
    number = parse_address(peer.host) if isinstance(peer, IPv6Address) else None
    if isinstance(number, NumericIPv6):
        return f"{NumericIPv6(int(number) >> 64 << 64)}/64"
    return None if number is None else str(number)


def hung_up(transport: Any) -> bool:
    """Whether the peer has ended its sending, with data before that unread or not; ``False``, too,
    where the system does not tell."""
    number = _number(transport)
    if number < 0 or _RDHUP is None:
        return False
    poll = select.poll()
    poll.register(number, _RDHUP)  # And the end of both directions, always.
    return bool(poll.poll(0))


class Turn:
    """One's place in a :class:`Turnstile`: inside, in the line, or gone."""

    __slots__ = ("_stile", "inside", "key", "then")

    def __init__(self, stile: Turnstile, key: str | None, then: Callable[[], None]) -> None:
        self._stile = stile
        self.key = key
        self.then: Callable[[], None] | None = then
        self.inside = False

    def leave(self) -> None:
        """Make room for the next, or leave the line. Harmless when repeated."""
        self._stile._leave(self)


class Turnstile:
    """Lets in so many of each key at a time; the others wait in line.

    :param limit: of each key; a key of ``None`` has none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside: Counter[str] = Counter()
        self._lines: dict[str, dict[Turn, None]] = {}
        self._letting_in = False
        self._freed: list[str] = []

    def inside(self, key: str) -> int:
        """How many of a key are inside."""
        return self._inside[key]

    def enter(self, key: str | None, then: Callable[[], None]) -> Turn:
        """Ask to be let in; ``then`` is called at once, or when there is room."""
        turn = Turn(self, key, then)
        if key is not None and (self._inside[key] >= self.limit or key in self._lines):
            self._lines.setdefault(key, {})[turn] = None
        else:
            self._let_in(turn)
        return turn

    def _let_in(self, turn: Turn) -> None:
        turn.inside = True
        if turn.key is not None:
            self._inside[turn.key] += 1
        then, turn.then = turn.then, None
        if then is not None:
            then()

    def _leave(self, turn: Turn) -> None:
        key, turn.then = turn.key, None
        if key is None:
            return
        if turn.inside:
            turn.inside = False
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]
            self._freed.append(key)
        else:
            line = self._lines.get(key)
            if line is not None:
                line.pop(turn, None)
                if not line:
                    del self._lines[key]
        if not self._letting_in:
            self._next()

    def _next(self) -> None:
        # A loop, not a recursion: whoever is let in may be gone again at once.
        self._letting_in = True
        try:
            while self._freed:
                key = self._freed.pop()
                line = self._lines.get(key)
                while line and self._inside[key] < self.limit:
                    turn = next(iter(line))
                    del line[turn]
                    if not line:
                        self._lines.pop(key, None)
                    self._let_in(turn)
        finally:
            self._letting_in = False


class Slot:
    """A connection's turn to shake hands; :meth:`release` it once that is over, however it ends."""

    __slots__ = ("_gate", "_released", "_turns")

    def __init__(self, gate: AcceptGate) -> None:
        self._gate = gate
        self._turns: list[Turn] = []
        self._released = False

    def release(self) -> None:
        """The handshake is over, or the connection is. Harmless when repeated."""
        self._released = True
        turns, self._turns = self._turns, []
        for turn in reversed(turns):
            turn.leave()
        self._gate._handshakes_changed()

    def _take(self, stile: Turnstile, key: str | None, then: Callable[[], None]) -> None:
        def admitted() -> None:
            if not self._released:
                then()

        turn = stile.enter(key, admitted)
        if self._released:  # By what `then` did.
            turn.leave()
        else:
            self._turns.append(turn)


class AcceptGate:
    """Pauses and resumes the listening ports of a process.

    :param handshakes: agents' handshakes under way at a time; at this many, accept pauses.
    :param per_address: handshakes of one address under way at a time: so many of TLS, and so many
        of agents. With one line for both, no agent of a fleet would be let in before the last one
        has done its TLS.
    :param visitors: visitors' connections of one address.
    """

    def __init__(
        self,
        clock: IReactorTime,
        handshakes: int = 256,
        per_address: int = 128,
        visitors: int = 4096,
    ) -> None:
        self._clock = clock
        self._agents = Turnstile(handshakes)
        self._addresses = Turnstile(per_address)
        self._hellos = Turnstile(per_address)
        self._visitors = visitors
        self._visitor_count: dict[str, int] = {}
        self.visiting = 0
        """Visitors' connections of all addresses."""
        self._ports: dict[Any, None] = {}
        self._reasons: set[str] = set()
        self._connections = 0
        # Open files that are none of our connections, as last counted.
        self._others = count_open_files() or 0
        # Fewer than so many were fine when the system was last asked for its limit, and how many
        # connections were accepted since: asking costs as much as all else that is done for one.
        self._enough = self._unasked = 0
        self._look_call: IDelayedCall | None = None
        self._warned_at: float | None = None

    # --- ports --------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether accept pauses."""
        return bool(self._reasons)

    def add(self, port: IListeningPort) -> None:
        """Pause and resume this port, too, where it has ``stopReading`` and ``startReading``."""
        if hasattr(port, "stopReading") and hasattr(port, "startReading"):
            self._ports[port] = None
            _limit_batch(port, BATCH)
            if self._reasons:
                port.stopReading()

    def remove(self, port: IListeningPort) -> None:
        """The port is being closed."""
        self._ports.pop(port, None)

    def stop(self) -> None:
        """No timers and no pauses after this."""
        self._ports.clear()
        self._cancel_look()

    def _pause(self, reason: str) -> None:
        if not self._reasons:
            for port in self._ports:
                port.stopReading()
        self._reasons.add(reason)

    def _resume(self, reason: str) -> None:
        if reason not in self._reasons:
            return
        self._reasons.remove(reason)
        if not self._reasons:
            for port in self._ports:
                # One first: that may be all there is room for.
                _limit_batch(port, 1)
                port.startReading()

    # --- open files ---------------------------------------------------------------------

    def opened(self, transport: Any) -> None:
        """A connection was accepted; :meth:`closed` tells of its end."""
        self._connections += 1
        port: Any = getattr(transport, "server", None)
        if getattr(port, "numberAccepts", BATCH) != BATCH:
            # One only after a pause: there is room for more now.
            port.numberAccepts = BATCH
        # The system gives out the lowest free number: a high one tells that files are short even
        # where others than we opened them.
        used = self._others + self._connections
        try:
            number = transport.fileno()
        except (AttributeError, OSError, ValueError, TypeError):
            number = -1
        if number > used:
            used = number
        self._unasked += 1
        if used < self._enough and self._unasked < BATCH:
            return
        self._unasked = 0
        ceiling = self._ceiling()
        self._enough = 0 if ceiling is None else ceiling
        if ceiling is not None and used >= ceiling and self._used() >= ceiling:
            self._files_short()

    def closed(self) -> None:
        """A connection that :meth:`opened` was told of ended."""
        self._connections -= 1
        if _FILES in self._reasons:
            ceiling = self._ceiling()
            enough = 0 if ceiling is None else ceiling - min(RESERVE, ceiling // 4) // 4
            # A single one waits for the next look, so that ports do not flap.
            if ceiling is None or self._others + self._connections < enough:
                self._look()

    def _files_short(self) -> None:
        if _FILES in self._reasons:
            return
        self._pause(_FILES)
        now = self._clock.seconds()
        if self._warned_at is None or now - self._warned_at >= WARN_EVERY:
            self._warned_at = now
            _log.warn(
                "nearly all of {limit} open files are in use: accepting pauses until some are "
                "closed",
                limit=file_limit(),
            )
        self._cancel_look()
        self._look_call = self._clock.callLater(LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._cancel_look()
        ceiling = self._ceiling()
        if ceiling is None or self._used() < ceiling:
            self._resume(_FILES)
        else:
            self._look_call = self._clock.callLater(LOOK_AGAIN, self._look)

    def _ceiling(self) -> int | None:
        limit = file_limit()
        return None if limit is None else limit - min(RESERVE, limit // 4)

    def _used(self) -> int:
        limit = file_limit()
        if limit is not None and limit <= COUNT_UP_TO:
            counted = count_open_files()
            if counted is not None:
                self._others = max(0, counted - self._connections)
        return self._others + self._connections

    def _cancel_look(self) -> None:
        call, self._look_call = self._look_call, None
        if call is not None and call.active():
            call.cancel()

    # --- handshakes ---------------------------------------------------------------------

    def hello(self, peer: IAddress, start: Callable[[], None]) -> Slot:
        """A TLS handshake: ``start`` is called at once, or when it is the address's turn.

        Visitors make these too, and anybody can leave one half-way: accept does not pause.
        """
        slot = Slot(self)
        slot._take(self._hellos, address_key(peer), start)
        return slot

    def handshake(self, peer: IAddress, start: Callable[[], None]) -> Slot:
        """An agent's handshake, the same way. Those without a token are turned away at once, so
        only who has one can hold a slot."""
        slot = Slot(self)

        def address_admitted() -> None:
            slot._take(self._agents, _ALL, agent_admitted)

        def agent_admitted() -> None:
            self._handshakes_changed()
            start()

        slot._take(self._addresses, address_key(peer), address_admitted)
        return slot

    def _handshakes_changed(self) -> None:
        if self._agents.inside(_ALL) >= self._agents.limit:
            self._pause(_HANDSHAKES)
        else:
            self._resume(_HANDSHAKES)

    # --- visitors -----------------------------------------------------------------------

    def admit_visitor(self, peer: IAddress) -> bool:
        """Count a visitor's connection, unless its address has too many."""
        key = peer.host if type(peer) is IPv4Address else address_key(peer)
        if key is not None:
            count = self._visitor_count.get(key, 0)
            if count >= self._visitors:
                return False
            self._visitor_count[key] = count + 1
        self.visiting += 1
        return True

    def visitor_gone(self, peer: IAddress) -> None:
        """A connection that :meth:`admit_visitor` counted ended."""
        self.visiting -= 1
        key = peer.host if type(peer) is IPv4Address else address_key(peer)
        if key is not None:
            count = self._visitor_count.get(key, 0)
            if count > 1:
                self._visitor_count[key] = count - 1
            else:
                self._visitor_count.pop(key, None)


_FILES: Final = "open files"
_HANDSHAKES: Final = "handshakes"
_RDHUP: Final[int | None] = getattr(select, "POLLRDHUP", None)  # Linux only
_ALL: Final = ""
"""The key of a line that is the same for everybody."""


def _number(transport: Any) -> int:
    try:
        return int(transport.fileno())
    except (AttributeError, OSError, ValueError, TypeError):
        return -1


def _limit_batch(port: Any, most: int) -> None:
    """Twisted's ports accept so many before the reactor gets to look, or to pause them."""
    if getattr(port, "numberAccepts", 0) > most:
        port.numberAccepts = most
