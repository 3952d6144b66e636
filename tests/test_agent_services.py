"""The registry of services: what is asked of the relay, and what its answers mean."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from srrrs.agent.phases import TRANSITIONS, Input, Phase
from srrrs.agent.services import (
    WITHDRAW_TIMEOUT,
    PublishedService,
    ServiceRefused,
    ServiceRemoved,
    Services,
)
from srrrs.protocol.errors import ResetCode
from srrrs.protocol.frames import Goaway, Refused, Register, Registered, Withdraw, Withdrawn
from tests.agent_fakes import FakeBackend, FakeChannel


class Observer:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def ready(self, service: PublishedService) -> None:
        self.told.append(("ready", service.name, service.endpoint))

    def refused(
        self, service: PublishedService, code: str, message: str, retry: float | None
    ) -> None:
        self.told.append(("refused", service.name, code, message, retry))

    def withdrawn(self, service: PublishedService, reason: str) -> None:
        self.told.append(("withdrawn", service.name, reason))


class Registry:
    """A registry with everything around it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.observer = Observer()
        self.services = Services(self.clock, lambda: 0.5, self.observer)
        self.sent: list[Any] = []
        self.backend = FakeBackend()

    def up(self) -> None:
        self.services.up(self.sent.append)

    def add(self, name: str = "blog") -> PublishedService:
        return self.services.add(Register(0, name, "http", name), self.backend)

    def reach(self, phase: Phase) -> PublishedService:
        """A service in that phase, over the table's own inputs."""
        service = self.add()
        if phase is Phase.OFFLINE:
            return service
        if phase is Phase.REMOVED:
            self.services.remove(service.name)
            return service
        self.up()
        answers: dict[Phase, list[Any]] = {
            Phase.REGISTERED: [Registered(1, "http://blog.localhost")],
            Phase.REFUSED: [Refused(1, "taken", "taken", None)],
            Phase.WAITING: [Refused(1, "busy", "busy", 5.0)],
        }
        for answer in answers.get(phase, []):
            self.services.received(answer)
        if phase is Phase.SUSPENDING:
            self.services.suspend()
        if phase is Phase.WITHDRAWING:
            self.services.remove(service.name)
        return service


def test_every_phase_answers_every_input() -> None:
    assert set(TRANSITIONS) == {(phase, event) for phase in Phase for event in Input}


@pytest.mark.parametrize("event", list(Input), ids=lambda each: each.name)
@pytest.mark.parametrize("phase", list(Phase), ids=lambda each: each.name)
def test_the_registry_takes_each_input_in_each_phase(phase: Phase, event: Input) -> None:
    """It ends where the table says, and leaves no timer behind a service that is gone."""
    registry = Registry()
    service = registry.reach(phase)
    assert service.phase is phase
    service._refusal = ServiceRefused("blog", "taken", "taken")
    service.endpoint = service.endpoint or "http://blog.localhost"
    if event is Input.DUE:
        registry.services._settle(service)
    registry.services._input(service, event)
    assert service.phase is TRANSITIONS[phase, event][0]
    if service.phase in (Phase.REMOVED, Phase.OFFLINE, Phase.REFUSED):
        assert registry.clock.getDelayedCalls() == []
        assert service.service_id not in registry.services._by_id


def test_services_are_registered_when_a_tunnel_stands() -> None:
    registry = Registry()
    registry.add("blog")
    registry.services.add(Register(0, "ssh", "ssh"), FakeBackend())
    assert registry.sent == []
    registry.up()
    assert registry.sent == [Register(1, "blog", "http", "blog"), Register(2, "ssh", "ssh", None)]


def test_a_service_can_be_added_and_removed_on_a_live_tunnel() -> None:
    registry = Registry()
    registry.up()
    registry.add()
    assert registry.sent == [Register(1, "blog", "http", "blog")]
    registry.services.received(Registered(1, "http://blog.localhost"))
    removed: list[None] = []
    registry.services.remove("blog").addCallback(removed.append)
    assert registry.sent[-1] == Withdraw(1)
    assert removed == []
    registry.services.received(Withdrawn(1, "asked for"))
    assert removed == [None]
    assert len(registry.services) == 0
    assert registry.backend.calls == ["started", "stopped"]


def test_a_removal_ends_by_its_deadline_or_with_the_tunnel() -> None:
    for end in ("deadline", "tunnel"):
        registry = Registry()
        registry.reach(Phase.REGISTERED)
        removed: list[None] = []
        registry.services.remove("blog").addCallback(removed.append)
        if end == "deadline":
            registry.clock.advance(WITHDRAW_TIMEOUT)
        else:
            registry.services.down()
        assert removed == [None]
        assert registry.clock.getDelayedCalls() == []


def test_ids_are_never_used_twice() -> None:
    """What still names an older id must not reach a newer service."""
    registry = Registry()
    registry.reach(Phase.REGISTERED)
    registry.services.down()
    registry.up()
    assert [frame.service_id for frame in registry.sent] == [1, 2]
    registry.services.received(Registered(1, "http://stale.localhost"))
    assert registry.observer.told == [("ready", "blog", "http://blog.localhost")]


def test_only_a_registered_service_is_opened() -> None:
    registry = Registry()
    registry.add()
    registry.up()
    for service_id in (0, 1, 2, 99):  # 1 is asked for and not answered yet
        channel = FakeChannel()
        registry.services.opened(channel, service_id)
        assert [code for code, _ in channel.resets] == [ResetCode.UNKNOWN_SERVICE]
    registry.services.received(Registered(1, "http://blog.localhost"))
    channel = FakeChannel()
    registry.services.opened(channel, 1)
    assert registry.backend.channels == [channel]


@pytest.mark.parametrize("phase", [Phase.SUSPENDING, Phase.WITHDRAWING])
def test_a_visitor_who_crossed_the_withdrawal_is_told_so(phase: Phase) -> None:
    registry = Registry()
    registry.reach(phase)
    channel = FakeChannel()
    registry.services.opened(channel, 1)
    assert [code for code, _ in channel.resets] == [ResetCode.WITHDRAWN]


def test_a_refusal_with_retry_is_asked_again_and_told_once() -> None:
    registry = Registry()
    registry.add()
    registry.up()
    registry.services.received(Refused(1, "in-use", "held by another run", 10.0))
    registry.clock.advance(10)
    assert len(registry.sent) == 1  # the relay's time, and some jitter on top
    registry.clock.advance(1)
    assert registry.sent[-1] == Register(2, "blog", "http", "blog")
    registry.services.received(Refused(2, "in-use", "held by another run", 10.0))
    registry.clock.advance(12)
    registry.services.received(Registered(3, "http://blog.localhost"))
    assert registry.observer.told == [
        ("refused", "blog", "in-use", "held by another run", 10.0),
        ("ready", "blog", "http://blog.localhost"),
    ]


def test_a_refusal_for_good_is_told_once_and_asked_again_on_the_next_tunnel_only() -> None:
    registry = Registry()
    service = registry.add()
    failures: list[Any] = []
    service.when_registered().addErrback(failures.append)
    registry.up()
    registry.services.received(Refused(1, "taken", "the name belongs to another token", None))
    registry.clock.advance(100_000)
    assert len(registry.sent) == 1
    assert failures[0].check(ServiceRefused)
    registry.services.down()
    registry.up()
    registry.services.received(Refused(2, "taken", "the name belongs to another token", None))
    assert len(registry.sent) == 2
    assert len(registry.observer.told) == 1
    service.when_registered().addErrback(failures.append)
    assert failures[1].value.code == "taken"


def test_a_relay_cannot_postpone_the_next_question_for_ever() -> None:
    registry = Registry()
    registry.add()
    registry.up()
    registry.services.received(Refused(1, "x", "x", 1e12))
    registry.clock.advance(3601)
    assert len(registry.sent) == 2


def test_a_service_taken_away_is_asked_for_again_but_not_at_once() -> None:
    """Two agents that claim one service must not evict each other in turn."""
    registry = Registry()
    registry.reach(Phase.REGISTERED)
    registry.services.received(Withdrawn(1, "taken over by another run"))
    assert registry.observer.told[-1] == ("withdrawn", "blog", "taken over by another run")
    registry.clock.advance(4.9)
    assert len(registry.sent) == 1
    registry.clock.advance(10)
    assert len(registry.sent) == 2


def test_suspending_waits_for_every_confirmation() -> None:
    registry = Registry()
    registry.add("a")
    registry.add("b")
    registry.add("c")
    registry.up()
    registry.services.received(Registered(1, "http://a.localhost"))
    registry.services.received(Refused(3, "busy", "busy", 5.0))
    done: list[None] = []
    registry.services.suspend().addCallback(done.append)
    assert registry.sent[3:] == [Withdraw(1), Withdraw(2)]
    registry.services.received(Withdrawn(1, ""))
    registry.services.received(Registered(2, "http://b.localhost"))  # crossed
    assert done == []
    registry.services.received(Withdrawn(2, ""))
    assert done == [None]
    assert registry.clock.getDelayedCalls() == []
    assert len(registry.services) == 3


def test_waiting_for_an_address() -> None:
    registry = Registry()
    service = registry.add()
    addresses: list[str] = []
    first = service.when_registered()
    second = service.when_registered().addCallback(addresses.append)
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    registry.up()
    registry.services.received(Registered(1, "http://blog.localhost"))
    service.when_registered().addCallback(addresses.append)
    assert addresses == ["http://blog.localhost"] * 2
    assert second.called
    registry.services.remove("blog")
    registry.services.received(Withdrawn(1, ""))
    failures: list[Any] = []
    service.when_registered().addErrback(failures.append)
    assert failures[0].check(ServiceRemoved)


@pytest.mark.parametrize(
    ("name", "kind"), [("Blog", "http"), ("a_b", "http"), ("-a", "tcp"), ("", "tcp"), ("a", "udp")]
)
def test_names_and_kinds_are_checked(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match="cannot be published"):
        Registry().services.add(Register(0, name, kind), FakeBackend())


def test_a_name_is_used_once() -> None:
    registry = Registry()
    registry.add()
    with pytest.raises(ValueError, match="two services are named 'blog'"):
        registry.add()


def test_other_frames_are_not_the_registrys() -> None:
    Registry().services.received(Goaway("bye"))
