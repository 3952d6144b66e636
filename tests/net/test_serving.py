"""What ``ssl:`` listeners are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import crypto
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import INegotiated, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.serving import server_endpoint
from srrrs.net.tlsclient import client_connection_creator
from srrrs.net.tlsrecords import BatchedTLS, TLSEndpoint
from tests.integration.certificates import write_certificate

DH = """-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


class Ends(Protocol):
    """Says hello, and ends once it was greeted."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.below: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.below = self.transport
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.alpn = INegotiated(self.below).negotiatedProtocol
        self.cipher = self.below.getHandle().get_cipher_name()
        self.below.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


@implementer(IProtocolNegotiationFactory)
class Greeters(Factory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Ends] = []

    def buildProtocol(self, addr: Any) -> Ends:
        self.made.append(Ends())
        return self.made[-1]

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


@pytest_twisted.ensureDeferred
async def test_own_tls(tmp_path: Path) -> None:
    """An ``ssl:`` listener's connections run on our TLS, with ALPN and the fastest cipher."""
    from twisted.internet import reactor

    clock: Any = reactor
    listen, pin = write_certificate(tmp_path, "relay.example")
    served = Greeters()
    port: Any = await server_endpoint(reactor, listen).listen(served)
    try:
        creator = client_connection_creator("relay.example", pin=pin)
        way = TCP4ClientEndpoint(clock, "127.0.0.1", port.getHost().port)
        factory: Any = Factory.forProtocol(Ends)
        client: Any = await TLSEndpoint(clock, creator, way).connect(factory)
        await client.ended
        (server,) = served.made
        await server.ended
    finally:
        await port.stopListening()
    assert isinstance(server.below, BatchedTLS)
    assert server.alpn == client.alpn == b"http/1.1"
    assert client.cipher == "TLS_AES_128_GCM_SHA256"


@pytest.mark.filterwarnings("ignore:Passing method:DeprecationWarning")
def test_options(tmp_path: Path) -> None:
    """All of ``ssl:``'s options mean what they do in Twisted."""
    listen, _ = write_certificate(tmp_path, "relay.example")
    (tmp_path / "dh.pem").write_text(DH)
    listen = listen.replace("ssl:0:", "ssl:8443:").replace("127.0.0.1", "127.0.0.2")
    listen += f":backlog=7:sslmethod=TLS_METHOD:dhParameters={tmp_path}/dh.pem"
    listen += f":extraCertChain={tmp_path}/own.crt"
    reactor = MemoryReactorClock()
    server_endpoint(reactor, listen).listen(Greeters())
    ((port, factory, backlog, interface),) = reactor.tcpServers
    assert (port, backlog, interface) == (8443, 7, "127.0.0.2")
    peer = IPv4Address("TCP", "192.0.2.1", 4711)
    assert isinstance(factory.buildProtocol(peer), BatchedTLS)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("privateKey=/nowhere/key.pem", OSError),
        ("privateKey={0}/own.key:certKey={0}/nothing", crypto.Error),
        ("privateKey={0}/own.key:certKey={0}/own.crt:extraCertChain={0}/nothing", ValueError),
    ],
)
def test_wrong_files(options: str, error: type[Exception], tmp_path: Path) -> None:
    """They are told when the string is read."""
    write_certificate(tmp_path, "relay.example")
    (tmp_path / "nothing").touch()
    with pytest.raises(error):
        server_endpoint(MemoryReactorClock(), f"ssl:443:{options.format(tmp_path)}")


def test_others_are_twisteds() -> None:
    """Other endpoints get the reactor itself."""
    reactor = MemoryReactorClock()
    server_endpoint(reactor, "tcp:80:backlog=9").listen(Greeters())
    ((port, factory, backlog, _),) = reactor.tcpServers
    assert (port, backlog) == (80, 9)
    assert isinstance(factory, Greeters)
