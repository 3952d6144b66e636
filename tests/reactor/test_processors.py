"""How many processors a process may keep busy."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from srrrs.net.reactor.processors import processors


def here() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the system does not say where one may run"
)


@pytest.mark.parametrize(
    ("quotas", "least"),
    [
        ({}, math.inf),
        ({"srrrs.slice/relay.service": "max 100000"}, math.inf),
        ({"srrrs.slice/relay.service": "50000 100000"}, 0.5),
        ({"srrrs.slice": "25000 100000", "srrrs.slice/relay.service": "50000 100000"}, 0.25),
        ({"": "10000 100000"}, 0.1),
        ({"other.slice": "10000 100000"}, math.inf),
        ({"srrrs.slice": ""}, math.inf),
    ],
)
def test_quotas(tmp_path: Path, quotas: dict[str, str], least: float) -> None:
    """The process's own group counts and those around it, up to the root, and no other."""
    groups = tmp_path / "cgroup"
    (groups / "srrrs.slice" / "relay.service").mkdir(parents=True)
    (groups / "other.slice").mkdir()
    (tmp_path / "cpu.max").write_text("1 100000\n")
    for group, text in quotas.items():
        (groups / group / "cpu.max").write_text(text + "\n")
    own = tmp_path / "own"
    own.write_text("1:name=old:/elsewhere\n0::/srrrs.slice/relay.service\n")
    assert processors(groups, own) == min(here(), least)


def test_no_groups(tmp_path: Path) -> None:
    """As on other systems, and where nothing is mounted."""
    assert processors(tmp_path / "none", tmp_path / "neither") == here()


def test_the_system_s_own() -> None:
    """Whatever this machine has, it is some."""
    assert 0 < processors() <= here()
