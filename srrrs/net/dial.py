"""Dialling a relay: from an edge URL to a carrier that the relay has welcomed.

Every way in which that can fail becomes a :exc:`DialError`: one clear line, and whether waiting may
help.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as BaseProtocol
from twisted.python.failure import Failure

from srrrs.net.carrier import ICarrier
from srrrs.net.loopback import LocalhostEndpoint, is_localhost_name, is_loopback
from srrrs.net.proxy import ConnectEndpoint, ProxyError, proxy_for
from srrrs.net.sockets import is_taken
from srrrs.net.tlsrecords import TLSEndpoint
from srrrs.net.websocket import (
    AgentCarrier,
    AgentCarrierFactory,
    Denial,
    HandshakeDenied,
    HandshakeFailed,
)
from srrrs.protocol import handshake
from srrrs.protocol.errors import CloseCode
from srrrs.protocol.handshake import Hello, Welcome

#: Seconds for the connection, name lookup and proxy included; then again from the relay's first
#: answer to its welcome.
DIAL_TIMEOUT: Final = 20.0
TURN: Final = 75.0
"""Seconds for a relay that has taken the connection to turn to it: after a restart all its agents
are at its door at once, and each has its turn. Longer than a relay keeps anybody waiting, so that
none is served that has given up."""

_PORTS: Final = {"ws": 80, "wss": 443}
#: Close codes during the handshake that tell of a passing trouble.
_PASSING = frozenset({CloseCode.SHUTDOWN, CloseCode.HANDSHAKE_TIMEOUT, CloseCode.LIMIT})


Taken = Callable[[], bool]
"""Tells whether what was sent has been taken, so that only the relay's turn is waited for."""


def unknown() -> bool:
    """A :data:`Taken` where nobody can tell."""
    return False


class Answered(Protocol):
    """Is told that a dial's TCP was answered."""

    def __call__(self, taken: Taken = unknown, /) -> None: ...


def unheard(taken: Taken = unknown, /) -> None:
    """An :class:`Answered` that does nothing."""


class DialError(Exception):
    """A dial failed. ``str()`` is one line for people, without secrets.

    :ivar heals: whether it may pass without anybody's doing.
    """

    def __init__(self, message: str, heals: bool = True) -> None:
        super().__init__(message)
        self.heals = heals


@dataclass(frozen=True)
class DialTarget:
    """A relay to dial, and how to know it. Made by :meth:`from_url`.

    :ivar url: the edge URL, its path filled in.
    :ivar ca_file: PEM file of the authorities to trust instead of the system's, or None.
    :ivar pin: ``sha256:…`` of the relay's SubjectPublicKeyInfo, standing in for the chain, or None.
    """

    url: str
    scheme: str
    host: str
    port: int
    ca_file: Path | None = None
    pin: str | None = None

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        ca_file: Path | None = None,
        pin: str | None = None,
        insecure: bool = False,
    ) -> DialTarget:
        """Check an edge URL.

        :param insecure: allow ``ws://`` to other machines; it turns no verification off.
        :raises ValueError: with one line that says what is wrong.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("the edge URL is no valid URL") from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not host:
            raise ValueError("the edge URL must look like wss://HOST[:PORT]/tunnel")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the edge URL must not hold a user name or password")
        if parts.fragment:
            raise ValueError("the edge URL must not have a #fragment")
        if port == 0:
            raise ValueError("the edge URL's port must be 1 to 65535")
        if any(not each.isprintable() or each.isspace() for each in url):
            raise ValueError("the edge URL must not hold blanks or control characters")
        if scheme == "ws" and not is_loopback(host) and not insecure:
            raise ValueError(
                "ws:// sends the token in the clear: use wss://, or allow it with --insecure"
            )
        path = parts.path if parts.path not in ("", "/") else handshake.PATH
        whole = parts._replace(scheme=scheme, path=path).geturl()
        return cls(whole, scheme, host, port or _PORTS[scheme], ca_file, pin)

    @property
    def where(self) -> str:
        """``host:port``, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def dial(
    reactor: Any,
    target: DialTarget,
    token: str,
    make_hello: Callable[[str], Hello],
    *,
    timeout: float = DIAL_TIMEOUT,
    environ: Mapping[str, str] | None = None,
    endpoint: IStreamClientEndpoint | None = None,
    answered: Answered = unheard,
) -> Deferred[tuple[ICarrier, Welcome]]:
    """Dial a relay; fires with its carrier and welcome, errbacks with :exc:`DialError`.

    Cancellable. The carrier must be started (``Tunnel.attach``) by the Deferred's callbacks, at
    once: one that nobody started is aborted.

    :param reactor: provides IReactorTime, IReactorTCP and name resolution.
    :param make_hello: from the nonce that the relay says first to what to say.
    :param timeout: seconds for the connection, and again from the relay's first answer to its
        welcome; in between it has :data:`TURN`.
    :param environ: where proxies are named; default: the process's environment.
    :param endpoint: leads to the relay; default: :func:`relay_endpoint`.
    :param answered: called once TCP connects, with what tells whether the relay's system has
        acknowledged all that was sent.
    """

    deadline = _Deadline(reactor, timeout, target)

    async def attempt() -> tuple[ICarrier, Welcome]:
        try:
            way = endpoint or relay_endpoint(
                reactor, target, timeout, os.environ if environ is None else environ
            )
            factory = AgentCarrierFactory(
                reactor, target.url, token, make_hello, max(TURN, timeout) + timeout
            )
            factory.answered = lambda: deadline.move(timeout)
            carrier = cast(AgentCarrier, await way.connect(factory))
            answered(lambda: is_taken(carrier.transport))
            if carrier.heard_nothing:
                deadline.move(max(TURN, timeout))
            return await carrier.welcomed
        except CancelledError:
            raise
        except error.ConnectingCancelledError:
            raise CancelledError from None
        except Exception as problem:
            raise explain(Failure(), target) from problem

    dialling: Deferred[tuple[ICarrier, Welcome]] = Deferred.fromCoroutine(attempt())
    return deadline.bound(dialling)


def measure(
    reactor: Any,
    target: DialTarget,
    timeout: float,
    environ: Mapping[str, str] | None = None,
) -> Deferred[float]:
    """How far away a relay is: the seconds in which a TCP connection to it comes about.

    Cancellable. Errs where it does not, or where a proxy stands between, which would measure the
    way to that.
    """

    async def attempt() -> float:
        way = os.environ if environ is None else environ
        if proxy_for(target.scheme, target.host, target.port, way) is not None:
            raise DialError(f"{target.where} is behind a proxy")
        took: list[float] = []
        # The first may have had to look up the name.
        for _ in range(2):
            began = reactor.seconds()
            endpoint = _host_endpoint(reactor, target.host, target.port, timeout)
            protocol: Any = await endpoint.connect(_Probe.forProtocol(BaseProtocol))
            took.append(reactor.seconds() - began)
            protocol.transport.loseConnection()
        return min(took)

    return Deferred.fromCoroutine(attempt())


class _Probe(Factory):
    noisy = False


class _Deadline:
    """When a dial is given up; moved on as the relay shows that it is there."""

    def __init__(self, clock: IReactorTime, seconds: float, target: DialTarget) -> None:
        self._clock = clock
        self._seconds = seconds
        self._target = target
        self._expired = False
        self._dialling: Deferred[Any] | None = None
        self._call = clock.callLater(seconds, self._expire)

    def move(self, seconds: float) -> None:
        """Give it so many more from now on."""
        if self._call.active():
            self._seconds = seconds
            # Not reset(), which searches all of the reactor's calls for one that is to come sooner.
            self._call.cancel()
            self._call = self._clock.callLater(seconds, self._expire)

    def bound(self, dialling: Deferred[Any]) -> Deferred[Any]:
        """Hold for ``dialling``, and end with it."""
        self._dialling = dialling
        return dialling.addBoth(self._ended)

    def _expire(self) -> None:
        self._expired = True
        assert self._dialling is not None
        self._dialling.cancel()

    def _ended(self, outcome: Any) -> Any:
        if self._call.active():
            self._call.cancel()
        if self._expired and isinstance(outcome, Failure):
            raise DialError(f"{self._target.where} did not answer within {self._seconds:g} s")
        return outcome


def relay_endpoint(
    reactor: Any, target: DialTarget, timeout: float, environ: Mapping[str, str]
) -> IStreamClientEndpoint:
    """The way to a relay: through the proxy that the environment names, if any, then TLS.

    :raises ProxyError: the proxy named cannot be used.
    :raises Exception: the CA file or the pin cannot be used.
    """
    proxy = proxy_for(target.scheme, target.host, target.port, environ)
    endpoint: IStreamClientEndpoint
    if proxy is None:
        endpoint = _host_endpoint(reactor, target.host, target.port, timeout)
    else:
        leg = _host_endpoint(reactor, proxy.host, proxy.port, timeout)
        endpoint = ConnectEndpoint(leg, proxy, target.host, target.port)
    if target.scheme == "wss":
        from srrrs.net.tlsclient import client_connection_creator

        creator = client_connection_creator(target.host, ca_file=target.ca_file, pin=target.pin)
        endpoint = TLSEndpoint(reactor, creator, endpoint)
    return endpoint


def _host_endpoint(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    if is_localhost_name(host):
        return LocalhostEndpoint(reactor, port, timeout)
    return HostnameEndpoint(reactor, host, port, timeout)


def explain(failure: Failure, target: DialTarget) -> DialError:
    """What made a dial fail, as one line and whether it heals."""
    problem = failure.value
    if isinstance(problem, DialError):
        return problem
    if isinstance(problem, ProxyError):
        return DialError(str(problem), problem.heals)
    if isinstance(problem, Denial):
        return _explain_status(problem, target)
    if isinstance(problem, HandshakeDenied):
        return DialError(
            f"the relay does not let this agent in: {problem.denied.message}",
            problem.denied.retry,
        )
    if isinstance(problem, HandshakeFailed):
        heals = getattr(problem, "code", None) in _PASSING
        return DialError(f"no tunnel to {target.where}: {problem}", heals)
    for kind, describe in _NETWORK:
        if isinstance(problem, kind):
            return DialError(describe(target, problem))
    if target.scheme == "wss":
        from srrrs.net.tlsclient import explain_tls_failure

        reason = explain_tls_failure(failure)
        if reason is not None:
            return DialError(f"no secure connection to {target.where}: {reason}", heals=False)
    if isinstance(problem, error.ConnectionDone | error.ConnectionLost):
        return DialError(f"{target.where} closed the connection during the handshake")
    if isinstance(problem, OSError | ValueError):
        return DialError(f"cannot dial {target.where}: {problem}", heals=False)
    return DialError(f"cannot dial {target.where}: {failure.getErrorMessage()}")


_NETWORK: Final[tuple[tuple[Any, Callable[[DialTarget, Any], str]], ...]] = (
    (error.DNSLookupError, lambda t, _: f"the name {t.host} cannot be looked up"),
    (error.ConnectionRefusedError, lambda t, _: f"{t.where} refuses the connection"),
    (
        (error.TimeoutError, error.TCPTimedOutError, DeferredTimeout),
        lambda t, _: f"{t.where} does not answer",
    ),
    (error.NoRouteError, lambda t, _: f"there is no route to {t.where}"),
    (error.ConnectError, lambda t, e: f"cannot reach {t.where}: {_system_reason(e)}"),
)


def _system_reason(problem: error.ConnectError) -> str:
    number = problem.osError  # an error number, whatever its name says
    return os.strerror(number) if isinstance(number, int) else str(problem)


def _explain_status(denial: Denial, target: DialTarget) -> DialError:
    status = denial.status
    if status == 401:
        return DialError("the relay does not accept the token (401)", heals=False)
    if status == 403:
        return DialError("the relay forbids this agent (403)", heals=False)
    if status in (408, 425, 429) or status >= 500:
        return DialError(f"the relay at {target.where} is not available ({status})")
    if status in (400, 426):
        return DialError(
            f"what answers at {target.url} is no relay, or speaks another version ({status})",
            heals=False,
        )
    return DialError(f"what answers at {target.url} is no relay ({status})", heals=False)
