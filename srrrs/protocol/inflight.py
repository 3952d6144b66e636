"""How many bytes may be on their way: a cap learnt from acknowledgements, for short queues.

After BBR (Cardwell et al., *BBR: Congestion-Based Congestion Control*, 2016): what a path delivers
at the most, times its round trip without queues, is what fills it; what is sent beyond that only
waits, in the kernel, in a proxy's buffer or before the narrowest link, and everything behind it
waits as long. TCP below decides what may be *in the network*; the cap decides what TCP is given, so
that the next small message finds nothing to wait behind. Only the peer's acknowledgements are used,
so that buffers of proxies count like any other.

The cap is ``rate × (round trip + slack)``. The slack is the time by which acknowledgements may be
late; as it is more than the round trip needs, the rate grows by itself where the path has room. It
also makes the cap immaterial on a fast link: at 500 MB/s it is as large as the replay buffer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from srrrs.protocol.session import ACK_EVERY, ACK_SOON

OPENING: Final = 64 * 1024
"""Bytes that may be under way before anything is known, and until the rate stops growing."""
NEAR: Final = 0.002
"""Seconds of round trip below which that is ``OPENING_NEAR``."""
OPENING_NEAR: Final = 2 * ACK_EVERY
FLOOR: Final = 3 * ACK_SOON
"""Bytes that may always be under way: enough to have some acknowledged at once."""
GROWTH: Final = 2.7
"""Times the product of rate and round trip, with the slack, while the rate grows: with less a BBR
below takes itself for idle, and never ends its own opening, in which it sends bursts."""
GROWN: Final = 1.25
"""A round trip's growth of the rate by less does not count (BBR's)."""
PATIENCE: Final = 4
"""Round trips in a row without growth that end the opening: one more than TCP's BBR takes."""
FAR: Final = 0.1
"""Seconds of round trip from which on a queue does not end the opening before that: TCP needs its
backlog to find the end of a long path."""
REOPENED: Final = 1.2
"""Growth within a round trip, later on, after which the cap opens up again as at the beginning."""
SLACK: Final = 0.008
"""Seconds: acknowledgements may be ``ACK_INTERVAL`` late, and processes wait for their turn."""
SLACK_SHARE: Final = 1 / 5
"""The slack is at least this share of the round trip: by so much the rate may grow within one, and
TCP, which does not look for more than it is given, finds that it is needed."""
USED: Final = 0.9
"""Share of the rate; round trips that deliver less, without a queue, left the path dry."""
USED_WEIGHT: Final = 1 / 4
"""Weight of one round trip in that."""
BURST: Final = 0.5
"""Share of the product; that much acknowledged at once was held up by something."""
BOOST_STEP: Final = 1 / 4
"""Of the product: by so much more is under way after each such round trip, ..."""
BOOST_MOST: Final = 3.0
"""... up to this, ..."""
BOOST_DECAY: Final = 7 / 8
"""... and less by this factor after each other."""
RATE_ROUNDS: Final = 10
"""Round trips for which the highest rate is remembered."""
RATE_SECONDS: Final = 0.4
"""The same, in seconds at least."""
RTT_SECONDS: Final = 10.0
"""Seconds for which the lowest round trip is remembered; then it is looked for again."""
CROWDED: Final = 1.5
"""A queue stands in a round trip of which no part took less than this many times the lowest one."""
CROWDED_ROUNDS: Final = 24
"""Such round trips in a row, after which the lowest is looked for early: the path may have become
longer, or others fill its queue."""
QUEUED_ROUNDS: Final = 4
"""Such round trips in a row, after which the queue is believed even where bytes come in bursts."""
ENOUGH: Final = 1.5
"""Times the product of rate and round trip, with which under way a path is filled, though more
could be."""
DRAIN: Final = 0.75
"""Share of the product of rate and round trip under way while the lowest one is looked for."""
DRAIN_SECONDS: Final = 1.0
"""Seconds after which that ends in any case."""
PACE_GAIN: Final = 1.25
"""Times the rate at which what the cap allows is given out: a burst overflows a short queue."""
PACE_SECONDS: Final = 0.008
"""Seconds of that rate which may be given out at once, ..."""
PACE_CHUNK: Final = 8 * 1024
"""... or so many bytes."""
PACED_BELOW: Final = 25e6
"""Bytes/s from which on nothing is paced: turns of the reactor take longer."""
PACED_FROM: Final = 0.004
"""Seconds of round trip below which nothing is: a queue that matters is no shorter."""
MARK_EVERY: Final = ACK_SOON
"""Bytes sent between two moments that are remembered, at least."""


class _Mark:
    """When some bytes were sent, and what had been acknowledged then."""

    __slots__ = ("acked", "acked_at", "end", "first_sent", "limited", "sent_at", "start")

    def __init__(
        self,
        start: int,
        end: int,
        sent_at: float,
        acked: int,
        acked_at: float,
        first_sent: float,
        limited: bool,
    ) -> None:
        self.start = start
        self.end = end
        self.sent_at = sent_at
        self.acked = acked
        self.acked_at = acked_at
        self.first_sent = first_sent
        self.limited = limited


class InFlight:
    """The cap of one direction of one carrier. Positions count session bytes, as acknowledged.

    :param start: the position at which the carrier begins.
    :param most: bytes that the cap never exceeds; as many marks are kept as fit into them.
    :ivar limit: bytes that may be unacknowledged now.
    :ivar mark_from: a message that ends at this position or later is to be told by :meth:`sent`.
    :ivar enough: where there is room but nothing more to send, and fewer bytes than these are
        under way, :meth:`dry` is to be told.
    :ivar paced: whether :meth:`allowance` is to be heeded, too.
    :ivar rate: bytes/s that the path delivers; 0: not known yet.
    :ivar rtt: seconds of its round trip without queues; ``None``: not known yet.
    """

    __slots__ = (
        "_acked",
        "_acked_at",
        "_boost",
        "_crowded",
        "_current",
        "_drain_end",
        "_drain_from",
        "_drain_rtt",
        "_drain_to",
        "_dry_at",
        "_marks",
        "_most",
        "_opening",
        "_plateau",
        "_rates",
        "_renew_rtt",
        "_round",
        "_round_at",
        "_round_burst",
        "_round_end",
        "_round_from",
        "_round_limited",
        "_round_rate",
        "_round_rtt",
        "_rtt_at",
        "_standing",
        "_tokens",
        "_tokens_at",
        "_top_rate",
        "_used",
        "enough",
        "limit",
        "mark_from",
        "paced",
        "rate",
        "rtt",
    )

    def __init__(self, start: int, most: int) -> None:
        self._most = most
        self.limit = min(OPENING, most)
        self.mark_from = start
        self.enough = most
        self.paced = False
        self._tokens = 0.0
        self._tokens_at = 0.0
        self.rate = 0.0
        self.rtt: float | None = None
        self._rtt_at = 0.0
        self._renew_rtt = False
        self._acked = start
        self._acked_at = 0.0
        self._marks: deque[_Mark] = deque()
        self._current: _Mark | None = None
        # The highest rates: (round, time, rate), falling.
        self._rates: deque[tuple[int, float, float]] = deque()
        # The round trips: counted, and what was seen in the one that goes on.
        self._round = 0
        self._round_end = start
        self._round_burst = 0
        self._round_from = start
        self._round_at = 0.0
        self._round_limited = False
        self._round_rtt = math.inf
        self._round_rate = 0.0
        self._crowded = 0
        self._standing = False
        # The position at which there was nothing more to send: what is measured until more than
        # that is acknowledged says nothing against the path.
        self._dry_at = start
        # Whether the rate still grows; the highest so far, and round trips without growth.
        self._opening = True
        self._top_rate = 0.0
        self._plateau = 0
        # By how much more than their product is under way, as a share of it.
        self._boost = 0.0
        self._used = 1.0
        # While the lowest round trip is looked for: since when, with how many bytes under way,
        # the position that ends it, and the lowest so far.
        self._drain_from: float | None = None
        self._drain_to = 0
        self._drain_end: int | None = None
        self._drain_rtt = math.inf

    def sent(self, start: int, end: int, now: float) -> None:
        """The bytes from position ``start`` to ``end`` are sent, at ``now`` (seconds)."""
        self.mark_from = end + MARK_EVERY
        current = self._current
        if start <= self._acked or current is None:
            # Nothing is under way: the time that went by is nobody's.
            self._acked_at = first_sent = now
            if now - self._rtt_at > RTT_SECONDS:
                # Nor is there a queue of ours: what is measured next holds.
                self._renew_rtt = True
                self._rtt_at = now
        else:
            first_sent = current.sent_at
        limited = self._acked <= self._dry_at
        mark = _Mark(start, end, now, self._acked, self._acked_at, first_sent, limited)
        self._marks.append(mark)
        if current is None:
            self._current = mark

    def allowance(self, now: float) -> int:
        """Bytes that may be sent at once, where the cap allows as many; see :meth:`spend`."""
        pace = PACE_GAIN * self.rate
        most = max(pace * PACE_SECONDS, 2 * PACE_CHUNK)
        self._tokens = min(self._tokens + pace * (now - self._tokens_at), most)
        self._tokens_at = now
        return int(self._tokens)

    def spend(self, size: int) -> None:
        """As many are sent."""
        self._tokens -= size

    def pause(self) -> float:
        """Seconds until there is an allowance that is worth a message."""
        pace = PACE_GAIN * self.rate
        worth = max(PACE_CHUNK, pace * PACE_SECONDS / 4)
        return max(0.0, (worth - self._tokens) / pace)

    def dry(self, sent: int) -> None:
        """There is room, and nothing more to send, at the position ``sent``."""
        self._dry_at = sent

    def acknowledged(self, count: int, sent: int, now: float) -> None:
        """The peer has parsed everything before position ``count``, ``sent`` being sent so far."""
        size = count - self._acked
        if size <= 0:
            return
        marks = self._marks
        mark = self._current
        while marks and marks[0].start < count:
            mark = marks.popleft()
        self._current = mark
        self._acked = count
        self._acked_at = now
        self._round_burst = max(self._round_burst, size)
        if mark is None:
            return
        if count <= mark.end:
            sample = now - mark.sent_at
            # An acknowledgement of less may have been held back by the peer.
            if size >= ACK_SOON or self.rtt is None or sample < self.rtt:
                self._sample(sample, now)
        elapsed = max(now - mark.acked_at, mark.sent_at - mark.first_sent)
        if elapsed > 0:
            self._delivered((count - mark.acked) / elapsed, mark.limited, now)
        if count >= self._round_end:
            self._end_round(now)
            self._round_end = sent
        self._watch_drain(count, sent, now)
        self._set_limit()

    def round_trip(self, sample: float, now: float) -> None:
        """Something that the peer answers at once took ``sample`` seconds."""
        self._sample(sample, now)
        self._set_limit()

    # --- within -------------------------------------------------------------------------

    def _sample(self, sample: float, now: float) -> None:
        self._round_rtt = min(self._round_rtt, sample)
        if self._drain_from is not None:
            self._drain_rtt = min(self._drain_rtt, sample)
        if self.rtt is None or self._renew_rtt or sample <= self.rtt:
            self._renew_rtt = False
            self.rtt = sample
            self._rtt_at = now

    def _delivered(self, rate: float, limited: bool, now: float) -> None:
        self._round_limited = self._round_limited or limited
        if limited and rate < self.rate:
            return
        rates = self._rates
        while rates and rates[-1][2] <= rate:
            rates.pop()
        rates.append((self._round, now, rate))
        self._expire(now)

    def _expire(self, now: float) -> None:
        rates = self._rates
        oldest, since = self._round - RATE_ROUNDS, now - RATE_SECONDS
        while len(rates) > 1 and rates[0][0] < oldest and rates[0][1] < since:
            rates.popleft()
        self.rate = rates[0][2]

    def _end_round(self, now: float) -> None:
        self._round += 1
        limited, self._round_limited = self._round_limited, False
        size, took = self._acked - self._round_from, now - self._round_at
        self._round_from, self._round_at = self._acked, now
        burst, self._round_burst = self._round_burst, 0
        bursts = burst > BURST * self.rate * (self.rtt or 0.0)
        lowest, self._round_rtt = self._round_rtt, math.inf
        before, self._round_rate = self._round_rate, self.rate
        if self.rtt is not None and lowest < math.inf:
            # A queue that never empties: ours, or others'.
            self._standing = lowest > CROWDED * self.rtt + SLACK
            self._crowded = self._crowded + 1 if self._standing else 0
        if limited or self._drain_from is not None:
            return
        self._adjust(size, took, bursts)
        if self._opening:
            if self.rate >= self._top_rate * GROWN:
                self._top_rate = self.rate
                self._plateau = 0
            else:
                self._plateau += 1
                near = self.rtt is not None and self.rtt < FAR
                self._opening = self._plateau < PATIENCE and not (self._standing and near)
        elif self.rate > before * REOPENED:
            # One round trip without growth ends it again.
            self._opening = True
            self._top_rate = self.rate
            self._plateau = PATIENCE - 1

    def _adjust(self, size: int, took: float, bursts: bool) -> None:
        # Behind a loss that TCP repairs bytes come in bursts: then the path runs dry although as
        # much is under way as it delivers in a round trip, and the round trips look like a queue.
        if took > 0 and self.rate > 0:
            self._used += USED_WEIGHT * (min(size / took / self.rate, 1.0) - self._used)
        queue = self._crowded >= QUEUED_ROUNDS or (self._standing and not bursts)
        if self._opening or queue or self._used >= USED:
            self._boost *= BOOST_DECAY
        else:
            self._boost = min(self._boost + BOOST_STEP, BOOST_MOST)

    def _watch_drain(self, count: int, sent: int, now: float) -> None:
        since = self._drain_from
        if since is None:
            if self.rtt is None:
                return
            early = self._crowded >= CROWDED_ROUNDS
            if early or now - self._rtt_at > RTT_SECONDS:
                self._crowded = 0
                self._drain_from = now
                self._drain_end = None
                self._drain_rtt = math.inf
                self._drain_to = FLOOR
                if not early:
                    self._drain_to = max(FLOOR, int(DRAIN * self.rate * self.rtt))
            return
        if self._drain_end is None:
            if sent - count <= self._drain_to:
                self._drain_end = sent
                self._drain_rtt = math.inf
        elif count > self._drain_end and self._drain_rtt < math.inf:
            self._drained(now)
            return
        if now - since > DRAIN_SECONDS + 2 * (self.rtt or 0.0):
            self._drained(now)

    def _drained(self, now: float) -> None:
        self._drain_from = None
        self._round_limited = True
        if self._drain_rtt < math.inf:
            self.rtt = self._drain_rtt
        self._rtt_at = now

    def _set_limit(self) -> None:
        rtt = self.rtt
        if rtt is None:
            return
        rate = self.rate
        product = rate * rtt
        slack = max(SLACK, rtt * SLACK_SHARE)
        room = max(rate * slack, 2 * ACK_SOON)
        room = max(room, self._boost * product)
        self.enough = int(max(ENOUGH * product, OPENING))
        if self._drain_from is not None:
            limit = float(self._drain_to)
        elif self._opening:
            limit = max(GROWTH * (product + room), OPENING_NEAR if rtt < NEAR else OPENING)
        else:
            limit = product + room
        self.paced = not self._opening and 0 < rate < PACED_BELOW and rtt >= PACED_FROM
        self.limit = int(min(max(limit, FLOOR), self._most))
