"""``[NAME[/PATH]=]ADDR``: which local service is published, and under which name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from srrrs.config.errors import ConfigError
from srrrs.config.model import Kind, ServiceSpec
from srrrs.config.values import is_address
from srrrs.protocol.frames import NAMED_KINDS, SERVICE_HOST, SERVICE_NAME

_HOST_PORT: Final = re.compile(r"([^\s:=\\/\[\]]+):(\d{1,5})", re.ASCII)
_V6_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\]:(\d{1,5})", re.ASCII)
#: Words that begin a client endpoint string, where `WORD:NUMBER` would else be a host and a port.
_ENDPOINT_WORDS: Final = frozenset(
    {"fd", "haproxy", "ssl", "systemd", "tcp", "tcp6", "tls", "unix"}
)


def service(kind: Kind, text: str) -> ServiceSpec:
    """The service that ``[NAME=]ADDR`` means, or of http ``NAME/PATH=ADDR``; ssh takes no name, for
    it is always ``ssh``.

    :raises ConfigError: it means none.
    """
    name, address = (None, text.strip()) if kind == "ssh" else split_name(text.strip())
    endpoint = client_endpoint(address)
    if kind == "ssh":
        return ServiceSpec("ssh", kind, address, endpoint)
    label, slash, path = (name or "").partition("/")
    if slash and kind != "http":
        raise ConfigError(f"{name!r}: only HTTP services have a path")
    if kind in NAMED_KINDS:
        return ServiceSpec(
            name or kind, kind, address, endpoint, asked=label or None, path=slash + path or None
        )
    if name is None:
        port = _port_of(endpoint)
        if port is None:
            raise ConfigError(f"{address!r} shows no port to name the service by: write NAME=ADDR")
        name = f"tcp-{port}"
    return ServiceSpec(name, kind, address, endpoint)


def check_names(services: Iterable[tuple[str, ServiceSpec]]) -> None:
    """Every service has a name of its own. Each comes with the option that it was given by.

    :raises ConfigError: two have the same.
    """
    seen: dict[str, tuple[str, ServiceSpec]] = {}
    for option, spec in services:
        other = seen.setdefault(spec.name, (option, spec))
        if other[1] is not spec:
            raise ConfigError(
                f"{other[0]} {other[1].address} and {option} {spec.address} are both named "
                f"{spec.name!r}: write NAME=ADDR to tell them apart"
            )


def with_hostnames(services: Sequence[ServiceSpec], texts: Iterable[str]) -> list[ServiceSpec]:
    """The services with the whole hosts that ``[NAME=]HOST`` gives them: to all whose name, but for
    the path, is NAME; without NAME to the only one that can have a host.

    :raises ConfigError: a text is none, or there is no such service.
    """
    names = dict.fromkeys(_label(spec) for spec in services if spec.kind in NAMED_KINDS)
    hosts: dict[str, str] = {}
    for text in texts:
        name, equals, host = text.strip().rpartition("=")
        host = host.lower().removesuffix(".")
        if not SERVICE_HOST.fullmatch(host):
            raise ConfigError(f"{host!r} is no host name: write app.example.com")
        if not equals:
            if len(names) != 1:
                known = ", ".join(names) or "none"
                raise ConfigError(f"{host}: say of which service (there are: {known}): NAME={host}")
            (name,) = names
        if name not in names:
            raise ConfigError(f"{name}={host}: no HTTP or TLS service is named {name!r}")
        if hosts.setdefault(name, host) != host:
            raise ConfigError(
                f"{name!r} has two hosts, {hosts[name]} and {host}: publish it under two names"
            )
    return [
        replace(spec, asked=None, hostname=hosts[_label(spec)])
        if spec.kind in NAMED_KINDS and _label(spec) in hosts
        else spec
        for spec in services
    ]


def shared(services: Iterable[ServiceSpec]) -> list[ServiceSpec]:
    """The services, where those that can be are shared with other agents of the token.

    :raises ConfigError: one has no name that could be shared.
    """
    found = [replace(spec, share=True) if spec.kind in NAMED_KINDS else spec for spec in services]
    for spec in found:
        if spec.share and spec.asked is None and spec.hostname is None:
            raise ConfigError(
                f"{spec.address} has no name to share: write NAME={spec.address}, "
                "or give it a --hostname"
            )
    return found


def _label(spec: ServiceSpec) -> str:
    return spec.name.partition("/")[0]


def split_name(text: str) -> tuple[str | None, str]:
    """Name (with the path, where there is one) and address. Endpoint strings hold ``=`` too, but
    only behind a colon.

    :raises ConfigError: the name is no service name.
    """
    head, equals, rest = text.partition("=")
    if not equals or ":" in head:
        return None, text
    head = head.rstrip("/")
    label, slash, path = head.partition("/")
    if not SERVICE_NAME.fullmatch(label):
        hint = f": for a whole host write NAME=ADDR and --hostname NAME={label}"
        raise ConfigError(
            f"{label!r} is no service name: 1 to 63 of a-z, 0-9 and '-', no '-' at either end"
            + (hint if SERVICE_HOST.fullmatch(label) else "")
        )
    if not SERVICE_NAME.fullmatch(head):
        raise ConfigError(
            f"{slash + path!r} is no path that a service can have: up to 128 letters, digits, "
            "'/' and any of '._~@+-', without '.' and '..'"
        )
    return head, rest


def client_endpoint(address: str) -> str:
    """The Twisted client endpoint string for ``port``, ``host:port``, ``[v6]:port`` or such a
    string itself.

    :raises ConfigError: it is none of them.
    """
    if address.isascii() and address.isdigit():
        return f"tcp:localhost:{_port(address)}"
    match = _V6_PORT.fullmatch(address)
    if match is not None:
        if not is_address(match[1]) or ":" not in match[1]:
            raise ConfigError(f"{match[1]!r} is no IPv6 address")
        return f"tcp:{match[1].replace(':', chr(92) + ':')}:{_port(match[2])}"
    match = _HOST_PORT.fullmatch(address)
    if match is not None and match[1] not in _ENDPOINT_WORDS:
        return f"tcp:{match[1]}:{_port(match[2])}"
    if "://" in address:
        scheme, _, rest = address.partition("://")
        plain = rest.rstrip("/")
        hint = f"tls:{plain}" if scheme == "https" else plain
        raise ConfigError(f"{address!r} is a URL: write HOST:PORT, such as {hint}")
    word, colon, rest = address.partition(":")
    if not address:
        raise ConfigError("the address is empty")
    if address.startswith(("/", ".", "~")):
        raise ConfigError(f"{address!r}: write unix:{address} for a Unix socket")
    if is_address(address):
        raise ConfigError(f"{address!r} has no port: write HOST:PORT, or [ADDRESS]:PORT for IPv6")
    if not colon:
        raise ConfigError(f"{address!r} has no port: write PORT or HOST:PORT")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", word) or not rest:
        raise ConfigError(
            f"{address!r} is no address: PORT, HOST:PORT, [IPV6]:PORT or a client endpoint string"
        )
    return address


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ConfigError(f"{text} is no port: 1 to 65535")
    return port


def _port_of(endpoint: str) -> str | None:
    """The port in an endpoint string ``word:host:port…``, where there is one to be seen."""
    fields = re.split(r"(?<!\\):", endpoint)
    named = dict(each.split("=", 1) for each in fields[1:] if "=" in each)
    placed = [each for each in fields[1:] if "=" not in each]
    port = named.get("port", placed[1] if len(placed) > 1 else None)
    if fields[0] == "unix" or port is None or not port.isdigit():
        return None
    return port
