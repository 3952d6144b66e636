"""SIGHUP."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.python.failure import Failure

from srrrs.net.hangup import HangupService


class Reactor:
    """Calls at once."""

    def callFromThread(self, call: Callable[[], None]) -> None:
        call()


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The signal's handler is what it was."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_it_calls_as_often_as_it_comes(flush_logged_errors: Callable[..., list[Failure]]) -> None:
    """What goes wrong is logged, and the next one is served all the same."""
    calls: list[Any] = []

    def reload() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise ZeroDivisionError

    service = HangupService(Reactor(), reload)
    service.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(calls) == 2
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    service.stopService()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_somebody_elses_signal_is_theirs() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service = HangupService(Reactor(), lambda: None)
    service.startService()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    service.stopService()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
