"""A carrier in doubt, after a change of the network: kept, or given up at once or soon."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from srrrs.net.tunnel import PROBE_MIN, PROBE_ROUND_TRIPS, TunnelLost
from srrrs.protocol.errors import CloseCode
from tests.net.kit import HEARTBEAT, Pair


def quiet() -> Pair:
    """A pair that has been there for a while."""
    pair = Pair(grace=60.0)
    pair.joined()
    pair.pass_time(HEARTBEAT / 2)
    return pair


def silent_after(pair: Pair, step: float = 0.01) -> float:
    """Seconds until the agent's end gives its carrier up."""
    clock: IReactorTime = pair.clock
    start = clock.seconds()
    while not pair.agent.parked:
        assert clock.seconds() < start + 10 * HEARTBEAT
        pair.clock.advance(step)
    return clock.seconds() - start


def test_without_the_address_it_is_given_up_at_once() -> None:
    pair = quiet()
    pair.agent_carrier.stranded = True
    pair.agent.tunnel.probe()
    assert pair.agent.parked == [TunnelLost(None, "this machine's address has changed")]
    assert pair.agent_carrier.aborted


def test_an_answer_keeps_it() -> None:
    """A ping is all that it costs, however often it is asked before the answer."""
    pair = quiet()
    pair.clock.advance(0)
    for _ in range(5):
        pair.agent.tunnel.probe()
    assert [kind for kind, _ in pair.agent_carrier.outbox] == ["ping"]
    pair.settle()
    pair.pass_time(10 * HEARTBEAT)
    assert pair.agent.parked == pair.relay.parked == []


def test_no_answer_ends_it_soon() -> None:
    """Within a second where the round trip is short, and not later for being asked again."""
    pair = quiet()
    pair.agent.tunnel.probe()
    pair.clock.advance(PROBE_MIN / 2)
    pair.agent.tunnel.probe()
    assert PROBE_MIN / 2 - 0.02 <= silent_after(pair) <= PROBE_MIN / 2 + 0.02
    assert [lost.code for lost in pair.agent.parked] == [CloseCode.SILENCE]
    assert pair.agent.parked[0].reason.startswith("nothing heard for ")


def test_a_long_way_has_longer() -> None:
    pair = quiet()
    pair.agent.tunnel.rtt = 2.0
    pair.agent.tunnel.probe()
    wait = PROBE_ROUND_TRIPS * 2.0
    assert wait - 0.02 <= silent_after(pair) <= wait + 0.02


def test_what_is_heard_meanwhile_gives_it_time() -> None:
    """The answer may have to wait behind much else; where the rest falls silent too, that is
    noticed as soon."""
    pair = quiet()
    pair.agent.tunnel.probe()
    for _ in range(20):
        pair.clock.advance(PROBE_MIN * 0.9)
        pair.agent_carrier.heard_at = pair.clock.seconds()
    assert pair.agent.parked == []
    assert PROBE_MIN - 0.02 <= silent_after(pair) <= PROBE_MIN + 0.02


def test_a_later_answer_will_do() -> None:
    """A peer need answer the latest of several pings only (RFC 6455, 5.5.3)."""
    pair = quiet()
    pair.agent.tunnel.probe()
    pair.agent_carrier.outbox.clear()
    pair.agent.tunnel.ping().addErrback(lambda _: None)
    pair.settle()
    pair.clock.advance(PROBE_MIN + 1)
    assert pair.agent.parked == []


def test_an_earlier_answer_will_not() -> None:
    """It was on its way before the change."""
    pair = quiet()
    pair.agent.tunnel.ping().addErrback(lambda _: None)
    pair.agent.tunnel.probe()
    pair.agent_carrier.deliver(1)
    pair.agent_carrier.outbox.clear()
    pair.relay_carrier.deliver()
    assert PROBE_MIN - 0.02 <= silent_after(pair) <= PROBE_MIN + 0.02


def test_the_next_carrier_is_not_in_doubt() -> None:
    pair = quiet()
    pair.agent.tunnel.probe()
    pair.relay_carrier.cut()
    pair.redial()
    pair.settle()
    pair.clock.advance(PROBE_MIN + 0.1)
    assert len(pair.agent.parked) == 1
    assert pair.agent.tunnel.state is pair.relay.tunnel.state
    pair.agent.tunnel.probe()
    assert PROBE_MIN - 0.02 <= silent_after_again(pair) <= PROBE_MIN + 0.02


def silent_after_again(pair: Pair) -> float:
    pair.agent.parked.clear()
    return silent_after(pair)


def test_without_a_carrier() -> None:
    """Parked or ended, there is nothing to doubt."""
    pair = quiet()
    pair.relay_carrier.cut()
    pair.agent.tunnel.probe()
    assert len(pair.agent.parked) == 1
    pair.agent.tunnel.abort("over")
    pair.agent.tunnel.probe()
    assert len(pair.agent.lost) == 1
