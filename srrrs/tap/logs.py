"""What is logged: what ``--log-level`` lets through, as plain lines."""

from __future__ import annotations

from typing import Any, Final, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatTime,
    globalLogBeginner,
)
from twisted.python import usage
from zope.interface import implementer

_LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
#: The one whose service is being made: twistd asks for an observer by name, with no argument.
_twistd: dict[str, Any] = {}


def predicate(level: str) -> LogLevelFilterPredicate:
    """What a level lets through. Other people's code is heard from warnings on, except at debug:
    Twisted tells at info of every factory that starts."""
    ours = _LEVELS[level]
    others = LogLevel.warn if level == "info" else ours
    result = LogLevelFilterPredicate(defaultLogLevel=others)
    result.setLogLevelForNamespace("srrrs", ours)
    return result


@implementer(ILogObserver)
class LineObserver:
    """Writes an event as ``TIME LEVEL TEXT``, with its traceback if it has one.

    :param stream: where to; what cannot be written any more is lost in silence.
    :param times: whether the line begins with the time.
    """

    def __init__(self, stream: TextIO, *, times: bool = True) -> None:
        self._stream = stream
        self._times = times

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        time = formatTime(event.get("log_time")) + " " if self._times else ""
        try:
            self._stream.write(f"{time}{level.name:<5} {text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass


def start(stream: TextIO, level: str, *, times: bool) -> None:
    """Log to a stream from now on."""
    observer = FilteringLogObserver(LineObserver(stream, times=times), [predicate(level)])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def filter_twistd(options: usage.Options, level: str) -> None:
    """Let twistd's own log, wherever its options send it, hold only what a level lets through.

    A ``--logger`` of the user's choice gets everything.
    """
    if "logger" in options and options["logger"] is None:
        _twistd.update(options=options, level=level)
        options["logger"] = f"{__name__}.{twistd_observer.__name__}"


def twistd_observer() -> Any:
    """The observer that twistd would have used, behind the filter."""
    from twisted.scripts.twistd import (  # type: ignore[attr-defined]
        _SomeApplicationRunner,
    )

    options = dict(_twistd["options"], logger=None)
    observer = _SomeApplicationRunner.loggerFactory(options)._getLogObserver()
    if not ILogObserver.providedBy(observer):
        return observer  # syslog's, which is of the older kind
    return FilteringLogObserver(observer, [predicate(_twistd["level"])])
