"""The cap on what is under way: short queues, full links, no stall, on a simulated path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.protocol.inflight import FLOOR, OPENING, RTT_SECONDS, InFlight
from srrrs.protocol.session import ACK_SOON, REPLAY
from tests.protocol.link import Link, Transfer, losing, queues, rate_of

THIN = 2.5e6  # 20 Mbit/s
PATHS = {
    "20 Mbit/s, 40 ms": (THIN, 0.04),
    "20 Mbit/s, 200 ms": (THIN, 0.2),
    "2 Mbit/s, 60 ms": (0.25e6, 0.06),
    "100 Mbit/s, 20 ms": (12.5e6, 0.02),
    "1 Gbit/s, 1 ms": (125e6, 0.001),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
def test_a_full_link_and_a_short_queue(path: tuple[float, float]) -> None:
    """A bulk transfer gets the link, and what is sent beside it waits little."""
    rate, rtt = path
    link = Link(rate, rtt)
    transfer = Transfer(link)
    link.run(4)
    before = transfer.acked
    waits = queues(link, 4)
    assert transfer.acked - before > 0.97 * 4 * rate
    assert waits[len(waits) // 2] < max(0.012, rtt / 4, FLOOR / rate)
    assert waits[int(len(waits) * 0.95)] < max(0.02, rtt / 3, 1.5 * FLOOR / rate)


def test_it_stays_so() -> None:
    """The lowest round trip is looked for again: the queue does not creep up for ever."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link)
    link.run(5 * RTT_SECONDS)
    before = transfer.acked
    waits = queues(link, 2 * RTT_SECONDS)
    assert waits[int(len(waits) * 0.95)] < 0.02
    assert transfer.acked - before > 0.97 * 2 * RTT_SECONDS * THIN
    assert transfer.inflight.rtt == pytest.approx(0.04, abs=0.006)


def test_a_fast_link_opens_up_at_once() -> None:
    """Within some turns of a reactor nothing is held back any more."""
    link = Link(1e9, 0.0001)
    transfer = Transfer(link)
    transfer.inflight.round_trip(0.0002, 0.0)
    link.run(0.05)
    assert transfer.inflight.limit == REPLAY
    assert not transfer.inflight.paced
    assert rate_of(link, [transfer], 0.2)[0] > 0.97e9


@pytest.mark.parametrize("rate", [THIN, 50e6])
def test_the_rate_doubles_each_round_trip_at_first(rate: float) -> None:
    """The opening is no slower than TCP's slow start from there."""
    link = Link(rate, 0.1)
    transfer = Transfer(link)
    link.run(1.0)
    assert transfer.acked > min(0.4 * rate, 3e6)


@pytest.mark.parametrize("after", [THIN / 4, THIN * 4, THIN * 20])
def test_the_rate_changes(after: float) -> None:
    """Another rate is found within seconds, with a short queue."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link)
    link.run(5)
    link.rate = after
    link.run(5)
    before = transfer.acked
    waits = queues(link, 3)
    assert transfer.acked - before > 0.95 * 3 * after
    assert waits[int(len(waits) * 0.9)] < 0.025


def test_the_round_trip_grows() -> None:
    """A path that has become longer is filled again after a while."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link)
    link.run(5)
    link.rtt = 0.2
    link.run(2 * RTT_SECONDS)
    assert rate_of(link, [transfer], 5)[0] > 0.9 * THIN


def test_losses_that_tcp_repairs() -> None:
    """Bytes that come late and then all at once do not leave the link dry, nor far beyond it."""
    link = Link(THIN, 0.04)
    link.stalls = losing(0.01, 0.04)
    transfer = Transfer(link)
    link.run(5)
    assert rate_of(link, [transfer], 20)[0] > 0.9 * THIN
    assert transfer.most_under_way < 8 * THIN * 0.04


def test_a_proxy_that_collects() -> None:
    """Something on the way that passes on in portions costs little."""
    link = Link(THIN, 0.04, proxy=0.02)
    transfer = Transfer(link)
    link.run(5)
    assert rate_of(link, [transfer], 5)[0] > 0.9 * THIN
    assert queues(link, 2)[-1] < 0.1


def test_sessions_share_the_link() -> None:
    """Equal tunnels on one link get parts that are not far from equal."""
    link = Link(THIN, 0.04)
    transfers = [Transfer(link) for _ in range(3)]
    link.run(30)
    rates = rate_of(link, transfers, 60)
    assert sum(rates) > 0.95 * THIN
    assert min(rates) > 0.4 * max(rates)


def test_little_to_say_says_nothing_against_the_path() -> None:
    """After small messages for long, a bulk transfer starts as if there had been none."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link)
    transfer.left = 0
    for _ in range(400):
        transfer.offer(300)
        link.run(0.05)
    assert transfer.inflight.limit >= OPENING
    assert not transfer.inflight.paced
    before = transfer.acked
    transfer.offer(10_000_000)
    link.run(1)
    assert transfer.acked - before > 0.7 * THIN


def test_a_pause_forgets_nothing() -> None:
    """What was learnt holds after a silence, and the round trip is measured anew."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link)
    transfer.offer(5_000_000)
    link.run(3 * RTT_SECONDS)
    assert transfer.acked == 5_000_000
    link.rtt = 0.08
    before = transfer.acked
    transfer.offer(5_000_000)
    link.run(1)
    assert transfer.acked - before > 0.7 * THIN
    assert transfer.inflight.rtt == pytest.approx(0.08, abs=0.01)


@pytest.mark.parametrize("ack", [1, ACK_SOON, FLOOR])
def test_a_receiver_with_another_rule(ack: int) -> None:
    """However it acknowledges, as long as ``FLOOR`` bytes are enough for it, nothing stalls."""
    link = Link(THIN, 0.04)
    transfer = Transfer(link, ack)
    link.run(3)
    assert rate_of(link, [transfer], 3)[0] > 0.9 * THIN


def test_one_huge_acknowledgement() -> None:
    """All at once after a long silence: no more is sent than may be, and on it goes."""
    inflight = InFlight(0, REPLAY)
    inflight.sent(0, OPENING, 1.0)
    inflight.acknowledged(OPENING, OPENING, 31.0)
    assert FLOOR <= inflight.limit <= REPLAY
    inflight.sent(OPENING, OPENING + 100, 31.0)
    inflight.acknowledged(OPENING + 100, OPENING + 100, 31.0)
    inflight.acknowledged(OPENING + 100, OPENING + 100, 31.1)
    inflight.acknowledged(OPENING, OPENING + 100, 31.2)
    assert FLOOR <= inflight.limit <= REPLAY


def test_a_carrier_that_begins_in_the_middle() -> None:
    """Positions go on from where the last carrier left them."""
    inflight = InFlight(10**12, REPLAY)
    assert inflight.limit == OPENING
    inflight.sent(10**12, 10**12 + OPENING, 5.0)
    inflight.acknowledged(10**12 + ACK_SOON, 10**12 + OPENING, 5.1)
    assert inflight.rtt == pytest.approx(0.1)
    assert inflight.rate < 10e6


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 300_000),  # bytes to send
            st.floats(0, 2),  # seconds that go by
            st.floats(0, 1),  # share of what is under way that is acknowledged
        ),
        max_size=60,
    )
)
def test_no_stall_whatever_comes(steps: list[tuple[int, float, float]]) -> None:
    """The cap stays within its bounds, and a pause between two messages is a short one."""
    inflight = InFlight(0, REPLAY)
    sent = acked = 0
    now = 1.0
    for size, seconds, share in steps:
        room = inflight.limit - (sent - acked)
        if room > 0 and size:
            size = min(room, size)
            sent += size
            if sent >= inflight.mark_from:
                inflight.sent(sent - size, sent, now)
            if inflight.paced:
                inflight.allowance(now)
                inflight.spend(size)
        elif sent - acked < inflight.enough:
            inflight.dry(sent)
        now += seconds
        count = acked + int((sent - acked) * share)
        if count > acked:
            acked = count
            inflight.acknowledged(acked, sent, now)
        assert FLOOR <= inflight.limit <= REPLAY
        if inflight.paced:
            inflight.allowance(now)
            owed = max(0.0, size / inflight.rate)
            assert 0 <= inflight.pause() <= owed + 16 * 1024 / inflight.rate
