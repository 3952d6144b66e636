"""The sample files in ``conf/``: ``python -m srrrs.config.sample relay > conf/relay.toml``."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import Final

from srrrs.config.option import Option
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS

#: Values for options that have no default, or none that is a word.
_EXAMPLES: Final = {
    "auth-token": "file:/etc/srrrs/agent.token",
    "ca-file": "/etc/srrrs/ca.pem",
    "data-dir": "/var/lib/srrrs",
    "drain-to": "wss://b.relay.example.com/tunnel",
    "edge-url": ["wss://relay.example.com/tunnel"],
    "hostname": ["blog=www.example.com"],
    "instance": "kitchen-pi",
    "local-http": ["blog=localhost:8080", "blog/api=localhost:8081", "wiki=unix:/run/wiki.sock"],
    "local-ssh": "localhost:22",
    "local-tcp": ["postgres=localhost:5432"],
    "local-tls": ["vault=localhost:8443"],
    "pin": "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730",
    "public-url": "https://relay.example.com",
    "tcp-interface": "0.0.0.0",
}
_HEAD: Final = """\
# Configuration of a srrrs {section}: srrrs-tunnel {section} --config FILE
#
# Every key, with its default; where there is none, with an example. An option on the command line
# (--{example}) or a variable ({variable}) of the same name counts more.
# Durations: "250ms", "15s", "2m", "1h", or seconds. Sizes: "64KiB", "256MiB", or bytes.

[{section}]
"""


def render(section: str, table: Sequence[Option]) -> str:
    """A file with every key of a table, all of them comments."""
    keys = [option for option in table if option.in_file]
    parts = [_HEAD.format(section=section, example=keys[0].name, variable=keys[0].variable)]
    parts += [_entry(option) for option in keys]
    return "\n".join(parts)


def _entry(option: Option) -> str:
    note = {"must be given": "Must be given.", "": ""}.get(
        option.otherwise, f"Default: {option.otherwise}."
    )
    if not note and option.default is None:
        note = "Default: none."
    text = " ".join(each for each in (option.help, note) if each)
    lines = textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*lines, f"#{option.name} = {_value(option)}", ""])


def _value(option: Option) -> str:
    if option.default is None:
        # Strings and lists of strings are spelt alike in JSON and TOML.
        return json.dumps(_EXAMPLES[option.name])
    if option.flag or option.default.isdigit():
        return option.default
    return json.dumps([option.default] if option.repeatable else option.default)


if __name__ == "__main__":
    tables = {"relay": RELAY_OPTIONS, "agent": AGENT_OPTIONS}
    print(render(sys.argv[1], tables[sys.argv[1]]), end="")
