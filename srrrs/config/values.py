"""Parsers of single values. Each takes text and raises :exc:`ConfigError` with what is wrong with
it; whoever called adds where the text stood."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from srrrs.config.errors import ConfigError
from srrrs.net.loopback import is_loopback

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d{1,18})\s*(B|KiB|MiB|GiB|kB|KB|MB|GB|K|M|G)?", re.ASCII)
_BYTES: Final = {
    "B": 1,
    "K": 1 << 10, "KiB": 1 << 10, "kB": 10**3, "KB": 10**3,
    "M": 1 << 20, "MiB": 1 << 20, "MB": 10**6,
    "G": 1 << 30, "GiB": 1 << 30, "GB": 10**9,
}  # fmt: skip
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256_BYTES: Final = 32

DEFAULT_TUNNEL_PATH: Final = "/tunnel"


def duration(text: str) -> float:
    """Seconds from ``15s``, ``250ms``, ``2m``, ``1h``, ``30d`` or a plain number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no duration: write 15s, 250ms, 2m, 1h or 30d")
    value = float(match[1]) * _SECONDS[match[2] or "s"]
    if not math.isfinite(value):
        raise ConfigError(f"{text!r} is too long")
    return value


def size(text: str) -> int:
    """Bytes from ``256MiB``, ``64KiB``, ``1GB`` or a plain number of bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no size: write 64KiB, 256MiB or a number of bytes")
    return int(match[1]) * _BYTES[match[2] or "B"]


def count(text: str) -> int:
    """A whole number."""
    plain = text.strip().replace("_", "")
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 18):
        raise ConfigError(f"{text!r} is no whole number")
    return int(plain)


def boolean(text: str) -> bool:
    """``true`` or ``false``, in any of the usual spellings."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{text!r} is neither true nor false")


def port_range(text: str) -> tuple[int, int]:
    """``LOW-HIGH``, or one port."""
    low, dash, high = text.strip().partition("-")
    try:
        pair = (int(low), int(high if dash else low))
    except ValueError:
        raise ConfigError(f"{text!r} is no range of ports: write LOW-HIGH") from None
    if not 1 <= pair[0] <= pair[1] <= 65535:
        raise ConfigError(f"{text!r} is no range of ports: LOW to HIGH within 1 to 65535")
    return pair


def log_level(text: str) -> str:
    """``debug``, ``info``, ``warn`` or ``error``."""
    word = text.strip().lower()
    if word not in ("debug", "info", "warn", "error"):
        raise ConfigError(f"{text!r} is no log level: debug, info, warn or error")
    return word


def text_line(text: str) -> str:
    """Any text, but not none."""
    value = text.strip()
    if not value or any(ord(each) < 32 for each in value):
        raise ConfigError(f"{text!r} is empty or holds control characters")
    return value


def path(text: str) -> Path:
    """An absolute path; ``~`` is the home folder."""
    if not text or "\0" in text:
        raise ConfigError("a path must not be empty")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{text!r}: there is no such home folder") from None


def existing_file(text: str) -> Path:
    """The path of a file that is there."""
    result = path(text)
    try:
        found = result.is_file()
    except OSError as error:
        raise ConfigError(f"{result}: {error.strerror}") from None
    if not found:
        raise ConfigError(f"there is no file {result}")
    return result


def domain(text: str) -> str:
    """A host name in lower case, without a final dot."""
    name = text.strip().lower().removesuffix(".")
    if is_address(name):
        raise ConfigError(f"{text!r} is an address: subdomains need a name")
    if not _HOST_NAME.fullmatch(name) or len(name) > 190:
        raise ConfigError(f"{text!r} is no domain name")
    return name


def interface(text: str) -> str:
    """An IP address to listen on, without brackets."""
    address = text.strip().removeprefix("[").removesuffix("]")
    if not is_address(address):
        raise ConfigError(f"{text!r} is no IP address")
    return address


def instance(text: str) -> str:
    """The name of a machine."""
    if not _INSTANCE.fullmatch(text):
        raise ConfigError(
            f"{text!r} is no instance name: "
            "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    return text


def pin(text: str) -> str:
    """``sha256:`` and 32 bytes in base64 or hex, as 64 hex digits in lower case."""
    scheme, colon, rest = text.strip().partition(":")
    if not colon or scheme.lower() != "sha256":
        raise ConfigError(f"{text!r} is no pin: write sha256: and 32 bytes in base64 or hex")
    digest = _hex(rest) if len(rest) == 2 * _SHA256_BYTES else _base64(rest)
    if digest is None or len(digest) != _SHA256_BYTES:
        raise ConfigError(f"{text!r} is no pin: behind sha256: stand 32 bytes in base64 or hex")
    return digest.hex()


def edge_url(text: str, *, insecure: bool) -> str:
    """The relay's URL, with :data:`DEFAULT_TUNNEL_PATH` where it has no path.

    :param insecure: whether ``ws://`` may lead beyond this machine.
    """
    parts = _url(text, ("ws", "wss"))
    if parts.query:
        raise ConfigError(f"{text!r} must have no query")
    if parts.scheme == "ws" and not insecure and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{text!r} is not encrypted and would show the token to everybody on the way: "
            "use wss://, or say --insecure"
        )
    way = parts.path if parts.path not in ("", "/") else DEFAULT_TUNNEL_PATH
    return urlunsplit((parts.scheme, parts.netloc.lower(), way, "", ""))


def destination_url(text: str) -> str:
    """An edge URL for agents, who judge by themselves whether they go there."""
    return edge_url(text, insecure=True)


def public_url(text: str) -> str:
    """``http[s]://host[:port]``, with nothing behind it."""
    parts = _url(text, ("http", "https"))
    if parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"{text!r} must end after the host and port")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _url(text: str, schemes: tuple[str, ...]) -> SplitResult:
    if not text.isascii() or any(each <= " " for each in text):
        raise ConfigError("the URL holds characters that a URL cannot hold")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{_without_userinfo(text)!r} is no URL: {error}") from None
    if "@" in parts.netloc:
        raise ConfigError("the URL must hold no user name or password")
    if parts.scheme not in schemes:
        wanted = " or ".join(f"{each}://" for each in schemes)
        raise ConfigError(f"{text!r} must begin with {wanted}")
    if not host or port == 0:
        raise ConfigError(f"{text!r} names no host" if not host else f"{text!r}: no such port")
    if "#" in text:
        raise ConfigError(f"{text!r} must have no fragment")
    if not is_address(host.partition("%")[0]) and not _HOST_NAME.fullmatch(host.removesuffix(".")):
        raise ConfigError(f"{text!r}: {host!r} is no host name")
    return parts


def _without_userinfo(text: str) -> str:
    return re.sub(r"//[^/]*@", "//", text)


def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
