"""Options of what visitors meet first: HTTPS, and proxies in front."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from srrrs.config import values
from srrrs.config.errors import ConfigError
from srrrs.config.option import Option
from srrrs.config.policies import policy_value
from srrrs.http.policy import Network, parse_network

LOCAL: Final = "unix"
"""In the place of a network: whoever comes by a UNIX socket."""
MAX_HSTS: Final = 2 * 366 * 86_400
"""Seconds; browsers forget no sooner than a page says, so that a slip of the pen stays long."""

_network = policy_value(parse_network)


def _folder(text: str) -> Path:
    result = values.path(text)
    if not result.is_dir():
        raise ConfigError(f"there is no folder {result}")
    return result


def _proxy(text: str) -> Network | str:
    return LOCAL if text.strip() == LOCAL else _network(text)


def _seconds(text: str) -> int:
    return int(values.duration(text))


FRONT_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="tls",
        parse=_folder,
        metavar="DIR",
        help="Speak TLS with the certificates in this folder and the folders in it, each for the "
        "names that it says: NAME.crt with NAME.key, or fullchain.pem with privkey.pem. New ones "
        "are taken within seconds.",
        otherwise="with the relay's own certificate alone, which agents know by its pin",
    ),
    Option(
        name="https-redirect",
        parse=values.boolean,
        metavar="",
        help="Send visitors who come by HTTP to HTTPS.",
        default="false",
    ),
    Option(
        name="hsts",
        parse=_seconds,
        metavar="DURATION",
        help="Have browsers that came by HTTPS use nothing else for so long "
        "(Strict-Transport-Security).",
        otherwise="it is left to the services",
        least=0,
        most=MAX_HSTS,
    ),
    Option(
        name="acme-webroot",
        parse=values.path,
        metavar="DIR",
        help="Answer the challenges of certificate authorities out of this folder, to which "
        "certbot --webroot writes.",
    ),
    Option(
        name="trusted-proxy",
        parse=_proxy,
        metavar="CIDR",
        help="Believe the proxies in this network who their clients are: in X-Forwarded-For, "
        "-Proto and X-Request-Id, and in PROXY headers. unix: who comes by a UNIX socket. May be "
        "given more than once.",
        repeatable=True,
    ),
)
