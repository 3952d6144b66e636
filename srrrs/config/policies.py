"""What an agent asks the relay to see to for its services: ``[NAME=]VALUE``, of one service or of
all, and tables of the file for each.

``NAME`` is a service's name. What is said of ``blog`` holds for ``blog/api`` too, unless the same
option says something of that; what names no service holds for those of which nothing else is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from srrrs.config import values
from srrrs.config.errors import ConfigError
from srrrs.config.model import ServiceSpec
from srrrs.config.option import Option
from srrrs.http.passwords import hash_password
from srrrs.http.policy import (
    MAX_EDITS,
    MAX_NETWORKS,
    MAX_USERS,
    Network,
    Policy,
    PolicyError,
    check_response_edits,
    encode,
    is_user,
    parse_edit,
    parse_host,
    parse_network,
    parse_rate,
)
from srrrs.protocol.frames import MAX_POLICY, SERVICE_NAME

MAX_USER_FILE: Final = 64 * 1024
"""Bytes of a file of users."""

_T = TypeVar("_T")


class _Said(Protocol):
    """A setting: the values of one option, and where they were said."""

    @property
    def value(self) -> Any: ...
    @property
    def origin(self) -> str: ...


def _named(parse: Callable[[str], _T]) -> Callable[[str], tuple[str | None, _T]]:
    """A parser of ``[NAME=]VALUE``."""

    def both(text: str) -> tuple[str | None, _T]:
        head, equals, rest = text.partition("=")
        name = head.strip()
        named = equals and SERVICE_NAME.fullmatch(name)
        return (name, parse(rest)) if named else (None, parse(text))

    return both


def policy_value(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """A parser whose complaints are those of a configuration."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except PolicyError as error:
            raise ConfigError(str(error)) from None

    return parsed


def networks(text: str) -> tuple[Network, ...]:
    """Networks, separated by commas or white space."""
    found = tuple(parse_network(each) for each in text.replace(",", " ").split())
    if not found:
        raise ConfigError("no network is named")
    return found


def _user_file(text: str) -> Path:
    scheme, colon, rest = text.strip().partition(":")
    if not colon or scheme != "file":
        # It may be a password.
        raise ConfigError("write file:PATH: the file holds a line USER:PASSWORD for each user")
    return values.existing_file(rest)


def _proxy_version(text: str) -> str:
    version = text.strip().lower()
    if version not in ("v1", "v2"):
        raise ConfigError(f"{text!r} is no version of PROXY headers: v1 or v2")
    return version


def _policy(name: str, parse: Callable[[str], Any], value: str, text: str) -> Option:
    return Option(
        name=name,
        parse=_named(policy_value(parse)),
        metavar=f"[NAME=]{value}",
        help=text,
        repeatable=True,
        lines=True,
    )


POLICY_OPTIONS: Final[tuple[Option, ...]] = (
    _policy(
        "basic-auth", _user_file, "file:PATH",
        "Ask visitors for a name and a password of the file, which holds a line USER:PASSWORD for "
        "each user and is read at the start. The relay gets hashes.",
    ),
    _policy(
        "allow-ip", networks, "CIDR,...",
        "Let in visitors from these networks alone.",
    ),
    _policy(
        "deny-ip", networks, "CIDR,...",
        "Turn away visitors from these networks.",
    ),
    _policy(
        "rate-limit", parse_rate, "N/UNIT[:BURST]",
        "Requests (of TCP, ssh and TLS services: connections) in a second, minute or hour (s, m, "
        "h) that one visitor's address may make, and how many of them at once.",
    ),
    _policy(
        "total-rate-limit", parse_rate, "N/UNIT[:BURST]",
        "The same of all visitors together.",
    ),
    _policy(
        "host-header", parse_host, "HOST[:PORT]",
        "What the service gets as Host. X-Forwarded-Host tells it what the visitor asked for.",
    ),
    _policy(
        "request-header", parse_edit, "FIELD: VALUE",
        "Set a field of requests on their way to the service; '+FIELD: VALUE' adds one beside what "
        "there is, '-FIELD' removes it.",
    ),
    _policy(
        "response-header", parse_edit, "FIELD: VALUE",
        "The same of responses.",
    ),
    _policy(
        "max-body", values.size, "SIZE",
        "Body of one request; of a larger one visitors are told 413.",
    ),
    _policy(
        "send-proxy", _proxy_version, "VERSION",
        "Tell the service who the visitor is by a PROXY header, v1 or v2, ahead of all else on "
        "each connection.",
    ),
)  # fmt: skip

_HTTP_ALONE: Final = frozenset(
    ("basic-auth", "host-header", "request-header", "response-header", "max-body")
)


def with_policies(
    specs: Iterable[ServiceSpec], settings: Mapping[str, _Said]
) -> tuple[ServiceSpec, ...]:
    """The services, each with its policy as it stands in a registration. Reads the files of users,
    and takes some 30 ms for each of these.

    :raises ConfigError: something cannot be had, or is said of no service.
    """
    services = list(specs)
    for option in POLICY_OPTIONS:
        _check_names(option.name, settings[option.name], services)
    hashed: dict[Path, dict[str, str]] = {}
    return tuple(_with_policy(spec, settings, hashed) for spec in services)


def _check_names(option: str, said: _Said, services: Iterable[ServiceSpec]) -> None:
    for name in dict.fromkeys(name for name, _ in said.value):
        meant = [spec for spec in services if name is None or _covers(name, spec.name)]
        able = [spec for spec in meant if spec.kind == "http" or option not in _HTTP_ALONE]
        if name is not None and not meant:
            raise ConfigError(f"{said.origin}: no service is named {name!r}")
        if not able or (name is not None and len(able) < len(meant)):
            whose = "there is none" if name is None else f"{name!r} is none"
            raise ConfigError(f"{said.origin}: only HTTP services can have this, and {whose}")


def _covers(name: str, service: str) -> bool:
    return service == name or service.startswith(f"{name}/")


def _for(spec: ServiceSpec, option: str, said: _Said) -> list[Any]:
    """What is said of a service by whatever comes nearest to its name."""
    if option in _HTTP_ALONE and spec.kind != "http":
        return []
    names = {name for name, _ in said.value if name is not None and _covers(name, spec.name)}
    nearest = max(names, key=len, default=None)
    return [value for name, value in said.value if name == nearest]


def _with_policy(
    spec: ServiceSpec, settings: Mapping[str, _Said], hashed: dict[Path, dict[str, str]]
) -> ServiceSpec:
    found = {name.name: _for(spec, name.name, settings[name.name]) for name in POLICY_OPTIONS}

    def one(option: str) -> Any:
        # Of an option that can hold one value the last counts.
        return found[option][-1] if found[option] else None

    def many(option: str, most: int) -> tuple[Any, ...]:
        if len(found[option]) > most:
            raise ConfigError(f"{settings[option].origin}: {most} at the most for one service")
        return tuple(found[option])

    def listed(option: str) -> tuple[Network, ...]:
        every = tuple(each for some in found[option] for each in some)
        if len(every) > MAX_NETWORKS:
            raise ConfigError(f"{settings[option].origin}: {MAX_NETWORKS} at the most")
        return every

    try:
        response_fields = check_response_edits(many("response-header", MAX_EDITS))
    except PolicyError as error:
        raise ConfigError(f"{settings['response-header'].origin}: {error}") from None
    users = {}
    path: Path | None = one("basic-auth")
    if path is not None:
        try:
            users = hashed[path] = hashed.get(path) or read_users(path)
        except ConfigError as error:
            raise ConfigError(f"{settings['basic-auth'].origin}: {error}") from None
    policy = Policy(
        users=users,
        allow=listed("allow-ip"),
        deny=listed("deny-ip"),
        rate=one("rate-limit"),
        total_rate=one("total-rate-limit"),
        host=one("host-header"),
        request_fields=many("request-header", MAX_EDITS),
        response_fields=response_fields,
        max_body=one("max-body"),
    )
    members = encode(policy)
    size = len(json.dumps(members, separators=(",", ":")))
    if size > MAX_POLICY:
        raise ConfigError(
            f"the policies of {spec.name} take {size} bytes, {MAX_POLICY} at the most: fewer "
            "users, networks or fields"
        )
    version = one("send-proxy")
    if version is not None and spec.endpoint.startswith(("tls:", "ssl:")):
        raise ConfigError(
            f"{settings['send-proxy'].origin}: {spec.name}: it would come inside of the TLS to "
            f"{spec.address}"
        )
    return replace(spec, policy=members or None, send_proxy=version)


def read_users(path: Path) -> dict[str, str]:
    """The users of a file, and hashes of their passwords.

    :raises ConfigError: it cannot be read, or a line is none; no line is repeated.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_USER_FILE + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None
    if len(data) > MAX_USER_FILE:
        raise ConfigError(f"{path} is longer than {MAX_USER_FILE} bytes")
    passwords: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not password or not is_user(user):
            raise ConfigError(f"{path}, line {number}: is not USER:PASSWORD")
        if user in passwords:
            raise ConfigError(f"{path}, line {number}: {user!r} is there twice")
        passwords[user] = password
    if not passwords:
        raise ConfigError(f"{path} holds no user")
    if len(passwords) > MAX_USERS:
        raise ConfigError(f"{path} holds more than {MAX_USERS} users")
    return {user: hash_password(password) for user, password in passwords.items()}
