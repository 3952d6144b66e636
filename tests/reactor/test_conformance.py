"""The reactor passes Twisted's own tests of reactors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.test.reactormixins import ReactorBuilder

pytest.importorskip("hamcrest")
pytest.importorskip("uvloop")

ROOT = Path(__file__).parents[2]
OURS = "srrrs.net.reactor.reactor.LoopReactor"


def conformance(reactor: str, where: Path) -> dict[str, Any]:
    where.mkdir()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.reactor.conformance", reactor],
        cwd=where,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.slow
def test_twisted_reactor_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It passes every test that Twisted's asyncio reactor passes on this machine, and skips no
    more; both counts are printed."""
    # Twisted itself says how it wants to have its own tested.
    name = next(n for n in ReactorBuilder._reactors if n.endswith(".AsyncioSelectorReactor"))
    theirs = conformance(name, tmp_path / "theirs")
    ours = conformance(OURS, tmp_path / "ours")
    with capsys.disabled():
        for name, report in (("AsyncioSelectorReactor", theirs), ("LoopReactor", ours)):
            counts = {key: len(report[key]) for key in ("passed", "skipped", "failed")}
            print(f"\n{name}: {report['ran']} run, {counts}", end="")
    assert ours["ran"] == theirs["ran"] > 300
    assert set(theirs["passed"]) - set(ours["passed"]) == set(), ours["log"]
    assert set(ours["skipped"]) - set(theirs["skipped"]) == set()
