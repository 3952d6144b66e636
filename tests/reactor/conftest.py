"""The reactor that the tests run on."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def loop_reactor(reactor: Any) -> Any:
    """The same, for what only this reactor promises."""
    module = pytest.importorskip("srrrs.net.reactor.reactor")
    if not isinstance(reactor, module.LoopReactor):
        pytest.skip("another reactor is installed")
    return reactor
