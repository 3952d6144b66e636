"""What a relay and an agent are told: frozen, checked, and free of where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from srrrs.config.token import TokenSource
from srrrs.http.policy import ALL_ASKS, Network, Rate

KIB: Final = 1024
MIB: Final = 1024 * KIB
STDOUT: Final = "-"
"""In the place of a log file: standard output."""

Kind = Literal["http", "tls", "tcp", "ssh"]
LogFormat = Literal["json", "combined"]
LogLevel = Literal["debug", "info", "warn", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """The relay's named caps: bytes, seconds, and counts."""

    head_bytes: int = 32 * KIB
    head_fields: int = 100
    target_bytes: int = 8 * KIB
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    body_timeout: float = 60.0
    requests_per_tunnel: int = 10_240
    frame_bytes: int = MIB
    streams: int = 10_240
    services: int = 131_072
    tunnels: int = 65_536
    handshake_timeout: float = 10.0
    handshakes: int = 256
    unauthenticated_per_address: int = 128
    visitors_per_address: int = 4096
    visitors_held: int = 1024
    buffer_bytes: int = 256 * MIB
    tunnel_buffer_bytes: int = 256 * MIB
    window_bytes: int = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """A relay's configuration.

    :ivar listen: Twisted server endpoint strings.
    :ivar domain: the name under which HTTP services get their subdomains; lower case.
    :ivar public_url: ``http[s]://host[:port]`` as visitors see it, or None: as it listens.
    :ivar tcp_ports: lowest and highest public port of TCP services.
    :ivar tcp_interface: address on which those listen; None: that of the first listener.
    :ivar heartbeat_min: seconds; agents that ask for less get this.
    :ivar heartbeat_max: seconds; agents that ask for more get this.
    :ivar session_grace: seconds for which streams wait for an agent whose connection broke; agents
        that ask for more get this; 0: none wait.
    :ivar drain: seconds that running streams have to finish in when the relay stops.
    :ivar drain_to: the edge URL that agents are sent to then, or None.
    :ivar policies: the kinds of policies that agents may ask for.
    :ivar deny: networks whose visitors are turned away.
    :ivar rate: of each visitor's address.
    :ivar max_body: bytes of a request's body, or None: any.
    :ivar error_pages: the folder of the owner's pages, or None.
    :ivar access_log: the file, :data:`STDOUT`, or None: no access log.
    :ivar tls: the folder of certificates, or None.
    :ivar https_redirect: whether visitors are sent from HTTP to HTTPS.
    :ivar hsts: seconds for which browsers are to use HTTPS alone, or None.
    :ivar acme_webroot: the folder of answers to certificate authorities, or None.
    :ivar trusted_proxies: networks of the proxies that are believed.
    :ivar trust_local: whether who comes by a UNIX socket is.
    :ivar hold: seconds for which new visitors wait for such an agent; 0: they are turned away.
    """

    data_dir: Path
    listen: tuple[str, ...] = ("tcp:8000:interface=127.0.0.1",)
    domain: str = "localhost"
    public_url: str | None = None
    tcp_ports: tuple[int, int] = (20_000, 29_999)
    tcp_interface: str | None = None
    heartbeat_min: float = 1.0
    heartbeat_max: float = 120.0
    session_grace: float = 60.0
    hold: float = 30.0
    drain: float = 30.0
    drain_to: str | None = None
    tls: Path | None = None
    https_redirect: bool = False
    hsts: int | None = None
    acme_webroot: Path | None = None
    trusted_proxies: tuple[Network, ...] = ()
    trust_local: bool = False
    policies: frozenset[str] = frozenset(ALL_ASKS)
    deny: tuple[Network, ...] = ()
    rate: Rate | None = None
    max_body: int | None = None
    error_pages: Path | None = None
    access_log: Path | str | None = None
    access_log_format: LogFormat = "json"
    log_level: LogLevel = "info"
    limits: RelayLimits = field(default_factory=RelayLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """The agent's named caps: bytes, seconds, and counts."""

    streams: int = 10_240
    frame_bytes: int = MIB
    buffer_bytes: int = 256 * MIB
    tunnel_buffer_bytes: int = 256 * MIB
    window_bytes: int = 16 * MIB
    connect_timeout: float = 10.0
    handshake_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A local service to publish.

    :ivar name: its name, unique in the agent; a DNS label, and the path where it has one.
    :ivar kind: ``http``, ``tls``, ``tcp`` or ``ssh``.
    :ivar address: where it is, as the user wrote it.
    :ivar endpoint: the same as a Twisted client endpoint string.
    :ivar asked: the subdomain asked for, or None.
    :ivar hostname: the whole host asked for in its place, or None.
    :ivar path: what requests' paths begin with, or None: any.
    :ivar share: whether other agents of the token may serve the same.
    :ivar send_proxy: the version of the PROXY header that it gets, or None.
    :ivar policy: what the relay is to see to (:mod:`srrrs.http.policy`), or None.
    """

    name: str
    kind: Kind
    address: str
    endpoint: str
    asked: str | None = None
    hostname: str | None = None
    path: str | None = None
    share: bool = False
    policy: Mapping[str, Any] | None = field(default=None, repr=False)
    send_proxy: Literal["v1", "v2"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """An agent's configuration.

    :ivar edge_urls: ``wss://host[:port]/path`` (or ``ws:``) of the relay, or of several: the
        nearest is used, and the others where it fails.
    :ivar heartbeat_interval: seconds.
    :ivar session_grace: seconds for which streams wait when the connection breaks; 0: none.
    :ivar drain: seconds that running streams have to finish in when the agent stops.
    :ivar instance: which machine this is; None: derived from the machine and the user.
    :ivar ca_file: PEM certificates trusted instead of the system's, or None.
    :ivar pin: SHA-256 of the relay's SubjectPublicKeyInfo as 64 hex digits, or None.
    :ivar insecure: whether ``ws://`` is allowed beyond this machine; never turns off checks.
    :ivar json: whether events are printed as JSON.
    """

    edge_urls: tuple[str, ...]
    token: TokenSource
    services: tuple[ServiceSpec, ...] = ()
    heartbeat_interval: float = 15.0
    session_grace: float = 60.0
    drain: float = 30.0
    instance: str | None = None
    ca_file: Path | None = None
    pin: str | None = None
    insecure: bool = False
    json: bool = False
    log_level: LogLevel = "info"
    limits: AgentLimits = field(default_factory=AgentLimits)
