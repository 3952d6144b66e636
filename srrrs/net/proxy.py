"""Dialling through an HTTP proxy: which one the environment names, and CONNECT (RFC 9110,
9.3.6)."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from srrrs.net.loopback import is_loopback

#: Bytes of the proxy's answer to CONNECT, its blank line included.
MAX_HEAD: Final = 16 * 1024
#: Port of an ``http://`` proxy whose URL names none.
DEFAULT_PORT: Final = 80


class ProxyError(Exception):
    """The proxy cannot be used or does not let us through. One line, without its password.

    :ivar heals: whether it may pass without anybody's doing.
    """

    def __init__(self, message: str, heals: bool = True) -> None:
        super().__init__(message)
        self.heals = heals


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. ``credentials`` is the value of Proxy-Authorization, kept out of ``repr``."""

    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment names for a WebSocket, or None.

    ``https_proxy`` counts for ``wss``, ``http_proxy`` for ``ws``, each in small letters first and
    then in capitals; ``no_proxy`` lists the exceptions (``*``, names with or without a leading dot
    that cover what is under them, addresses, networks like ``10.0.0.0/8``, each with an optional
    ``:port``). This machine itself is never reached through a proxy.

    :raises ProxyError: the proxy's URL cannot be used.
    """
    if is_loopback(host):
        return None
    name = "https_proxy" if scheme == "wss" else "http_proxy"
    found = _variable(environ, name)
    if found is None:
        return None
    exceptions = _variable(environ, "no_proxy")
    if exceptions is not None and _is_excepted(host, port, exceptions[1]):
        return None
    return parse_proxy(*found)


def parse_proxy(variable: str, value: str) -> Proxy:
    """A proxy from its URL; ``host:port`` alone will do.

    :raises ProxyError: with a line that names ``variable`` and not the URL, which may hold a
        password.
    """
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ProxyError(f"{variable} is no valid URL", heals=False) from None
    if parts.scheme != "http":
        raise ProxyError(
            f"{variable} names a proxy of scheme {parts.scheme!r}; only http:// is supported",
            heals=False,
        )
    if not host:
        raise ProxyError(f"{variable} names no host", heals=False)
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        credentials = "Basic " + base64.b64encode(pair).decode("ascii")
    return Proxy(host, port or DEFAULT_PORT, credentials)


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str] | None:
    for each in (name, name.upper()):
        if each in environ:
            value = environ[each].strip()
            return (each, value) if value else None
    return None


def _is_excepted(host: str, port: int, exceptions: str) -> bool:
    host = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in exceptions.replace(",", " ").split():
        if entry == "*":
            return True
        pattern = entry.lower()
        if pattern.startswith("["):
            pattern, _, rest = pattern[1:].partition("]")
            wanted = rest.removeprefix(":")
        elif pattern.count(":") == 1:
            pattern, _, wanted = pattern.partition(":")
        else:
            wanted = ""
        if wanted and wanted != str(port):
            continue
        if address is not None:
            try:
                if address in ipaddress.ip_network(pattern, strict=False):
                    return True
            except ValueError:
                pass
            continue
        pattern = pattern.removeprefix("*").strip(".")
        if pattern and (host == pattern or host.endswith(f".{pattern}")):
            return True
    return False


@implementer(IStreamClientEndpoint)
class ConnectEndpoint:
    """Reaches ``host:port`` through a proxy; the proxy looks the name up.

    :param endpoint: leads to the proxy.
    :param proxy: what to say to it.

    There is no deadline in here: cancel the Deferred.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, proxy: Proxy, host: str, port: int) -> None:
        self._endpoint = endpoint
        self._proxy = proxy
        self._authority = f"{_bracketed(host)}:{port}"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the inner protocol once the proxy has answered 2xx; errbacks with
        :exc:`ProxyError`."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        leg = Factory.forProtocol(lambda: _ProxiedConnection(self._proxy, self._authority))
        try:
            proxied = cast(_ProxiedConnection, await self._endpoint.connect(leg))
        except (ConnectError, DNSLookupError) as problem:
            # Else it would read as if the relay could not be reached.
            reason = str(problem).rstrip(".")
            raise ProxyError(f"the proxy {self._proxy} cannot be reached: {reason}") from problem
        try:
            address = await proxied.established
            inner = factory.buildProtocol(address)
            if inner is None:
                raise ProxyError("the connection was not wanted")
        except BaseException:
            proxied.abort()
            raise
        proxied.switch(inner)
        return inner


@implementer(IHalfCloseableProtocol)
class _ProxiedConnection(Protocol):
    """Speaks CONNECT, then passes everything on to the inner protocol."""

    transport: ITCPTransport

    def __init__(self, proxy: Proxy, authority: str) -> None:
        self._proxy = proxy
        self._authority = authority
        self._head = b""
        self._inner: IProtocol | None = None
        self._answered = False
        self.established: Deferred[IAddress] = Deferred()

    def connectionMade(self) -> None:
        lines = [f"CONNECT {self._authority} HTTP/1.1", f"Host: {self._authority}"]
        if self._proxy.credentials is not None:
            lines.append(f"Proxy-Authorization: {self._proxy.credentials}")
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def abort(self) -> None:
        self._answered = True
        self.transport.abortConnection()

    def switch(self, inner: IProtocol) -> None:
        """Hand the connection over, with what came behind the proxy's answer."""
        self._inner = inner
        inner.makeConnection(self.transport)
        rest, self._head = self._head, b""
        if rest:
            inner.dataReceived(rest)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        if self._answered:
            return
        head, blank, rest = self._head.partition(b"\r\n\r\n")
        if len(head) + len(blank) > MAX_HEAD:
            self._fail(ProxyError(f"the proxy {self._proxy} answered with too long a head"))
            return
        if not blank:
            return
        self._head = rest
        failure = _judge(head.partition(b"\r\n")[0], self._proxy)
        if failure is not None:
            self._fail(failure)
            return
        self._answered = True
        self.established.callback(self.transport.getPeer())

    def readConnectionLost(self) -> None:
        if self._inner is None:
            self._fail(ProxyError(f"the proxy {self._proxy} closed the connection"))
        elif IHalfCloseableProtocol.providedBy(self._inner):
            cast(IHalfCloseableProtocol, self._inner).readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if self._inner is not None and IHalfCloseableProtocol.providedBy(self._inner):
            cast(IHalfCloseableProtocol, self._inner).writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            inner, self._inner = self._inner, _Gone()
            inner.connectionLost(reason)
        elif not self._answered:
            detail = "" if reason.check(ConnectionDone) else f": {reason.getErrorMessage()}"
            self._fail(ProxyError(f"the proxy {self._proxy} closed the connection{detail}"))

    def _fail(self, failure: ProxyError) -> None:
        if self._answered:
            return
        self._answered = True
        self._head = b""
        self.transport.abortConnection()
        self.established.errback(failure)


class _Gone(Protocol):
    """Takes what comes after the end."""


def _judge(status_line: bytes, proxy: Proxy) -> ProxyError | None:
    """What the proxy's status line means: None for "go on"."""
    version, _, rest = status_line.partition(b" ")
    code, _, phrase = rest.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit():
        return ProxyError(f"{proxy} is no HTTP proxy", heals=False)
    status = int(code)
    if 200 <= status < 300:
        return None
    if status == 407:
        hint = "refuses the user name and password" if proxy.credentials else "wants a password"
        return ProxyError(f"the proxy {proxy} {hint} (407)", heals=False)
    text = "".join(each if each.isprintable() else "?" for each in phrase.decode("latin-1"))
    return ProxyError(f"the proxy {proxy} refused the connection: {status} {text[:80]}".rstrip())


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
