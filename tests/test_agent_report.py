"""What people and programs see of an agent."""

from __future__ import annotations

import io
import json
import os
from typing import Any, TextIO

import pytest
from twisted.logger import Logger, LogLevel

from srrrs.agent.report import LineSink, LogSink, Reporter, process_reporter, ssh_command


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def reporter(stream: TextIO, *, as_json: bool = False) -> Reporter:
    return Reporter(LineSink(lambda: stream, as_json=as_json))


def everything(report: Reporter) -> None:
    report.connected("wss://relay.example/tunnel", "t1")
    report.ready("http", "http", "http://calm-otter-7f3k.localhost:8000", "localhost:8080")
    report.ready("ssh", "ssh", "tcp://relay.example:20022", "localhost:22")
    report.refused("blog", "http", "taken", "the name is taken", None)
    report.withdrawn("blog", "http", "taken over")
    report.draining("upgrade", "wss://a.example/tunnel", "wss://b.example/tunnel")
    report.leaving(3, 30.0)
    report.disconnected("nothing heard for 37.5 s", 0.25)
    report.retrying("relay.example:443 refuses the connection", 0.5, True)
    report.stopped()


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    everything(reporter(stream, as_json=True))
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [each["event"] for each in events] == [
        "connected",
        "ready",
        "ready",
        "refused",
        "withdrawn",
        "draining",
        "draining",
        "disconnected",
        "retrying",
        "stopped",
    ]
    ready = events[1]
    assert ready["service"] == "http"
    assert ready["kind"] == "http"
    assert ready["endpoint"] == "http://calm-otter-7f3k.localhost:8000"
    assert events[2]["endpoint"] == "tcp://relay.example:20022"
    assert events[5]["next"] == "wss://b.example/tunnel"
    assert (events[6]["streams"], events[6]["limit"]) == (3, 30.0)
    assert events[7]["reason"] == "nothing heard for 37.5 s"
    assert events[3]["reason"] == "taken"


def test_prose_is_one_line_an_event_and_plain_where_nobody_looks() -> None:
    stream = io.StringIO()
    everything(reporter(stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert "\x1b" not in stream.getvalue()
    assert "http://calm-otter-7f3k.localhost:8000" in lines[1]
    assert "ssh -p 20022 USER@relay.example" in lines[2]


def test_a_terminal_gets_colours_unless_it_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    reporter(terminal).connected("wss://relay.example/tunnel", "t1")
    assert terminal.getvalue().startswith("\x1b[32m")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    reporter(terminal).connected("wss://relay.example/tunnel", "t1")
    assert "\x1b" not in terminal.getvalue()


def test_what_a_relay_says_cannot_drive_a_terminal() -> None:
    """No control characters, no second line, in prose; JSON escapes them anyway."""
    stream = io.StringIO()
    reporter(stream).refused("blog", "http", "x", "a\x1b[2J\nconnected to evil\r\x07", None)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    stream = io.StringIO()
    reporter(stream, as_json=True).refused("blog", "http", "x", "a\n\x1b", None)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_reader_that_went_away_stops_the_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        report = reporter(stream)
        everything(report)
        report.stopped()


def test_a_line_is_flushed_when_it_is_written() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=4096) as stream:
        reporter(stream, as_json=True).stopped()
        assert os.read(reading, 100) == b'{"event": "stopped", "counts": {}}\n'
    os.close(reading)


def test_the_log_is_loud_only_where_nothing_else_is() -> None:
    events: list[dict[str, Any]] = []
    log = Logger("test", observer=events.append)  # type: ignore[arg-type]
    Reporter(LogSink(lambda: True, log), LogSink(lambda: False, log)).stopped()
    assert [event["log_level"] for event in events] == [LogLevel.info, LogLevel.debug]
    assert events[0]["srrrs_event"] == "stopped"


def test_under_twistd_lines_go_to_the_log_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """twistd puts a log in place of standard output after the service was made."""
    from twisted.logger import LoggingFile

    report = process_reporter(as_json=False)
    report.stopped()
    assert capsys.readouterr().out == "stopped\n"
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr("sys.stdout", LoggingFile(Logger("out", observer=logged.append)))  # type: ignore[arg-type]
    report.stopped()
    assert logged == []


def test_ssh_command_for_an_ipv6_relay() -> None:
    assert ssh_command("tcp://[2001:db8::1]:20022", "pi") == "ssh -p 20022 pi@2001:db8::1"
