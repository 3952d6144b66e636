"""The sample files in ``conf/``: ``python -m srrrs.config.sample relay > conf/relay.toml``."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from srrrs.config.option import Option
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS

#: Values for options that have no default, or none that is a word.
_EXAMPLES: Final = {
    "auth-token": "file:/etc/srrrs/agent.token",
    "allow-ip": ["postgres=10.0.0.0/8,2001:db8::/32"],
    "basic-auth": ["wiki=file:/etc/srrrs/wiki.users"],
    "ca-file": "/etc/srrrs/ca.pem",
    "data-dir": "/var/lib/srrrs",
    "deny-ip": ["192.0.2.0/24"],
    "drain-to": "wss://b.relay.example.com/tunnel",
    "edge-url": ["wss://relay.example.com/tunnel"],
    "host-header": ["blog=localhost:8080"],
    "hostname": ["blog=www.example.com"],
    "instance": "kitchen-pi",
    "local-http": ["blog=localhost:8080", "blog/api=localhost:8081", "wiki=unix:/run/wiki.sock"],
    "local-ssh": "localhost:22",
    "local-tcp": ["postgres=localhost:5432"],
    "local-tls": ["vault=localhost:8443"],
    "max-body": ["blog=10MiB"],
    "pin": "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730",
    "public-url": "https://relay.example.com",
    "rate-limit": ["blog=10/s:50", "ssh=6/m"],
    "request-header": ["blog=X-From: the tunnel", "blog=-Cookie"],
    "response-header": ["blog=X-Frame-Options: DENY"],
    "send-proxy": ["blog=v2"],
    "tcp-interface": "0.0.0.0",
    "total-rate-limit": ["blog=200/s"],
}
#: The same of options that mean something else to the relay.
_RELAY_EXAMPLES: Final = {
    "acme-webroot": "/var/lib/srrrs/acme",
    "hsts": "180d",
    "tls": "/etc/letsencrypt/live",
    "trusted-proxy": ["127.0.0.1", "2001:db8::/32"],
    "access-log": "/var/log/srrrs/access.log",
    "deny-visitors": ["192.0.2.0/24"],
    "error-pages": "/etc/srrrs/pages",
    "max-request-body": "1GiB",
    "visitor-rate": "100/s:500",
}
_HEAD: Final = """\
# Configuration of a srrrs {section}: srrrs-tunnel {section} --config FILE
#
# Every key, with its default; where there is none, with an example. An option on the command line
# (--{example}) or a variable ({variable}) of the same name counts more.
# Durations: "250ms", "15s", "2m", "1h", or seconds. Sizes: "64KiB", "256MiB", or bytes.

[{section}]
"""
# Commented out in such a way that what the other lines mean stays the same without the "#".
_SERVICE: Final = """\
# What is asked for one service alone may also stand in a table of its own:
#
#     [agent.service.blog]
#     basic-auth = "file:/etc/srrrs/blog.users"
#     rate-limit = "10/s"
"""


def render(section: str, table: Sequence[Option]) -> str:
    """A file with every key of a table, all of them comments."""
    keys = [option for option in table if option.in_file]
    parts = [_HEAD.format(section=section, example=keys[0].name, variable=keys[0].variable)]
    examples = {**_EXAMPLES, **_RELAY_EXAMPLES} if section == "relay" else _EXAMPLES
    parts += [_entry(option, examples) for option in keys]
    if section == "agent":
        parts.append(_SERVICE)
    return "\n".join(parts)


def _entry(option: Option, examples: Mapping[str, Any]) -> str:
    note = {"must be given": "Must be given.", "": ""}.get(
        option.otherwise, f"Default: {option.otherwise}."
    )
    if not note and option.default is None:
        note = "Default: none."
    text = " ".join(each for each in (option.help, note) if each)
    lines = textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*lines, f"#{option.name} = {_value(option, examples)}", ""])


def _value(option: Option, examples: Mapping[str, Any]) -> str:
    if option.default is None:
        # Strings and lists of strings are spelt alike in JSON and TOML.
        return json.dumps(examples[option.name])
    if option.flag or option.default.isdigit():
        return option.default
    return json.dumps([option.default] if option.repeatable else option.default)


if __name__ == "__main__":
    tables = {"relay": RELAY_OPTIONS, "agent": AGENT_OPTIONS}
    print(render(sys.argv[1], tables[sys.argv[1]]), end="")
