"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Lab

_LAB = pytest.StashKey[Lab]()


def pytest_configure(config: pytest.Config) -> None:
    # Under nohup the programs would ignore it as well; what is handled here is theirs by default.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Starts programs, and ends them all when the test is over.

    Whatever a test is about, at its end no secret stands in any program's output or command line,
    relays and agents having run at debug level, and no program has met a fault.
    """
    laboratory = Lab(tmp_path)
    request.node.stash[_LAB] = laboratory
    yield laboratory
    laboratory.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Show what the programs wrote where a test failed."""
    report = yield
    laboratory = item.stash.get(_LAB, None)
    if report.failed and laboratory is not None:
        report.sections.append(("programs", laboratory.report()))
    return report
