"""Installing the reactor, by name or as the default."""

from __future__ import annotations

import asyncio
import sys

from twisted.logger import Logger


def install() -> None:
    """Install the reactor, on a new uvloop event loop that becomes the thread's own.

    :raises ImportError: uvloop is not installed.
    :raises twisted.internet.error.ReactorAlreadyInstalledError: another reactor is installed.
    """
    import uvloop
    from twisted.internet.main import installReactor

    from srrrs.net.reactor.reactor import LoopReactor

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    installReactor(LoopReactor(loop))


def install_default(log: Logger) -> bool:
    """Install the reactor unless another is installed or uvloop is missing.

    Where uvloop is missing, one line in `log` says that everything will be slower; Twisted then
    chooses a reactor when `twisted.internet.reactor` is first imported.

    :return: whether the reactor was installed.
    """
    if "twisted.internet.reactor" in sys.modules:
        return False
    try:
        install()
    except ImportError:
        log.info("uvloop is not installed: running on Twisted's default reactor, which is slower")
        return False
    return True
