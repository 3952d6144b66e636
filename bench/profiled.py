"""``python -m bench.profiled …``: ``srrrs-tunnel …`` with a profiler, started by SIGUSR1; SIGUSR2
writes what it found."""

from __future__ import annotations

import cProfile
import os
import signal
from pathlib import Path
from types import FrameType


def main() -> None:
    """Run it."""
    from srrrs.cli.main import main as run

    profiler = cProfile.Profile()
    path = Path.cwd() / f"{os.getpid()}.prof"

    def start(number: int, frame: FrameType | None) -> None:
        profiler.enable()

    def stop(number: int, frame: FrameType | None) -> None:
        profiler.disable()
        partial = path.with_suffix(".part")
        profiler.dump_stats(partial)
        partial.rename(path)

    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, stop)
    run()


if __name__ == "__main__":
    main()
