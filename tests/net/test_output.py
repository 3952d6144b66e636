"""When a turn's output goes: at its end, and in parts where it reads many connections."""

from __future__ import annotations

import pytest

from srrrs.net.channel import Channel
from srrrs.net.output import FIRST_PART, PART
from srrrs.testing import HalfCloseRecorder
from tests.net.kit import Pair


class Visitors:
    """A tunnel with streams whose connections can be read; nothing else is under way."""

    def __init__(self, count: int, grace: float = 0.0) -> None:
        self.pair = Pair(grace=grace)
        self.channels: list[Channel] = []
        self.far: list[HalfCloseRecorder] = []
        for _ in range(count):
            near, far = self.pair.open()
            recorder = HalfCloseRecorder()
            near.attach(HalfCloseRecorder())
            far.attach(recorder)
            self.channels.append(near)
            self.far.append(recorder)
        self.pair.settle()

    def read(self, first: int, last: int) -> list[int]:
        """Read these connections; how many messages there are after each."""
        counts = []
        for channel in self.channels[first:last]:
            channel.stream.pass_on(b"a request")
            counts.append(self.messages)
        return counts

    @property
    def messages(self) -> int:
        return [kind for kind, _ in self.pair.relay_carrier.outbox].count("data")


def test_few_connections_are_one_message() -> None:
    """At the end of the turn, as without parts."""
    visitors = Visitors(FIRST_PART - 1)
    assert set(visitors.read(0, FIRST_PART - 1)) == {0}
    visitors.pair.turn()
    assert visitors.messages == 1
    visitors.pair.settle()
    assert all(each.data == b"a request" for each in visitors.far)


def test_many_connections_are_sent_along_the_way() -> None:
    """The first part with so many, the next with twice as many more, the rest at the end."""
    count = 4 * FIRST_PART
    visitors = Visitors(count)
    counts = visitors.read(0, count)
    assert counts.index(1) == FIRST_PART - 1
    assert counts.index(2) == 3 * FIRST_PART - 1
    assert counts[-1] == 2
    visitors.pair.turn()
    assert visitors.messages == 3
    visitors.pair.settle()
    assert all(each.data == b"a request" for each in visitors.far)


def test_the_first_part_grows_with_the_turns() -> None:
    """Thousands of connections make no more parts than some dozens do."""
    count = 10 * PART * FIRST_PART
    visitors = Visitors(count)
    visitors.read(0, count)
    visitors.pair.settle()
    counts = visitors.read(0, count)
    assert counts.index(1) == count // PART - 1
    assert counts[-1] == 2
    visitors.pair.settle()
    # After a turn with few, they are small again.
    visitors.read(0, 1)
    visitors.pair.settle()
    assert visitors.read(0, FIRST_PART)[-1] == 1


def test_what_is_written_otherwise_waits_for_the_end() -> None:
    """Only the reading of a connection is a place where anything may be called back."""
    visitors = Visitors(4 * FIRST_PART)
    for channel in visitors.channels:
        channel.write(b"a request")
        assert not visitors.messages
    visitors.pair.turn()
    assert visitors.messages == 1


def test_a_connection_that_goes_on_while_a_part_is_sent() -> None:
    """What it is read then does not send another within."""
    visitors = Visitors(3 * FIRST_PART)
    stream = visitors.channels[0].stream
    depth: list[int] = []

    class Reads(HalfCloseRecorder):
        def writeConnectionLost(self) -> None:
            # Our FIN went out, from within the sending.
            for channel in visitors.channels[1 : 2 * FIRST_PART + 1]:
                channel.stream.pass_on(b"more")
            depth.append(visitors.messages)

    reader = Reads()
    visitors.channels[0].protocol = reader
    stream.finish()
    visitors.read(1, FIRST_PART + 1)
    assert depth == [0]
    assert visitors.messages == 1
    visitors.pair.settle()
    assert [each.data for each in visitors.far[1 : 2 * FIRST_PART + 1]] == [
        *[b"a requestmore"] * FIRST_PART,
        *[b"more"] * FIRST_PART,
    ]


def test_parts_without_a_carrier() -> None:
    """A parked session keeps what is read, and sends it once there is a carrier again."""
    count = 4 * FIRST_PART
    visitors = Visitors(count, grace=60.0)
    visitors.pair.relay_carrier.cut()
    assert set(visitors.read(0, count)) == {0}
    visitors.pair.redial()
    visitors.pair.settle()
    assert all(each.data == b"a request" for each in visitors.far)


@pytest.mark.parametrize("size", [1, FIRST_PART, 5 * FIRST_PART])
def test_a_carrier_that_takes_no_more(size: int) -> None:
    """Nothing is sent to it, in parts or otherwise, and nothing is lost."""
    visitors = Visitors(size)
    output = visitors.pair.relay.tunnel
    output.pause_writing()
    assert set(visitors.read(0, size)) == {0}
    visitors.pair.turn()
    assert not visitors.messages
    output.resume_writing()
    visitors.pair.settle()
    assert all(each.data == b"a request" for each in visitors.far)
