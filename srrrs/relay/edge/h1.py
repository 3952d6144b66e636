"""HTTP/1.0 and 1.1 towards visitors: one request after the other on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol

from srrrs.relay.edge.site import ConnectionInfo, Site

if TYPE_CHECKING:
    from srrrs.http.head import RequestHead
    from srrrs.http.request import RequestReader


class HttpVisitor(Protocol):
    """The protocol of a visitor's connection.

    :param connection: what is known of it.
    """

    def __init__(self, site: Site, connection: ConnectionInfo) -> None:
        self._site = site
        self._connection = connection

    def begin(self, reader: RequestReader, head: RequestHead) -> None:
        """Go on, once there is a transport, with a first head that was parsed already.

        :param reader: has given ``head``, and has what came after it.
        """
        raise NotImplementedError
