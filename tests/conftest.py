"""What every test is held to: it leaves no error in the log, and nothing in the reactor."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs import _form

FlushLoggedErrors = Callable[..., list[Failure]]

#: Steps of 10 ms that a test's connections have to close behind it.
_GRACE: Final = 200
_DEFERRED: Final = "twisted.internet.defer"

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("full", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run on the reactor that users get, unless ``--reactor=default`` asks for Twisted's own, and
    on what the sources say."""
    late = _form.outdated()
    if late:
        names = ", ".join(late)
        pytest.exit(f"compiled before their last change: {names}; see docs/dependencies.md", 2)
    if config.getoption("reactor") == "asyncio":
        from srrrs.tap.service import install_reactor

        install_reactor()


@implementer(ILogObserver)
class LoggedErrors:
    """The critical events of one test."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        critical = event.get("log_level") is LogLevel.critical or event.get("isError")
        # Twisted announces a Deferred's failure by an event of its own.
        announced = event.get("log_namespace") == _DEFERRED and "log_failure" not in event
        if critical and not announced:
            self.events.append(event)

    def flush(self, *types: type[BaseException]) -> list[Failure]:
        """Take out the errors of these types, or all of them, and return their failures."""
        # A Deferred whose failure nobody handled says so when it is collected.
        gc.collect()
        taken, kept = [], []
        for event in self.events:
            failure = event.get("log_failure")
            if not types or (failure is not None and failure.check(*types)):
                taken.append(event)
            else:
                kept.append(event)
        self.events[:] = kept
        return [event["log_failure"] for event in taken if "log_failure" in event]


@pytest.fixture
def logged_errors() -> Iterator[LoggedErrors]:
    """Listens to the log for as long as the test runs."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    yield errors
    globalLogPublisher.removeObserver(errors)


@pytest.fixture
def flush_logged_errors(logged_errors: LoggedErrors) -> FlushLoggedErrors:
    """For tests that make errors on purpose: ``flush_logged_errors(SomeError)`` takes them out of
    the log and returns their failures."""
    return logged_errors.flush


@pytest.fixture(autouse=True)
def nothing_left_behind(logged_errors: LoggedErrors) -> Iterator[None]:
    """Fails a test that leaves a delayed call, a reader, a writer, or an error in the log."""
    from twisted.internet import reactor

    before = _held(reactor)
    yield
    left = _held(reactor) - before
    for _ in range(_GRACE):
        if not left:
            break
        pytest_twisted.blockon(_a_moment(reactor))
        left = _held(reactor) - before
    # The young objects are the test's own; the old ones were looked at behind earlier tests.
    gc.collect(1)
    problems = [f"left in the reactor: {each!r}" for each in left]
    problems += [eventAsText(event, includeTimestamp=False) for event in logged_errors.events]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


def _held(reactor: Any) -> set[Any]:
    held = {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}
    # A reactor keeps its wakers, which it makes when it first needs them.
    return {each for each in held if not type(each).__name__.endswith("Waker")}


def _a_moment(reactor: Any) -> Deferred[None]:
    return deferLater(reactor, 0.01, lambda: None)
