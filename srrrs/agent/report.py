"""What people and programs see of an agent: one line a service as soon as its address is known,
and one line a change of state.

For people the lines are prose; with ``--json`` each is one JSON object. Either way a line is
flushed as soon as it is written, and a reader that has gone away stops the lines, not the agent.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, TextIO
from urllib.parse import urlsplit

from twisted.logger import Logger, LoggingFile

from srrrs.words import Tally, Word

_GREEN, _YELLOW, _RED, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_COLOURS: Final = {
    Word.CONNECTED: _GREEN,
    Word.READY: _GREEN,
    Word.RESUMED: _GREEN,
    Word.PARKED: _YELLOW,
    Word.EXPIRED: _YELLOW,
    Word.DISCONNECTED: _YELLOW,
    Word.RETRYING: _YELLOW,
    Word.WITHDRAWN: _YELLOW,
    Word.DRAINING: _YELLOW,
    Word.REFUSED: _RED,
}
#: Width of the service's name in a line, characters.
_NAME_WIDTH: Final = 8


class Sink(Protocol):
    """Where events go. ``fields`` are JSON values; ``text`` is the line for people."""

    def __call__(self, event: Word, fields: dict[str, Any], text: str) -> None: ...


class Reporter:
    """Turns what happens to an agent into events.

    :param sinks: where each event goes.
    :param ssh_user: the name to show in the ``ssh`` line of an ssh service.
    """

    def __init__(self, *sinks: Sink, ssh_user: str = "USER") -> None:
        self._sinks = sinks
        self.tally = Tally()
        self._ssh_user = ssh_user

    def connected(self, relay: str, tunnel: str) -> None:
        """The relay at ``relay`` (a URL) accepted the tunnel of that id."""
        self._emit(
            Word.CONNECTED,
            {"relay": relay, "tunnel": tunnel},
            f"{Word.CONNECTED} to {relay}",
        )

    def parked(self, reason: str, grace: float) -> None:
        """The tunnel's connection broke; its streams wait for another, ``grace`` seconds."""
        self._emit(
            Word.PARKED,
            {"reason": reason, "grace": grace},
            f"{Word.PARKED}: {reason}; streams wait for up to {grace:g} s",
        )

    def resumed(self, relay: str, tunnel: str, replayed: int, away: float) -> None:
        """The tunnel's streams go on after ``away`` seconds; ``replayed`` bytes were sent again."""
        self._emit(
            Word.RESUMED,
            {"relay": relay, "tunnel": tunnel, "replayed": replayed, "away": _rounded(away)},
            f"{Word.RESUMED} after {away:.1f} s, {replayed} bytes sent again",
        )

    def expired(self, reason: str) -> None:
        """The tunnel's streams have waited in vain, and were reset."""
        self._emit(Word.EXPIRED, {"reason": reason}, f"{Word.EXPIRED}: {reason}")

    def disconnected(self, reason: str, retry: float | None) -> None:
        """The tunnel ended. ``retry``: seconds to the next dial, or None when none follows."""
        self._emit(
            Word.DISCONNECTED,
            {"reason": reason, "retry": _rounded(retry)},
            f"{Word.DISCONNECTED}: {reason}{_next(retry)}",
        )

    def retrying(self, reason: str, retry: float, heals: bool) -> None:
        """A dial failed. ``heals``: whether it may pass without anybody's doing."""
        advice = "" if heals else "; this does not heal by itself"
        self._emit(
            Word.RETRYING,
            {"reason": reason, "retry": _rounded(retry), "heals": heals},
            f"not {Word.CONNECTED}: {reason}{advice}{_next(retry)}",
        )

    def ready(self, service: str, kind: str, endpoint: str, target: str | None) -> None:
        """A service has its public ``endpoint`` (a URL). ``target``: what it leads to."""
        fields: dict[str, Any] = {"service": service, "kind": kind, "endpoint": endpoint}
        text = f"{service:<{_NAME_WIDTH}} {endpoint}"
        if target:
            fields["target"] = target
            text += f" -> {target}"
        if kind == "ssh":
            command = ssh_command(endpoint, self._ssh_user)
            fields["command"] = command
            text += f"    {command}"
        self._emit(Word.READY, fields, text)

    def refused(
        self, service: str, kind: str, code: str, message: str, retry: float | None
    ) -> None:
        """The relay does not provide a service: ``retry`` seconds until it is asked again, or
        None when it is not."""
        self._emit(
            Word.REFUSED,
            {
                "service": service,
                "kind": kind,
                "reason": code,
                "message": message,
                "retry": _rounded(retry),
            },
            f"{service:<{_NAME_WIDTH}} {Word.REFUSED}: {message}",
        )

    def withdrawn(self, service: str, kind: str, reason: str) -> None:
        """The relay took a service's address away."""
        self._emit(
            Word.WITHDRAWN,
            {"service": service, "kind": kind, "reason": reason},
            f"{service:<{_NAME_WIDTH}} {Word.WITHDRAWN} by the relay: {reason}",
        )

    def draining(self, reason: str, relay: str, onward: str | None) -> None:
        """The relay at ``relay`` (a URL) is about to go away; the agent goes to ``onward``, or,
        where there is none, waits for the tunnel's end."""
        where = "" if onward is None else f"; going to {onward}"
        self._emit(
            Word.DRAINING,
            {"reason": reason, "relay": relay, "next": onward},
            f"{relay} is {Word.DRAINING}: {reason}{where}",
        )

    def leaving(self, streams: int, limit: float) -> None:
        """The agent was told to end, and lets its streams finish first, ``limit`` seconds."""
        self._emit(
            Word.DRAINING,
            {"reason": "the agent stops", "streams": streams, "limit": _rounded(limit)},
            f"{Word.DRAINING}: {streams} running streams have {limit:g} s to finish",
        )

    def stopped(self) -> None:
        """The agent ended because it was told to."""
        counts = {str(word): count for word, count in self.tally.counts.items()}
        self._emit(Word.STOPPED, {"counts": counts}, str(Word.STOPPED))

    def _emit(self, event: Word, fields: dict[str, Any], text: str) -> None:
        text = _one_line(text)
        self.tally.count(event, fields.get("replayed", 0))
        for sink in self._sinks:
            sink(event, fields, text)


class LineSink:
    """Writes a line for each event to a text stream, and flushes it.

    :param stream: gives the stream at each line (``sys.stdout`` may be replaced while the process
        starts), or None while there is none.
    :param as_json: one JSON object a line instead of prose.
    """

    _log = Logger()

    def __init__(self, stream: Callable[[], TextIO | None], *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json
        self._broken = False

    def __call__(self, event: Word, fields: dict[str, Any], text: str) -> None:
        stream = None if self._broken else self._stream()
        if stream is None:
            return
        if self._as_json:
            line = json.dumps({"event": str(event), **fields})
        else:
            line = _coloured(event, text) if _is_terminal(stream) else text
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError) as failure:
            self._broken = True
            self._log.warn("nobody reads the agent's lines any more: {error}", error=str(failure))
            _silence(stream)


class LogSink:
    """Writes a log event for each event.

    :param loud: gives whether this log is the only place where people look: at level info then,
        else at debug.
    """

    def __init__(self, loud: Callable[[], bool], log: Logger | None = None) -> None:
        self._loud = loud
        self._log = log if log is not None else Logger(namespace="srrrs.agent")

    def __call__(self, event: Word, fields: dict[str, Any], text: str) -> None:
        write = self._log.info if self._loud() else self._log.debug
        write("{text}", text=text, srrrs_event=str(event), srrrs_fields=fields)


def process_reporter(*, as_json: bool) -> Reporter:
    """The reporter of an agent that has the process to itself.

    Prose goes to standard output, or to the log where twistd has made standard output a part of
    the log. JSON always goes to the standard output that the process was started with.
    """

    def prose() -> TextIO | None:
        stream: Any = sys.stdout
        return None if stream is None or isinstance(stream, LoggingFile) else stream

    def plain() -> TextIO | None:
        return sys.__stdout__

    user = "USER"
    if not as_json and _is_terminal(sys.stdout):
        try:
            user = getpass.getuser()
        except (OSError, KeyError):
            pass
    return Reporter(
        LineSink(plain if as_json else prose, as_json=as_json),
        LogSink(lambda: not as_json and prose() is None),
        ssh_user=user,
    )


def log_reporter() -> Reporter:
    """The reporter of an agent inside somebody else's program: the log alone."""
    return Reporter(LogSink(lambda: True))


def ssh_command(endpoint: str, user: str) -> str:
    """The command that reaches an ssh service at ``tcp://HOST:PORT``."""
    parts = urlsplit(endpoint)
    return f"ssh -p {parts.port} {user}@{parts.hostname}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _next(retry: float | None) -> str:
    return "" if retry is None else f"; next try in {retry:.1f} s"


def _one_line(text: str) -> str:
    # What a relay says is shown on a terminal: no control characters, no second line.
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else " " for each in text)


def _coloured(event: Word, text: str) -> str:
    colour = _COLOURS.get(event)
    return f"{colour}{text}{_PLAIN}" if colour and "NO_COLOR" not in os.environ else text


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _silence(stream: TextIO) -> None:
    """Point a broken stream nowhere, or the interpreter complains about it at exit."""
    try:
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):
        return
    try:
        os.dup2(nowhere, number)
    finally:
        os.close(nowhere)
