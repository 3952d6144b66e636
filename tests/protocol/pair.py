"""Two multiplexers back to back, with hands that the tests control."""

from __future__ import annotations

from srrrs.protocol.errors import ResetCode
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame
from srrrs.protocol.mux import Limits, Multiplexer, Role
from srrrs.protocol.stream import Stream


class End:
    """A stream's local side: collects, and takes (credits) at once unless told to stall."""

    def __init__(self, stream: Stream, stalled: bool = False) -> None:
        self.stream = stream
        self.stalled = stalled
        self.data = bytearray()
        self.untaken = 0
        self.fin = False
        self.sent_fin = False
        self.closed: list[tuple[int | None, str]] = []
        self.paused = False
        self.now = 0.0
        stream.handler = self

    def data_received(self, data: bytes) -> None:
        assert not self.closed
        assert not self.fin
        self.data += data
        self.untaken += len(data)
        if not self.stalled:
            self.take()

    def take(self) -> None:
        size, self.untaken = self.untaken, 0
        self.now += 0.001
        if size:
            self.stream.consumed(size, self.now)

    def fin_received(self) -> None:
        assert not self.fin
        self.fin = True

    def fin_sent(self) -> None:
        self.sent_fin = True

    def stream_closed(self, code: int | None, reason: str) -> None:
        assert not self.closed
        self.closed.append((code, reason))
        self.take()

    def pause_sending(self) -> None:
        self.paused = True

    def resume_sending(self) -> None:
        self.paused = False


class Side:
    """One end of a tunnel: the multiplexer and what it told us."""

    def __init__(self, role: Role, limits: Limits, budget: Budget) -> None:
        self.mux = Multiplexer(role, self, limits, budget)
        self.budget = budget
        self.ends: dict[int, End] = {}
        self.control: list[ControlFrame] = []
        self.ready = 0
        self.stall = False

    def stream_opened(self, stream: Stream) -> None:
        if stream.service_id == 404:
            stream.reset(ResetCode.UNKNOWN_SERVICE)
        else:
            self.ends[stream.id] = End(stream, self.stall)

    def control_received(self, frame: ControlFrame) -> None:
        self.control.append(frame)

    def output_ready(self) -> None:
        self.ready += 1

    def passed_on(self) -> None:
        pass

    def open(self, service_id: int = 1, stalled: bool = False) -> End:
        stream = self.mux.open(service_id, "203.0.113.9 4711")
        end = self.ends[stream.id] = End(stream, stalled)
        return end


class Pair:
    """A relay and an agent, joined by :meth:`pump`."""

    def __init__(
        self, limits: Limits | None = None, budget: int = 256 << 20, agent_budget: int | None = None
    ) -> None:
        limits = limits or Limits()
        self.relay = Side(Role.RELAY, limits, Budget(budget))
        self.agent = Side(Role.AGENT, limits, Budget(agent_budget or budget))

    def move(self, source: Side, sink: Side, size: int = 1 << 16, piece: int | None = None) -> int:
        chunks, total = source.mux.take(size)
        data = b"".join(chunks)
        assert len(data) == total
        step = piece or max(len(data), 1)
        for start in range(0, len(data), step):
            sink.mux.receive(data[start : start + step])
        return total

    def pump(self, size: int = 1 << 16, piece: int | None = None) -> None:
        """Until neither side has anything to say."""
        for _ in range(100_000):
            moved = self.move(self.relay, self.agent, size, piece)
            moved += self.move(self.agent, self.relay, size, piece)
            if not moved:
                return
        raise AssertionError("the two never fall silent")
