"""The text of ``--help``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from srrrs.config.option import Option
from srrrs.config.table import CONFIG

_MARGIN: Final = 2
_COLUMN: Final = 30
_WIDEST: Final = 100
_EPILOGUE: Final = """\
Each option can also stand in an environment variable ({variable} for --{example}; several values
separated by commas or white space) or in the table [{section}] of the file given by --config
({example} = ...). An option on the command line counts more than a variable, a variable more than
the file. DURATION is 250ms, 15s, 2m, 1h, 30d or a number of seconds; SIZE is 64KiB, 256MiB, 1GB or
a number of bytes."""


def render(
    synopsis: str,
    description: str,
    table: Sequence[Option],
    *,
    section: str = "",
    extra: Iterable[tuple[str, str]] = (),
    width: int | None = None,
) -> str:
    """The help of one command.

    :param section: the table of the file that the options stand in; empty: they stand in none.
    :param extra: more entries, as heads and texts.
    :param width: columns; None: those of the terminal.
    """
    width = min(width or shutil.get_terminal_size().columns, _WIDEST)
    lines = [f"Usage: {synopsis}", "", *textwrap.wrap(description, width), "", "Options:"]
    for option in table:
        if not option.limit:
            lines += entry(_head(option), _text(option), width)
    for head, text in extra:
        lines += entry(head, text, width)
    lines += entry("--version", "Print the version and exit.", width)
    lines += entry("--help", "Print this and exit.", width)
    limits = [option for option in table if option.limit]
    if limits:
        lines += ["", "Limits:"]
        for option in limits:
            lines += entry(_head(option), _text(option), width)
    if section:
        example = next(option for option in table if option is not CONFIG)
        text = _EPILOGUE.format(variable=example.variable, example=example.name, section=section)
        lines += ["", *textwrap.wrap(text, width)]
    return "\n".join(lines) + "\n"


def entry(head: str, text: str, width: int) -> list[str]:
    """An indented head with its text beside it, or below it where the head is long."""
    wrapped = textwrap.wrap(text, max(width - _COLUMN, 20), break_on_hyphens=False)
    head = " " * _MARGIN + head
    lines = [f"{'':{_COLUMN}}{line}" for line in wrapped]
    if len(head) < _COLUMN - 1 and lines:
        lines[0] = f"{head:<{_COLUMN}}{wrapped[0]}"
        return lines
    return [head, *lines]


def _head(option: Option) -> str:
    return f"--{option.name} {option.metavar}".rstrip()


def _text(option: Option) -> str:
    return f"{option.help} {default_note(option)}".rstrip()


def default_note(option: Option) -> str:
    """``[default: ...]``, with its unit; empty where there is nothing to say."""
    if option.otherwise == "must be given":
        return "[must be given]"
    if option.flag:
        return "[default: off]"
    default = option.otherwise or option.default
    if default is None:
        return ""
    return f"[default: {default} {option.unit}".rstrip() + "]"
