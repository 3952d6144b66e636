"""What the relay's owner says of all services' visitors, and how they are logged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from srrrs.config import values
from srrrs.config.errors import ConfigError
from srrrs.config.model import STDOUT
from srrrs.config.option import Option
from srrrs.config.policies import networks, policy_value
from srrrs.http.policy import ALL_ASKS, parse_rate


def _asks(text: str) -> frozenset[str]:
    """Kinds of policies, separated by commas; ``all`` or ``none``."""
    words = [each.strip() for each in text.split(",")]
    if words in (["all"], ["none"]):
        return frozenset(ALL_ASKS if words == ["all"] else ())
    for word in words:
        if word not in ALL_ASKS:
            known = ", ".join(ALL_ASKS)
            raise ConfigError(f"{word!r} is no kind of policy: {known}, all or none")
    return frozenset(words)


def _folder(text: str) -> Path:
    result = values.path(text)
    if not result.is_dir():
        raise ConfigError(f"there is no folder {result}")
    return result


def _log_file(text: str) -> Path | str:
    return STDOUT if text.strip() == STDOUT else values.path(text)


def _log_format(text: str) -> str:
    word = text.strip().lower()
    if word not in ("json", "combined"):
        raise ConfigError(f"{text!r} is no format of an access log: json or combined")
    return word


BOUND_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="policies",
        parse=_asks,
        metavar="KIND,...",
        help="What agents may ask of the relay for their services: basic-auth, ip, rate, host, "
        "headers, body; all, or none. A service that asks for more is refused.",
        default="all",
    ),
    Option(
        name="deny-visitors",
        parse=policy_value(networks),
        metavar="CIDR,...",
        help="Turn away the visitors of all services who come from these networks. May be given "
        "more than once.",
        repeatable=True,
        lines=True,
    ),
    Option(
        name="visitor-rate",
        parse=policy_value(parse_rate),
        metavar="N/UNIT[:BURST]",
        help="Requests and TCP connections in a second, minute or hour (s, m, h) that one "
        "visitor's address may make at all services together, and how many of them at once.",
    ),
    Option(
        name="max-request-body",
        parse=values.size,
        metavar="SIZE",
        help="Body of one request, of any service; of a larger one visitors are told 413.",
    ),
    Option(
        name="error-pages",
        parse=_folder,
        metavar="DIR",
        help="Show visitors the pages in this folder in place of the relay's own: 404.html for one "
        "status, 5xx.html for all of a kind. SIGHUP has them read again.",
    ),
    Option(
        name="access-log",
        parse=_log_file,
        metavar="FILE",
        help="Write a line for each request and each TCP connection; - is standard output. SIGHUP "
        "has the file opened anew.",
    ),
    Option(
        name="access-log-format",
        parse=_log_format,
        metavar="FORMAT",
        help="Its lines: json, or combined as Apache and nginx write them.",
        default="json",
    ),
)
