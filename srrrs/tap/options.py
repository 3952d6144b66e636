"""``usage.Options`` made from the tables of :mod:`srrrs.config.table`."""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, NoReturn

from twisted.python import usage

from srrrs import _form
from srrrs._version import __version__
from srrrs.config import AgentConfig, ConfigError, RelayConfig, agent_config, relay_config
from srrrs.config.option import Option
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS
from srrrs.tap.help import render

#: Exit status after a wrong option or key.
USAGE_STATUS: Final = 2


class CommandOptions(usage.Options):
    """Options of one command. What is wrong with them is one line on standard error and exit
    status 2, whoever runs them: twistd by itself would print everything it knows, and exit with 1.

    :cvar description: what the command does, for the help.
    :cvar permute: whether options may stand behind arguments.
    """

    description: ClassVar[str] = ""
    permute: ClassVar[bool] = False

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = list(sys.argv[1:] if options is None else options)
        try:
            words = self._permuted(words) if self.permute else words
            super().parseOptions(words)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            fail(self.prog, _capital_free(str(error)))
        except ConfigError as error:
            fail(self.prog, str(error))

    @property
    def prog(self) -> str:
        """The command as it was called."""
        if self.parent is None:
            name = os.path.basename(sys.argv[0])
            return "srrrs-tunnel" if name in ("__main__.py", "-c", "-m", "") else name
        above = self.parent.prog if isinstance(self.parent, CommandOptions) else "twistd"
        return f"{above} {self.parent.subCommand}"

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"srrrs {__version__} ({_form.describe()})")
        raise SystemExit(0)

    def opt_help(self) -> NoReturn:
        """Print this and exit."""
        print(self, end="")
        raise SystemExit(0)

    def __str__(self) -> str:
        return self.help_text()

    def help_text(self) -> str:
        """What ``--help`` prints."""
        return render(f"{self.prog} [options]", self.description, ())

    def _permuted(self, words: list[str]) -> list[str]:
        """The same with all options in front: getopt stops at the first argument."""
        try:
            found, arguments = getopt.gnu_getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            raise usage.UsageError(str(error)) from None
        options: list[str] = []
        for name, value in found:
            takes_value = f"{name[2:]}=" in self.longOpt
            options.append(f"{name}={value}" if takes_value else name)
        return [*options, "--", *arguments]


def _parameter(option: Option) -> Callable[[Any, str], None]:
    def collect(self: Any, value: str) -> None:
        self.given.setdefault(option.name, []).append(value)

    collect.__doc__ = option.help
    return collect


def _flag(option: Option) -> Callable[[Any], None]:
    def collect(self: Any) -> None:
        self.given[option.name] = ["true"]

    collect.__doc__ = option.help
    return collect


class TableOptions(CommandOptions):
    """Options of one command that come from a table.

    :cvar table: the options.
    :cvar section: the table of the file that holds them.
    :cvar extra: options of this command alone, as the help shows them.
    :ivar given: the texts given on the command line, by option.
    """

    table: ClassVar[tuple[Option, ...]] = ()
    section: ClassVar[str] = ""
    extra: ClassVar[Iterable[tuple[str, str]]] = ()
    given: dict[str, list[str]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for option in cls.__dict__.get("table", ()):
            name = "opt_" + option.name.replace("-", "_")
            setattr(cls, name, _flag(option) if option.flag else _parameter(option))

    def __init__(self) -> None:
        self.given = {}
        super().__init__()  # type: ignore[no-untyped-call]

    def help_text(self) -> str:
        return render(
            f"{self.prog} [options]",
            self.description,
            self.table,
            section=self.section,
            extra=self.extra,
        )


class RelayOptions(TableOptions):
    """Options of a relay.

    :ivar config: the configuration, once the options are parsed.
    """

    description = (
        "Run a relay: agents dial it, and it gives each of their services a public address. "
        "On its first run it makes a token and says how to start an agent with it."
    )
    table = RELAY_OPTIONS
    section = "relay"
    config: RelayConfig

    def postOptions(self) -> None:
        self.config = relay_config(self.given, os.environ)
        _prepare_twistd(self.parent, self.config.log_level)


class AgentOptions(TableOptions):
    """Options of an agent.

    :ivar config: the configuration, once the options are parsed.
    """

    description = (
        "Run an agent: it dials a relay, and publishes local services there for as long as it runs."
    )
    table = AGENT_OPTIONS
    section = "agent"
    config: AgentConfig

    def postOptions(self) -> None:
        self.config = agent_config(self.given, os.environ)
        _prepare_twistd(self.parent, self.config.log_level)


def fail(prog: str, message: str, status: int = USAGE_STATUS) -> NoReturn:
    """End the process with one line on standard error."""
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def _prepare_twistd(parent: usage.Options | None, level: str) -> None:
    if parent is not None and not isinstance(parent, CommandOptions):
        from srrrs.tap.logs import filter_twistd

        filter_twistd(parent, level)


def _capital_free(message: str) -> str:
    """getopt writes its messages small, usage.Options capital and with a full stop."""
    message = message.rstrip(".") or "wrong options"
    return message[0].lower() + message[1:]
