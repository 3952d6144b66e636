"""What people are told: the public addresses of services, and where agents dial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from srrrs.net.address import is_ip_address


def bracketed(host: str) -> str:
    """``host`` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class PublicNames:
    """The names under which this relay is reached.

    :param domain: services get names directly under it.
    :param port: of the first listener; ``None`` where that has none (a UNIX socket).
    :param tls: whether agents should dial the listener by TLS.
    :param public_url: what a proxy in front serves, where there is one.
    :param https: whether the listener speaks TLS alone, with a certificate of the owner's.
    :param covers: for which other hosts there is one; ``None``: for none.
    :ivar control_hosts: the hosts that are the relay's own, never a tenant's.
    """

    domain: str
    port: int | None
    tls: bool
    public_url: str | None = None
    https: bool = False
    covers: Callable[[str], bool] | None = field(default=None, repr=False, compare=False)
    control_hosts: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        hosts = {self.domain, f"relay.{self.domain}"}
        if self.public_url is not None:
            hosts.add((urlsplit(self.public_url).hostname or "").lower())
        object.__setattr__(self, "control_hosts", frozenset(hosts))

    def is_control_host(self, host: str) -> bool:
        """Whether a request's host (lower-case, no port) is the relay itself."""
        return host in self.control_hosts or is_ip_address(host.strip("[]"))

    def label_of(self, host: str) -> str | None:
        """The service's name in a host directly under the domain."""
        label, dot, rest = host.partition(".")
        return label if dot and rest == self.domain and label else None

    def name_of(self, host: str) -> str:
        """What is reserved of a host: the label of one directly under the domain, so that it has
        one owner however it was asked for, else the whole host."""
        return self.label_of(host) or host

    def host_of(self, name: str) -> str:
        """The host that a reserved name stands for."""
        return name if "." in name else f"{name}.{self.domain}"

    def http_url(self, name: str, path: str = "") -> str:
        """Where a browser finds an HTTP service."""
        host = self.host_of(name)
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            port = "" if parts.port is None else f":{parts.port}"
            return f"{parts.scheme}://{host}{port}{path}"
        if self.https or (self.covers is not None and self.covers(host)):
            return f"https://{host}{self._port_suffix(443)}{path}"
        return f"http://{host}{self._port_suffix(80)}{path}"

    def tls_url(self, name: str) -> str:
        """Where a service is found that speaks TLS by itself."""
        host = self.host_of(name)
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            port = "" if parts.port is None or parts.scheme != "https" else f":{parts.port}"
            return f"https://{host}{port}"
        return f"https://{host}{self._port_suffix(443)}"

    def tcp_url(self, port: int) -> str:
        """Where a TCP service is reached."""
        return f"tcp://{bracketed(self.domain)}:{port}"

    def edge_url(self) -> str:
        """What an agent on another machine dials."""
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            scheme = "wss" if parts.scheme == "https" else "ws"
            return f"{scheme}://{parts.netloc}/tunnel"
        scheme, usual = ("wss", 443) if self.tls else ("ws", 80)
        return f"{scheme}://{bracketed(self.domain)}{self._port_suffix(usual)}/tunnel"

    def _port_suffix(self, usual: int) -> str:
        return "" if self.port in (None, usual) else f":{self.port}"
