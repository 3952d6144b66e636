"""Connections of TCP, ssh and passed-through TLS services in the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from srrrs.protocol.errors import ResetCode
from srrrs.relay.edge.accesslog import AccessLog, ConnectionEntry
from srrrs.relay.edge.splicing import CountedSplice

if TYPE_CHECKING:
    from srrrs.net.channel import Channel
    from srrrs.relay.edge.interfaces import IPublicService

DENIED: Final = "turned away by a policy"
TOO_MANY: Final = "too many connections of one address"
AWAY: Final = "no agent"
BUSY: Final = "overload"
GONE: Final = "the visitor went away"
_RESETS: Final[dict[int, str]] = {
    ResetCode.CANCEL: "the service broke it off",
    ResetCode.REFUSED: "the service refused",
    ResetCode.TIMEOUT: "the service did not answer",
    ResetCode.OVERLOAD: BUSY,
    ResetCode.UNKNOWN_SERVICE: AWAY,
    ResetCode.WITHDRAWN: AWAY,
    ResetCode.GONE: "the tunnel ended",
}


def entry_for(
    service: IPublicService, kind: str, visitor: IAddress, connection_id: str, host: str = ""
) -> ConnectionEntry:
    """The entry of a connection that begins.

    :param host: the name that TLS was asked for.
    """
    return ConnectionEntry(
        id=connection_id,
        kind=kind,
        service=service.name,
        token=service.token_name,
        visitor=getattr(visitor, "host", None) or "-",
        host=host,
    )


class LoggedSplice(CountedSplice):
    """Tells the access log of its connection once that is over."""

    __slots__ = ("_access_log", "_began", "_entry")

    def __init__(self, channel: Channel, access_log: AccessLog, entry: ConnectionEntry) -> None:
        self._access_log = access_log
        self._entry: ConnectionEntry | None = entry
        self._began = channel.clock.seconds()
        super().__init__(channel)

    def connectionMade(self) -> None:
        entry = self._entry
        if entry is not None and entry.kind != "tls":
            host: Any = self.transport.getHost()
            entry.port = getattr(host, "port", None)
        super().connectionMade()

    def data_received(self, data: bytes) -> None:
        if not self.sent and self._entry is not None:
            self._entry.first_byte = self._clock.seconds() - self._began
        super().data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Whether our own abort or the visitor's end is why, the stream tells.
        reset = self._reset
        super().connectionLost(reason)
        entry, self._entry = self._entry, None
        if entry is None:
            return
        entry.received, entry.sent = self.received, self.sent
        entry.duration = self._clock.seconds() - self._began
        if reset is not None:
            entry.closed = _RESETS.get(reset, "a fault")
        elif not isinstance(reason.value, ConnectionDone):
            entry.closed = GONE
        self._access_log.connection(entry)
