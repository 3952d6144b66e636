"""``twistd srrrs-agent``."""

from __future__ import annotations

from twisted.application.service import IService

from srrrs.config import ConfigError
from srrrs.tap.options import AgentOptions as Options
from srrrs.tap.options import fail

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service that the options ask for, on the reactor that is installed."""
    from srrrs.tap.service import agent_service, install_reactor, plainly

    install_reactor()
    from twisted.internet import reactor

    try:
        return plainly(agent_service(reactor, options.config), options)
    except ConfigError as error:
        fail(options.prog, str(error))
