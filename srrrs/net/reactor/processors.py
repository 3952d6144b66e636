"""How many processors this process may keep busy: where it may run, and what its groups have."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux shows the groups (``Documentation/admin-guide/cgroup-v2.rst``)."""
OWN: Final = Path("/proc/self/cgroup")
"""Where it says which group this process is in (cgroups(7))."""


def processors(cgroups: Path = CGROUPS, own: Path = OWN) -> float:
    """Processors, of which a quota may leave a fraction (``CPUQuota=`` of systemd, ``--cpus`` of a
    container)."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return min(count, _quota(cgroups, own))


def _quota(cgroups: Path, own: Path) -> float:
    """The least that this process's group, or one around it, may use; infinite without a quota."""
    least = math.inf
    try:
        # Of version 2 there is one hierarchy, with number 0 and no names of controllers.
        lines = [line for line in own.read_text().splitlines() if line.startswith("0::/")]
    except OSError:
        return least
    for line in lines:
        group = cgroups / line[len("0::/") :]
        for each in (group, *group.parents):
            if each != cgroups and cgroups not in each.parents:
                break
            try:
                quota, period = (each / "cpu.max").read_text().split()
                least = min(least, int(quota) / int(period))
            except (OSError, ValueError):
                pass  # There is no such file at the root; "max" is no number.
    return least
