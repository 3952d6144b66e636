"""The ``srrrs:`` endpoint strings, for Twisted to find.

Any endpoint string in a process imports this module: what it needs is imported when it is used.
"""

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(
    IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor
)
class _SrrrsParser:
    prefix = "srrrs"

    # Twisted declares these two without self, which the stubs take at their word.
    def parseStreamServer(  # type: ignore[override]
        self, reactor: Any, *args: str, **kwargs: str
    ) -> Any:
        from srrrs.endpoints import parse_server

        if args:
            raise ValueError("srrrs: every argument needs its name: srrrs:edge=...:token=...")
        return parse_server(reactor, **kwargs)

    def parseStreamClient(  # type: ignore[override]
        self, reactor: Any, *args: str, **kwargs: str
    ) -> Any:
        raise ValueError("srrrs: is a server endpoint; as a client endpoint the word is reserved")


parser = _SrrrsParser()
