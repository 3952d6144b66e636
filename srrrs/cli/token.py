"""``srrrs-tunnel token``: create, list, rotate and revoke tokens, whether the relay runs or not."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from twisted.python import usage

from srrrs.cli.main import Commands
from srrrs.config import ConfigError, data_dir
from srrrs.config.table import STORE_OPTIONS
from srrrs.config.values import duration
from srrrs.relay.scope import NONE, Scope, ScopeError
from srrrs.relay.store import Store, StoreError, StoreMissing
from srrrs.relay.tokens import DEFAULT_GRACE, Token, TokenError, Tokens
from srrrs.tap.options import TableOptions, fail

_OUT = (
    "--out FILE",
    "Write the secret to this new file, readable by you alone, instead of printing it.",
)
_FORCE = ("--force", "Let --out replace a file that is there.")


class StoreOptions(TableOptions):
    """Options of one `token` command.

    :ivar data_dir: the relay's data folder.
    """

    table = STORE_OPTIONS
    section = "relay"
    permute = True
    data_dir: Path

    def postOptions(self) -> None:
        above = self.parent.given if isinstance(self.parent, TableOptions) else {}
        self.data_dir = data_dir({**above, **self.given}, os.environ)

    def run(self) -> int:
        """Do it; the exit status."""
        try:
            self.act(time.time())
        except (StoreError, TokenError) as error:
            fail(self.prog, str(error), status=1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(self.prog, f"{where}{error.strerror or error}", status=1)
        return 0

    def act(self, now: float) -> None:
        """Do it at `now`, in seconds since the epoch."""
        raise NotImplementedError


class NamedOptions(StoreOptions):
    """Options of a command about one token."""

    name: str

    def parseArgs(self, *names: str) -> None:
        if len(names) != 1:
            raise usage.UsageError("give the token's NAME" if not names else "give one NAME only")
        self.name = names[0]

    def help_text(self) -> str:
        return super().help_text().replace("[options]", "NAME [options]", 1)


class SecretOptions(NamedOptions):
    """Options of a command that has a secret to hand out."""

    out: Path | None = None
    force: bool = False

    def opt_out(self, path: str) -> None:
        """File for the secret."""
        if not path:
            raise usage.UsageError("--out: the path is empty")
        self.out = Path(path)

    def opt_force(self) -> None:
        """Replace a file that is there."""
        self.force = True

    def postOptions(self) -> None:
        super().postOptions()
        if self.force and self.out is None:
            raise usage.UsageError("--force: there is no --out to replace")

    def hand_out(self, store: Store, make: Callable[[], str], hint: str) -> None:
        """Make a secret and write it where it was asked for, alone; the hint goes to standard
        error. Nothing is made unless it can be written to the file."""
        if self.out is None:
            secret = make()
            print(secret, flush=True)
            _hint(hint)
            return
        with _secret_file(self.out, replace=self.force) as write, store.transaction():
            write(make() + "\n")
        _hint(f"{hint} Its secret is in {self.out}.")


class CreateOptions(SecretOptions):
    """Options of ``token create``."""

    description = (
        "Make a token that lets agents in, and print its secret, alone, on standard output. "
        "It cannot be shown again."
    )
    extra = (
        ("--expires DURATION", "When it ends by itself, from now. [default: never]"),
        (
            "--allow-host HOST",
            (
                "A host that its services may have: app.example.com; *.example.com, for any with "
                "one label in the place of the star; or none. May be given more than once. "
                "[default: any free name directly under the relay's domain]"
            ),
        ),
        (
            "--allow-port LOW-HIGH",
            (
                "Ports that its services may have, or none. May be given more than once. "
                "[default: any of the relay's]"
            ),
        ),
        _OUT,
        _FORCE,
    )
    expires: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.hosts: list[str] = []
        self.ports: list[str] = []

    def opt_expires(self, text: str) -> None:
        """When it ends by itself."""
        self.expires = _duration("--expires", text)

    def opt_allow_host(self, text: str) -> None:
        """A host that its services may have."""
        self.hosts.append(text)

    def opt_allow_port(self, text: str) -> None:
        """Ports that its services may have."""
        self.ports.append(text)

    def postOptions(self) -> None:
        super().postOptions()
        try:
            self.scope = Scope.parse(self.hosts, self.ports)
        except ScopeError as error:
            raise usage.UsageError(f"--allow-host and --allow-port: {error}") from None

    def act(self, now: float) -> None:
        with Store(self.data_dir) as store:
            tokens = Tokens(store)
            ends = None if self.expires is None else now + self.expires
            self.hand_out(
                store,
                lambda: tokens.create(self.name, now, self.expires, self.scope)[1],
                f"Token {self.name!r} made; it expires: {_day(ends)}; "
                f"it may publish: {_scope(self.scope)}.",
            )


class RotateOptions(SecretOptions):
    """Options of ``token rotate``."""

    description = (
        "Give a token a new secret, and print it. Addresses and tunnels stay; the old secret is "
        "good for the grace."
    )
    extra = (
        (
            "--grace DURATION",
            f"For how long the old secret is good. [default: {DEFAULT_GRACE / 3600:.0f}h]",
        ),
        ("--expires DURATION", "Set a new end, from now. [default: the end stays as it is]"),
        _OUT,
        _FORCE,
    )
    grace: float = DEFAULT_GRACE
    expires: float | None = None

    def opt_grace(self, text: str) -> None:
        """For how long the old secret is good."""
        self.grace = _duration("--grace", text)

    def opt_expires(self, text: str) -> None:
        """When it ends by itself."""
        self.expires = _duration("--expires", text)

    def act(self, now: float) -> None:
        with Store(self.data_dir, create=False) as store:
            tokens, until = Tokens(store), _day(now + self.grace)
            self.hand_out(
                store,
                lambda: tokens.rotate(self.name, now, self.grace, self.expires),
                f"Token {self.name!r} rotated; the old secret is good until {until}.",
            )


class RevokeOptions(NamedOptions):
    """Options of ``token revoke``."""

    description = "End a token for good, and with it the tunnels of those who use it."
    extra = (
        (
            "--release",
            "Let others have its names at once. [default: nobody gets them for 30 days]",
        ),
    )
    release: bool = False

    def opt_release(self) -> None:
        """Let others have its names at once."""
        self.release = True

    def act(self, now: float) -> None:
        with Store(self.data_dir, create=False) as store:
            Tokens(store).revoke(self.name, now, release=self.release)
        _hint(f"Token {self.name!r} revoked; a running relay ends its tunnels within seconds.")


class ListOptions(StoreOptions):
    """Options of ``token list``."""

    description = "List the relay's tokens; never their secrets."
    extra = (
        ("--all", "Revoked ones too."),
        ("--json", "Print JSON, one object a line; times are seconds since the epoch."),
    )
    revoked: bool = False
    json: bool = False

    def opt_all(self) -> None:
        """Revoked ones too."""
        self.revoked = True

    def opt_json(self) -> None:
        """Print JSON, one object a line."""
        self.json = True

    def act(self, now: float) -> None:
        try:
            with Store(self.data_dir, create=False) as store:
                tokens = Tokens(store).list(revoked=self.revoked)
        except StoreMissing as missing:
            _hint(f"{missing}.")
            return
        if self.json:
            for token in tokens:
                print(json.dumps(_as_json(token, now)))
        else:
            for line in _table(tokens, now):
                print(line)


class TokenOptions(Commands, TableOptions):
    """Options of ``srrrs-tunnel token``."""

    description = "Tokens say who may open tunnels. A running relay honours a change at once."
    table = STORE_OPTIONS
    subCommands: ClassVar[list[Any]] = [
        ("create", None, CreateOptions, "Make a token and print its secret."),
        ("list", None, ListOptions, "List the tokens."),
        ("rotate", None, RotateOptions, "Give a token a new secret."),
        ("revoke", None, RevokeOptions, "End a token for good."),
    ]
    subOptions: StoreOptions

    def run(self) -> int:
        """Do what the sub-command says; the exit status."""
        return self.subOptions.run()


@contextmanager
def _secret_file(path: Path, *, replace: bool) -> Iterator[Callable[[str], None]]:
    """A file of mode 0600 that appears with all its content, or not at all.

    :raises FileExistsError: it is there already, and is not to be replaced.
    """
    if not replace and os.path.lexists(path):
        raise FileExistsError(0, "is there already; --force replaces it", str(path))
    # mkstemp makes files of mode 0600 (and never follows a link that is there).
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "w") as file:
            if replace:
                _keep_owner(path, descriptor)

            def write(text: str) -> None:
                file.write(text)
                file.flush()
                os.fsync(descriptor)

            yield write
        if replace:
            os.replace(temporary, path)
        else:
            # Unlike rename, link does not replace what came in between.
            os.link(temporary, path)
            os.unlink(temporary)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _keep_owner(path: Path, descriptor: int) -> None:
    """Give a new file to the owner of the one that it replaces, where root replaces it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    os.fchown(descriptor, status.st_uid, status.st_gid)


def _duration(option: str, text: str) -> float:
    try:
        return duration(text)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _day(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _state(token: Token, now: float) -> str:
    if token.revoked is not None:
        return "revoked"
    if not token.usable(now):
        return "expired"
    if token.grace_until is not None and token.grace_until > now:
        return "rotated"
    return "good"


def _as_json(token: Token, now: float) -> dict[str, object]:
    return {
        "name": token.name,
        "id": token.id,
        "state": _state(token, now),
        "created": token.created,
        "expires": token.expires,
        "used": token.used,
        "revoked": token.revoked,
        "grace_until": token.grace_until,
        "hosts": list(token.scope.host_texts()),
        "ports": list(token.scope.port_texts()),
    }


def _table(tokens: Iterable[Token], now: float) -> list[str]:
    rows = [("NAME", "ID", "STATE", "CREATED", "EXPIRES", "LAST USED", "MAY PUBLISH")]
    for each in tokens:
        times = (_day(each.created), _day(each.expires), _day(each.used))
        rows.append((each.name, each.id, _state(each, now), *times, _scope(each.scope)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _scope(scope: Scope) -> str:
    hosts = ", ".join(scope.host_texts()) or "any name"
    ports = ", ".join(scope.port_texts()) or "any port"
    return "; ".join((
        "no host" if hosts == NONE else hosts,
        ports if ports == "any port" else "no port" if ports == NONE else f"ports {ports}",
    ))  # fmt: skip


def _hint(text: str) -> None:
    print(text, file=sys.stderr)
