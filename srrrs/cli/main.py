"""``srrrs-tunnel COMMAND``: finds the command and runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from srrrs.tap.help import entry
from srrrs.tap.options import AgentOptions, CommandOptions, RelayOptions, fail


class Commands(CommandOptions):
    """Options of a command that has commands of its own."""

    subCommands: ClassVar[list[Any]]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        words = list(sys.argv[1:] if options is None else options)
        super().parseOptions(words)
        if self.subCommand is None:
            fail(self.prog, f"no command: one of {', '.join(self._names())}; see --help")

    def help_text(self) -> str:
        lines = [f"Usage: {self.prog} COMMAND [options]", "", self.description, "", "Commands:"]
        for name, _, _, text in self.subCommands:
            lines += entry(name, text, 80)
        lines += ["", "Options:", *self._own_options()]
        lines += entry("--version", "Print the version and exit.", 80)
        lines += entry("--help", "Print this and exit. COMMAND --help tells more.", 80)
        return "\n".join(lines) + "\n"

    def _names(self) -> list[str]:
        return [each[0] for each in self.subCommands]

    def _own_options(self) -> list[str]:
        return []


def _token_options() -> CommandOptions:
    from srrrs.cli.token import TokenOptions

    return TokenOptions()


def _demo_options() -> CommandOptions:
    from srrrs.cli.demo import DemoOptions

    return DemoOptions()


class MainOptions(Commands):
    """Options of ``srrrs-tunnel``."""

    description = "A self-hosted reverse tunnel: reach services behind NAT through your own relay."
    subCommands: ClassVar[list[Any]] = [
        ("relay", None, RelayOptions, "Run a relay, the public end of tunnels."),
        ("agent", None, AgentOptions, "Run an agent, which publishes local services at a relay."),
        ("token", None, _token_options, "Create, list, rotate and revoke a relay's tokens."),
        ("demo", None, _demo_options, "Run a relay and an agent here, and publish a page."),
    ]

    def opt_reactor(self, name: str) -> None:
        """Twisted reactor to run on."""
        from twisted.application.reactors import NoSuchReactor, installReactor

        try:
            installReactor(name)
        except NoSuchReactor:
            raise usage.UsageError(
                f"--reactor: there is no reactor {name!r}; twistd --help-reactors lists them"
            ) from None
        except Exception as error:
            raise usage.UsageError(f"--reactor: {name} cannot be used here: {error}") from None

    def _own_options(self) -> list[str]:
        text = "Twisted reactor to run on. [default: the fastest there is here]"
        return entry("--reactor NAME", text, 80)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``srrrs-tunnel`` and exit with its status.

    :param arguments: those behind the program's name; None: the process's own.
    """
    options = MainOptions()  # type: ignore[no-untyped-call]
    options.parseOptions(arguments)
    command = options.subOptions
    if isinstance(command, RelayOptions):
        from srrrs.cli.run import run
        from srrrs.tap.service import relay_service

        relay = command.config
        raise SystemExit(
            run(lambda reactor: relay_service(reactor, relay), command.prog, relay.log_level)
        )
    if isinstance(command, AgentOptions):
        from srrrs.cli.run import run
        from srrrs.tap.service import agent_service

        agent = command.config
        raise SystemExit(
            run(lambda reactor: agent_service(reactor, agent), command.prog, agent.log_level)
        )
    raise SystemExit(command.run())
