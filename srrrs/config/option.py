"""What can be said of one option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from srrrs.config import values
from srrrs.config.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "SRRRS_"
CONFIG_NAME: Final = "config"
"""The option that names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that can be configured.

    :ivar name: on the command line behind ``--``, and the key in the file.
    :ivar parse: turns text into a value; raises :exc:`ConfigError`.
    :ivar metavar: what the help shows for the value; empty for a flag.
    :ivar help: what it does, for people.
    :ivar default: the default as one would write it; None: there is none.
    :ivar otherwise: what happens without it, where ``default`` cannot say it.
    :ivar lines: whether several values stand in one variable as lines, for they hold white space.
    :ivar unit: what a plain number counts; empty where the metavar says it.
    :ivar limit: the field of ``RelayLimits`` or ``AgentLimits`` that it sets; empty: none.
    :ivar least: lowest value, in the unit of the parsed value.
    :ivar most: highest value.
    """

    name: str
    parse: Callable[[str], Any]
    metavar: str
    help: str
    default: str | None = None
    otherwise: str = ""
    unit: str = ""
    repeatable: bool = False
    lines: bool = False
    limit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def flag(self) -> bool:
        """Whether it is on or off, with no value on the command line."""
        return not self.metavar

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()

    @property
    def in_file(self) -> bool:
        """Whether the file may hold it."""
        return self.name != CONFIG_NAME

    def value(self, text: str) -> Any:
        """The value that a text means.

        :raises ConfigError: none, or one out of range.
        """
        value = self.parse(text)
        if self.least is not None and value < self.least:
            raise ConfigError(f"{text} is too little: {self._bound(self.least)} or more")
        if self.most is not None and value > self.most:
            raise ConfigError(f"{text} is too much: {self._bound(self.most)} or less")
        return value

    def _bound(self, bound: float) -> str:
        unit = self.unit or {"DURATION": "s", "SIZE": "bytes"}.get(self.metavar, "")
        space = "" if self.metavar == "DURATION" else " "
        return f"{bound:.12g}{space if unit else ''}{unit}"


def duration(name: str, text: str, default: str, **more: Any) -> Option:
    """An option of a duration."""
    return Option(
        name=name,
        parse=values.duration,
        metavar="DURATION",
        help=text,
        default=default,
        **{"least": 0.01, "most": 86_400.0, **more},
    )


def size(name: str, text: str, default: str, **more: Any) -> Option:
    """An option of a number of bytes."""
    return Option(name=name, parse=values.size, metavar="SIZE", help=text, default=default, **more)


def count(name: str, text: str, default: str, unit: str, **more: Any) -> Option:
    """An option of a number of things."""
    return Option(
        name=name,
        parse=values.count,
        metavar="N",
        help=text,
        default=default,
        unit=unit,
        **{"least": 1, "most": 2**31 - 1, **more},
    )
