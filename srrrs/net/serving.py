"""What an endpoint string listens on."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSSL,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from srrrs.net.tls import prefer_fast_ciphers
from srrrs.net.tlsrecords import tls_factory


def server_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """As ``serverFromString``, with our own TLS (:mod:`srrrs.net.tlsrecords`) for ``ssl:``.

    :raises Exception: the string means nothing, or a file that it names cannot be used.
    """
    if description.startswith("ssl:"):
        reactor = _OwnTLS(reactor)
    return serverFromString(reactor, description)  # type: ignore[no-any-return]


@implementer(IReactorSSL)
class _OwnTLS:
    """The reactor, as ``ssl:`` endpoints need it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        prefer_fast_ciphers(contextFactory.getContext())
        inside = tls_factory(contextFactory, False, factory, self._reactor)
        return self._reactor.listenTCP(port, inside, backlog, interface)  # type: ignore[no-any-return]

    def connectSSL(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("this only listens")
