"""Two tunnels back to back over a carrier in memory, on a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.channel import Channel, StreamReset
from srrrs.net.tunnel import ITunnelHandler, Tunnel, TunnelLost
from srrrs.protocol.flow import Budget
from srrrs.protocol.frames import ControlFrame
from srrrs.protocol.mux import Limits, Role
from srrrs.testing import CARRIER_BUFFER, HalfCloseRecorder, MemoryCarrier, Recorder, carriers

VISITOR = IPv4Address("TCP", "203.0.113.9", 4711)
HEARTBEAT = 15.0


def ended(recorder: Recorder, kind: type[BaseException]) -> bool:
    """Whether the connection ended, once, for that reason."""
    assert recorder.events.count("connectionLost") == 1
    return isinstance(recorder.lost, Failure) and recorder.lost.check(kind) is not None


def reset_code(recorder: Recorder) -> int:
    """The code of the reset that ended the stream."""
    assert ended(recorder, StreamReset)
    assert recorder.lost is not None
    error = recorder.lost.value
    assert isinstance(error, StreamReset)
    return error.code


@implementer(ITunnelHandler)
class Side:
    """One end: what it was told, and what it does with a new stream."""

    def __init__(self, clock: Clock, role: Role, limits: Limits, budget: Budget) -> None:
        self.channels: list[Channel] = []
        self.control: list[ControlFrame] = []
        self.lost: list[TunnelLost] = []
        self.parked: list[TunnelLost] = []
        self.resumed: list[int] = []
        self.serve: Callable[[Channel], None] = lambda channel: None
        self.budget = budget
        self.tunnel = Tunnel(clock, role, self, limits, budget)

    def stream_opened(self, channel: Channel, service_id: int) -> None:
        self.channels.append(channel)
        self.serve(channel)

    def control_received(self, frame: ControlFrame) -> None:
        self.control.append(frame)

    def tunnel_parked(self, lost: TunnelLost) -> None:
        self.parked.append(lost)

    def tunnel_resumed(self, replayed: int) -> None:
        self.resumed.append(replayed)

    def tunnel_lost(self, lost: TunnelLost) -> None:
        self.lost.append(lost)


class Pair:
    """A relay's and an agent's tunnel."""

    def __init__(
        self,
        limits: Limits | None = None,
        heartbeat: float = HEARTBEAT,
        carrier_buffer: int = CARRIER_BUFFER,
        budget: int = 256 << 20,
        grace: float = 0.0,
    ) -> None:
        self.clock = Clock()
        self._buffer = carrier_buffer
        self._heartbeat = heartbeat
        limits = limits or Limits()
        self.relay = Side(self.clock, Role.RELAY, limits, Budget(budget))
        self.agent = Side(self.clock, Role.AGENT, limits, Budget(budget))
        # The relay's end is where what the relay sends waits.
        self.relay_carrier: MemoryCarrier
        self.agent_carrier: MemoryCarrier
        self.relay_carrier, self.agent_carrier = carriers(self.clock, carrier_buffer)
        self.relay.tunnel.attach(self.relay_carrier, heartbeat, grace)
        self.agent.tunnel.attach(self.agent_carrier, heartbeat, grace)

    def redial(self) -> None:
        """Another carrier, on which both ends go on, as after a handshake."""
        self.relay_carrier, self.agent_carrier = carriers(self.clock, self._buffer)
        told = {side: side.tunnel.session.received for side in (self.relay, self.agent)}
        self.relay.tunnel.check_resume(told[self.agent])
        self.relay.tunnel.resume(self.relay_carrier, self._heartbeat, told[self.agent])
        self.agent.tunnel.check_resume(told[self.relay])
        self.agent.tunnel.resume(self.agent_carrier, self._heartbeat, told[self.relay])

    def turn(self) -> None:
        """A turn of the reactor, in which nothing moves between the ends."""
        self.clock.advance(0)

    def settle(self) -> None:
        """Until neither end has anything to do now."""
        for _ in range(100_000):
            self.turn()
            moved = self.relay_carrier.deliver() + self.agent_carrier.deliver()
            now = self.clock.seconds()
            if not moved and all(call.getTime() > now for call in self.clock.getDelayedCalls()):
                return
        raise AssertionError("the two never fall silent")

    def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Let time go by, with everything delivered as it comes."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.settle()

    def open(self) -> tuple[Channel, Channel]:
        """A new stream: the relay's channel and the agent's, neither attached to a protocol."""
        near = self.relay.tunnel.open(1, VISITOR)
        self.settle()
        return near, self.agent.channels[-1]

    def joined(self, kind: type[Recorder] = HalfCloseRecorder) -> tuple[Channel, Any, Channel, Any]:
        """A new stream with a recorder on each end: channel, recorder, channel, recorder."""
        near, far = self.open()
        a, b = kind(), kind()
        near.attach(a)
        far.attach(b)
        return near, a, far, b

    @property
    def frames_to_relay(self) -> bytes:
        """Session bytes that are under way to the relay."""
        return b"".join(data for kind, data in self.agent_carrier.outbox if kind == "data")
