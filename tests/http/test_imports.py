"""The room is pure: importing it loads nothing that could do I/O or log."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import pkgutil, importlib, sys
import srrrs.http
for module in pkgutil.walk_packages(srrrs.http.__path__, "srrrs.http."):
    importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"twisted", "autobahn", "asyncio", "socket", "logging", "ssl", "txaio"}))
"""


def test_the_http_room_loads_no_twisted_and_no_sockets() -> None:
    """In a fresh interpreter, every module of ``srrrs.http`` leaves those out."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
