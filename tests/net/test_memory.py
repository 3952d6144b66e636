"""The C library's memory, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from srrrs.net.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        bytearray(1 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_what_is_freed_is_used_again() -> None:
    """The pages of a large piece of memory are not asked of the system again and again."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 100


def test_garbage_is_looked_for_less_often() -> None:
    """And what the program consists of is left out."""
    program = (
        "import gc; from srrrs.net.memory import COLLECT_AT, collect_seldom; collect_seldom(); "
        "print(gc.get_threshold() == COLLECT_AT, gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True"] * 3
