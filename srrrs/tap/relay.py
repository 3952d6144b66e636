"""``twistd srrrs-relay``."""

from __future__ import annotations

from twisted.application.service import IService

from srrrs.config import ConfigError
from srrrs.tap.options import RelayOptions as Options
from srrrs.tap.options import fail

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """The service that the options ask for, on the reactor that is installed."""
    from srrrs.tap.service import install_reactor, plainly, relay_service

    install_reactor()
    from twisted.internet import reactor

    try:
        return plainly(relay_service(reactor, options.config), options)
    except ConfigError as error:
        fail(options.prog, str(error))
