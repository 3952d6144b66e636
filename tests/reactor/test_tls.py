"""TLS is Twisted's, over the loop's connections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from twisted.internet import error, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.protocols.tls import TLSMemoryBIOFactory

from srrrs.net.selfsigned import make_certificate
from srrrs.net.tlsrecords import tls_factory
from tests.conftest import FlushLoggedErrors
from tests.reactor.kit import Client, HalfCloser, Pair, Recorder, Server, tcp_pair, turns, until
from tests.reactor.test_streams import HUGE, Puller, Pusher

ensure = pytest_twisted.ensureDeferred


@pytest.fixture(scope="module")
def context() -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    day = timedelta(days=1)
    certificate = make_certificate(key, [x509.DNSName("relay.example")], now - day, now + day)
    return ssl.CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),
        certificate=crypto.X509.from_cryptography(certificate),
    )


async def tls_pair(
    reactor: Any, context: Any, server: Any = Recorder, client: Any = Recorder
) -> Pair:
    factory = Server(server)
    port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
    protocol = client()
    where = ("127.0.0.1", port.getHost().port)
    reactor.connectSSL(*where, Client(protocol), ssl.ClientContextFactory())
    await protocol.made
    served = await until(reactor, lambda: factory.protocols and factory.protocols[0])
    return Pair(port, served, protocol)


@ensure
async def test_both_ways(reactor: Any, context: Any) -> None:
    """Bytes go both ways, many at once and after the close was asked for."""
    pair = await tls_pair(reactor, context)
    assert ISSLTransport.providedBy(pair.client.transport)
    pair.client.transport.write(b"1" * HUGE)
    pair.server.transport.writeSequence([b"2" * 1000] * 1000)
    assert await pair.server.received(HUGE) == b"1" * HUGE
    assert await pair.client.received(1_000_000) == b"2" * 1_000_000
    pair.server.transport.write(b"3" * HUGE)
    pair.server.transport.loseConnection()
    assert isinstance(await pair.client.lost, error.ConnectionDone)
    assert len(pair.client.data) == 1_000_000 + HUGE
    await until(reactor, lambda: pair.server.reason)
    assert pair.server.reason.check(error.ConnectionDone)
    await pair.close()


@ensure
async def test_half_close_is_a_close(reactor: Any, context: Any) -> None:
    """TLS has no half-close here, as in Twisted: what a peer that closes had sent is delivered,
    and then the connection ends for an IHalfCloseableProtocol as for any other."""
    pair = await tls_pair(reactor, context, HalfCloser, HalfCloser)
    pair.client.transport.write(b"h" * HUGE)
    pair.client.transport.loseConnection()
    assert isinstance(await pair.server.lost, error.ConnectionDone)
    assert len(pair.server.data) == HUGE
    await until(reactor, lambda: pair.client.reason)
    assert pair.server.events == pair.client.events == ["made", "lost"]
    await pair.close()


@ensure
async def test_fin_without_farewell(reactor: Any, context: Any) -> None:
    """A FIN below TLS is no clean end: somebody may have cut the stream."""
    pair = await tls_pair(reactor, context, HalfCloser)
    pair.client.transport.write(b"cut")
    await pair.server.received(3)
    pair.client.transport.transport.loseWriteConnection()
    assert isinstance(await pair.server.lost, error.ConnectionLost)
    assert pair.server.events == ["made", "lost"]
    await pair.close()


@ensure
async def test_abort_is_not_a_clean_end(loop_reactor: Any, context: Any) -> None:
    """The peer of a connection that is aborted does not take what it has for all there was."""
    pair = await tls_pair(loop_reactor, context)
    pair.client.transport.write(b"?")
    await pair.server.received(1)
    pair.server.transport.write(b"half of it")
    await pair.client.received(10)
    pair.server.transport.abortConnection()
    assert not isinstance(await pair.client.lost, error.ConnectionDone)
    await until(loop_reactor, lambda: pair.server.reason)
    assert pair.server.reason.check(error.ConnectionAborted, error.ConnectionLost)
    await pair.close()


@ensure
@pytest.mark.parametrize("named", [True, False])
async def test_abort_below_a_protocol_that_was_put_there(
    loop_reactor: Any, context: Any, named: bool
) -> None:
    """The same where a protocol starts TLS by itself: Twisted's TLS if it is named as the
    transport's protocol, our own in any case."""
    inside = Server()
    inner = TLSMemoryBIOFactory(context, False, inside)
    if not named:
        inner = tls_factory(context, False, inside, loop_reactor)

    class Sniffing(Recorder):
        tls: Any = None

        def dataReceived(self, data: bytes) -> None:
            if self.tls is None:
                self.tls = inner.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
                if named:
                    self.transport.protocol = self.tls
                self.tls.makeConnection(self.transport)
            self.tls.dataReceived(data)

        def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
            self.tls.connectionLost(reason)

    factory = Server(Sniffing)
    port = loop_reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = Recorder()
    where = ("127.0.0.1", port.getHost().port)
    loop_reactor.connectSSL(*where, Client(client), ssl.ClientContextFactory())
    await client.made
    client.transport.write(b"?")
    served = await until(loop_reactor, lambda: inside.protocols and inside.protocols[0])
    await served.received(1)
    served.transport.write(b"half of it")
    await client.received(10)
    served.transport.abortConnection()
    assert not isinstance(await client.lost, error.ConnectionDone)
    await until(loop_reactor, lambda: served.reason)
    await port.stopListening()


@ensure
@pytest.mark.parametrize("kind", ["push", "pull"])
async def test_producers(reactor: Any, context: Any, kind: str) -> None:
    """Both kinds of producer are held back through TLS."""
    pair = await tls_pair(reactor, context)
    pair.client.transport.write(b"?")
    await pair.server.received(1)
    pair.server.transport.pauseProducing()
    producer: Any
    if kind == "push":
        producer = Pusher(pair.client.transport, HUGE, 65536, reactor)
    else:
        producer = Puller(pair.client.transport, HUGE // 65536, 65536)
    pair.client.transport.registerProducer(producer, kind == "push")
    if kind == "push":
        producer.push()
    await turns(reactor, 200)
    assert producer.left > 0
    pair.server.transport.resumeProducing()
    await pair.server.lost
    assert len(pair.server.data) == 1 + HUGE
    await until(reactor, lambda: pair.client.reason)
    await pair.close()


@ensure
async def test_start_tls(reactor: Any, context: Any) -> None:
    """A plain connection becomes TLS in its midst, on both sides; the producer stays."""
    pair = await tcp_pair(reactor)
    pair.client.transport.write(b"STARTTLS")
    await pair.server.received(8)
    pair.server.transport.startTLS(context)
    pair.client.transport.startTLS(ssl.ClientContextFactory())
    for transport in (pair.server.transport, pair.client.transport):
        assert ISSLTransport.providedBy(transport)
        assert isinstance(transport.getHandle(), SSL.Connection)
    pair.client.transport.write(b"x" * HUGE)
    await pair.server.received(8 + HUGE)
    pair.server.transport.writeSequence([b"good", b"bye"])
    pair.server.transport.loseConnection()
    assert isinstance(await pair.client.lost, error.ConnectionDone)
    assert pair.client.data == b"goodbye"
    await until(reactor, lambda: pair.server.reason)
    pair.client.transport.write(b"lost")
    await pair.close()


@ensure
async def test_handshake_fails(reactor: Any, flush_logged_errors: FlushLoggedErrors) -> None:
    """A peer that does not speak TLS ends both ends; the client is told why."""
    factory = Server()
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = Recorder()
    where = ("127.0.0.1", port.getHost().port)
    reactor.connectSSL(*where, Client(client), ssl.ClientContextFactory())
    await client.made
    served = await until(reactor, lambda: factory.protocols and factory.protocols[0])
    served.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert isinstance(await client.lost, SSL.Error)
    await served.lost
    await port.stopListening()
