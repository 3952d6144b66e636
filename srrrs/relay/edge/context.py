"""What the exchanges of one visitor's connection share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress

from srrrs.http.forwarding import Forwarder, visitor_address
from srrrs.http.head import RequestHead
from srrrs.net.address import visitor_address as address_of
from srrrs.relay.edge.accesslog import RequestEntry
from srrrs.relay.edge.origin import OriginPool

if TYPE_CHECKING:
    from srrrs.relay.edge.interfaces import IPublicService
    from srrrs.relay.edge.site import ConnectionInfo, Site


class VisitorContext:
    """What the exchanges of one visitor's connection share.

    :ivar pool: its idle connections to services.
    """

    __slots__ = ("_count", "_prefix", "address", "forwarder", "info", "pool", "site", "text")

    def __init__(self, site: Site, info: ConnectionInfo) -> None:
        self.site = site
        self.info = info
        self.address: IAddress = info.peer
        # Empty where there is none (a UNIX socket).
        self.text: str = getattr(info.peer, "host", "").partition("%")[0]
        self.forwarder = Forwarder(self.text, info.secure, info.trusted)
        self.pool = OriginPool(site.idle_origins)
        self._prefix = info.id.encode() + b"-"
        self._count = 0

    def next_id(self) -> bytes:
        """The id of the connection's next request."""
        self._count += 1
        return b"%b%d" % (self._prefix, self._count)

    def who(self, head: RequestHead) -> IAddress:
        """Who asks: a trusted proxy speaks for somebody else."""
        if not self.info.trusted:
            return self.address
        text = visitor_address(head, self.text, self.site.is_trusted)
        return self.address if text == self.text else address_of(f"{text} 0")

    def log(
        self,
        head: RequestHead,
        request_id: bytes,
        service: IPublicService | None,
        visitor: IAddress,
        status: int,
        received: int,
        sent: int,
        arrived: float,
        first_byte: float | None,
        closed: str,
    ) -> None:
        """Write down a request that is over, where that is asked for."""
        log = self.site.access_log
        if log is None:
            return
        log.request(
            RequestEntry(
                id=request_id.decode("latin-1"),
                service="" if service is None else service.name,
                token="" if service is None else service.token_name,
                visitor=getattr(visitor, "host", None) or "-",
                method=head.method.decode("latin-1"),
                host=head.host,
                target=head.target,
                version=head.version,
                status=status,
                received=received,
                sent=sent,
                first_byte=first_byte,
                duration=self.site.clock.seconds() - arrived,
                closed=closed,
                fields=head.fields,
            )
        )

    def log_refusal(
        self, status: int, sent: int, closed: str, version: tuple[int, int] = (1, 1)
    ) -> None:
        """The same of what was no request."""
        log = self.site.access_log
        if log is not None:
            own = self.next_id().decode()
            visitor = self.text or "-"
            log.request(
                RequestEntry(
                    id=own,
                    visitor=visitor,
                    version=version,
                    status=status,
                    sent=sent,
                    closed=closed,
                )
            )

    def close(self) -> None:
        """The connection has ended."""
        self.pool.close()
