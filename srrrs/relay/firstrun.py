"""The first run: a token is made, and the one line to paste on the device is printed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final, TextIO

from twisted.logger import Logger

from srrrs.net.loopback import is_loopback
from srrrs.relay.tokens import Tokens
from srrrs.relay.urls import PublicNames

FIRST_NAME: Final = "default"
FIRST_FILE: Final = "first.token"

_log = Logger()


def agent_command(names: PublicNames, pin: str | None, token: str) -> str:
    """The exact command for the device; ``token`` is what ``--auth-token`` gets."""
    words = ["srrrs-tunnel", "agent", "--edge-url", names.edge_url()]
    if pin is not None and names.public_url is None:
        words += ["--pin", pin]
    words += ["--auth-token", token]
    if names.edge_url().startswith("ws:") and not is_loopback(names.domain):
        words.append("--insecure")
    words += ["--local-http", "localhost:8080"]
    return " ".join(map(shlex.quote, words))


def make_first_token(
    tokens: Tokens, data_dir: Path, names: PublicNames, pin: str | None, now: float, out: TextIO
) -> None:
    """Make a token where there is none that lets anybody in, and say how to use it.

    The secret is printed on a terminal only; otherwise it goes to a file of mode 0600.

    :raises StoreError: it cannot be stored.
    :raises OSError: the file cannot be written.
    """
    if tokens.any_usable(now):
        return
    taken = {token.name for token in tokens.list()}
    name = next(n for n in _names() if n not in taken)
    _, secret = tokens.create(name, now)
    if out.isatty():
        # In the environment, not among the words that every user of the device can read.
        command = agent_command(names, pin, "env:SRRRS_TOKEN")
        lines = [
            f"A first token, {name!r}, was made. Paste this on the device:",
            "",
            f"    SRRRS_TOKEN={secret} {command}",
            "",
        ]
        print("\n".join(lines), file=out, flush=True)
        return
    path = data_dir / FIRST_FILE
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    _log.info("a first token, {name!r}, was made and written to {path}", name=name, path=str(path))
    _log.info(
        "copy that file to the device, and there: {command}",
        command=agent_command(names, pin, "file:/etc/srrrs/agent.token"),
    )


def _names() -> list[str]:
    return [FIRST_NAME, *(f"{FIRST_NAME}-{number}" for number in range(2, 1000))]
