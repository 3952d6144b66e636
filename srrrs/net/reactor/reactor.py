"""The reactor: Twisted's asyncio reactor on uvloop, with connections on the loop's transports, or,
while they are new, on none."""

# Twisted does not annotate the classes that this derives from.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvloop
from twisted.internet import error
from twisted.internet._signals import SignalHandling, _MultiSignalHandling
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IConnector, IProtocol, IProtocolFactory
from twisted.python import context
from twisted.python.failure import Failure

from srrrs.net.reactor.direct import AVAILABLE, DirectSet
from srrrs.net.reactor.link import TCPLink
from srrrs.net.reactor.listening import TCPPort, UNIXPort
from srrrs.net.reactor.polling import MOST, Polling
from srrrs.net.reactor.processors import processors
from srrrs.net.reactor.signals import ChildSignalHandling
from srrrs.net.reactor.soon import SoonReactor
from srrrs.net.reactor.stream import RawStream
from srrrs.net.reactor.tcp import TCPClient, TCPConnector, TCPServer
from srrrs.net.reactor.unix import UNIXConnector, UNIXServer


class LoopReactor(SoonReactor):
    """A reactor whose stream connections become the event loop's own.

    Datagrams, processes, timers, threads and name resolution are those of
    `AsyncioSelectorReactor`.

    :ivar loop: the event loop.
    :ivar polling: is told of traffic, and then keeps the loop from sleeping for a moment.
    :ivar direct: watches the connections that the loop has no transport for; none: all have one.
    :ivar streams: all connections.
    """

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = uvloop.new_event_loop() if eventloop is None else eventloop
        # Polling spares nothing where no other processor could do the work meanwhile; where there
        # is a quota, it would use up the work's.
        self.polling = Polling(self.loop.call_soon, most=MOST if processors() >= 2 else 0.0)
        self.direct = DirectSet(self.loop) if AVAILABLE else None
        self.streams: set[RawStream] = set()
        self._dials: list[TCPClient] = []
        # The stack of log contexts of the thread that the reactor runs in.
        self.contexts = context.theContextTracker.currentContext().contexts
        super().__init__(self.loop)

    def startRunning(self, installSignalHandlers: bool = True) -> None:
        self.contexts = context.theContextTracker.currentContext().contexts
        super().startRunning(installSignalHandlers=installSignalHandlers)

    def _signalsFactory(self) -> SignalHandling:
        return _MultiSignalHandling(
            (
                ReactorBase._signalsFactory(self),
                ChildSignalHandling(self._addInternalReader, self._removeInternalReader),
            )
        )

    # -- IReactorFDSet: connections on the loop count as descriptors ---------------------------

    def addReader(self, reader: Any) -> None:
        if isinstance(reader, RawStream):
            reader.startReading()
        else:
            super().addReader(reader)

    def removeReader(self, reader: Any) -> None:
        if isinstance(reader, RawStream):
            reader.stopReading()
        else:
            super().removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        if isinstance(writer, RawStream):
            writer.startWriting()
        else:
            super().addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        if isinstance(writer, RawStream):
            writer.stopWriting()
        else:
            super().removeWriter(writer)

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(s for s in self.streams if s._reading)]

    def getWriters(self) -> list[Any]:
        return [*super().getWriters(), *(s for s in self.streams if s._blocked or s._flush_due)]

    def removeAll(self) -> list[Any]:
        streams = list(self.streams)
        for stream in streams:
            stream.stopReading()
            stream.stopWriting()
        self.streams.clear()
        return [*super().removeAll(), *streams]

    def polls(self, descriptor: Any) -> bool:
        """Whether a descriptor that is not the loop's is watched for reading."""
        return descriptor in self._readers

    # -- many connections in one turn -----------------------------------------------------------

    def dial(self, client: TCPClient) -> None:
        """Have a client connect in the next turn."""
        if not self._dials:
            self.loop.call_soon(self._dial_all)
        self._dials.append(client)

    def _dial_all(self) -> None:
        dials, self._dials = self._dials, []
        for client in dials:
            client._call(client.doConnect)

    # -- IReactorTCP ----------------------------------------------------------------------------

    def listenTCP(
        self, port: Any, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> TCPPort:
        p = TCPPort(port, factory, backlog, interface, self)
        p.startListening()
        return p

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> IConnector:
        c = TCPConnector(host, port, factory, timeout, bindAddress, self)
        c.connect()
        return c

    def connect_to(
        self,
        host: str,
        port: int,
        protocol: IProtocol,
        failed: Callable[[Failure], object],
        timeout: float = 30.0,
    ) -> TCPLink:
        """Connect a protocol that is there already, in fewer steps than `connectTCP`.

        :param failed: called with the failure where no connection comes about.
        :param timeout: seconds.
        """
        return TCPLink(host, port, protocol, failed, timeout, self)

    # -- IReactorUNIX ---------------------------------------------------------------------------

    def listenUNIX(
        self,
        address: Any,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> UNIXPort:
        p = UNIXPort(address, factory, backlog, mode, self, wantPID)
        p.startListening()
        return p

    def connectUNIX(
        self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0
    ) -> IConnector:
        c = UNIXConnector(address, factory, timeout, self, checkPID)
        c.connect()
        return c

    # -- IReactorSocket -------------------------------------------------------------------------

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: Any, factory: IProtocolFactory
    ) -> TCPPort | UNIXPort:
        p: TCPPort | UNIXPort
        if addressFamily == socket.AF_UNIX:
            p = UNIXPort._fromListeningDescriptor(self, fileDescriptor, factory)
        elif addressFamily in self._supportedAddressFamilies:
            p = TCPPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        else:
            raise error.UnsupportedAddressFamily(addressFamily)
        p.startListening()
        return p

    def adoptStreamConnection(
        self, fileDescriptor: int, addressFamily: Any, factory: IProtocolFactory
    ) -> Any:
        if addressFamily == socket.AF_UNIX:
            return UNIXServer._fromConnectedSocket(fileDescriptor, factory, self)
        if addressFamily in self._supportedAddressFamilies:
            return TCPServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)
        raise error.UnsupportedAddressFamily(addressFamily)
