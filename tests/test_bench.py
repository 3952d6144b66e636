"""The measurements run: they are not to rot unnoticed. What they measure is not looked at."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parent.parent
DEADLINE = 120.0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_quick_comparison_of_srrrs_alone_gives_figures_and_a_picture(tmp_path: Path) -> None:
    """``python -m bench compare`` starts a relay and an agent, loads them and writes its files."""
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.svg"
    words = [sys.executable, "-m", "bench", "compare", "--quick", "--plain", "--seconds", "0.2"]
    words += ["--peers", "srrrs", "--json", str(figures), "--svg", str(picture)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "**srrrs**" in done.stdout
    (table,) = json.loads(figures.read_text())["tables"]
    assert table["failures"] == []
    assert {"up", "down", "up8", "down8", "cpu_gb", "memory"} <= set(table["medians"]["srrrs"])
    assert ET.parse(picture).getroot().tag.endswith("svg")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_quick_requests_by_name_give_figures(tmp_path: Path) -> None:
    """``python -m bench http``, with slow clients, each of which is there at the end."""
    if not (shutil.which("wrk") and shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")):
        pytest.skip("wrk or nginx is not installed")
    figures = tmp_path / "figures.json"
    words = [sys.executable, "-m", "bench", "http", "--quick", "--peers", "srrrs", "--slow", "50"]
    done = subprocess.run(
        [*words, "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())["srrrs"]
    assert found["slow alive"] == 50
    assert found["errors beside slow"] == found["conn errors"] == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_requests_in_alternation_give_a_table() -> None:
    """``python -m bench alternate`` stops and continues its clients, and counts what they read."""
    if not (shutil.which("wrk") and shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")):
        pytest.skip("wrk or nginx is not installed")
    words = [sys.executable, "-m", "bench", "alternate", "--seconds", "0.5", "--slot", "0.1"]
    words += ["--connections", "4", "--peers", "srrrs"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "| srrrs |" in done.stdout
