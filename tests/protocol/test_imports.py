"""The core is pure: importing it loads nothing that could do I/O or log."""

import subprocess
import sys

CHECK = """
import pkgutil, importlib, sys
import srrrs.protocol
for module in pkgutil.walk_packages(srrrs.protocol.__path__, "srrrs.protocol."):
    importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"twisted", "autobahn", "asyncio", "socket", "logging", "ssl", "txaio"}))
"""


def test_the_protocol_package_loads_no_twisted_and_no_sockets() -> None:
    """In a fresh interpreter, every module of ``srrrs.protocol`` leaves those out."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
