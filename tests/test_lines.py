"""Lines that are written on a thread of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from srrrs.relay import lines
from srrrs.relay.lines import BLOCK, FLUSH_EVERY, STOP_WITHIN, TELL_EVERY, LineWriter

DEADLINE = 10.0


def until(true: Callable[[], bool]) -> None:
    """The other thread has got so far."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end
        os.sched_yield()


@implementer(ILogObserver)
class Warnings:
    """The texts of warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        globalLogPublisher.addObserver(self)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            self.texts.append(str(event["log_format"]).format(**event))

    def stop(self) -> None:
        globalLogPublisher.removeObserver(self)


def test_lines_are_written_together(tmp_path: Path) -> None:
    """A moment after the first of them, or when they are a block; none is lost at the end."""
    clock, path = Clock(), tmp_path / "log"
    path.write_bytes(b"before\n")
    writer = LineWriter(clock, path)
    writer.write(b"one\n")
    writer.write(b"two\n")
    assert path.read_bytes() == b"before\n"
    clock.advance(FLUSH_EVERY)
    until(lambda: not writer.waiting)
    assert path.read_bytes() == b"before\none\ntwo\n"
    writer.write(b"x" * BLOCK)
    until(lambda: not writer.waiting)
    writer.write(b"\nlast\n")
    done = writer.stop()
    until(lambda: not writer.waiting)
    clock.advance(1.0)
    assert done.called
    assert path.read_bytes().endswith(b"x\nlast\n")
    writer.write(b"late\n")
    assert writer.lost == 1
    assert not clock.getDelayedCalls()


def test_a_new_file_after_the_old_one_was_moved(tmp_path: Path) -> None:
    """As log rotation asks for; it is not for everybody to read."""
    clock, path = Clock(), tmp_path / "log"
    writer = LineWriter(clock, path)
    writer.write(b"one\n")
    path.rename(tmp_path / "log.1")
    writer.reopen()
    writer.write(b"two\n")
    writer.stop()
    until(lambda: path.exists() and path.read_bytes() == b"two\n")
    assert (tmp_path / "log.1").read_bytes() == b"one\n"
    assert not path.stat().st_mode & 0o007


def test_a_reader_that_hangs_costs_lines_alone(tmp_path: Path) -> None:
    """What is above the cap is dropped, counted and told, at most every few seconds; the end does
    not wait for it for long."""
    clock, path = Clock(), tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    warnings = Warnings()
    try:
        writer = LineWriter(clock, path, most=3 * BLOCK)
        line = b"x" * (BLOCK - 1) + b"\n"
        for _ in range(8):
            writer.write(line)
        assert writer.waiting <= 3 * BLOCK
        assert writer.lost >= 4
        clock.advance(FLUSH_EVERY)
        told = len(warnings.texts)
        assert told == 1
        assert "lines of the access log were dropped: it is written too slowly" in warnings.texts[0]
        writer.write(line)
        clock.pump([FLUSH_EVERY] * int(TELL_EVERY / FLUSH_EVERY))
        assert len(warnings.texts) == told + 1
        ends: list[float] = []
        writer.stop().addCallback(lambda _: ends.append(clock.seconds()))
        began = clock.seconds()
        clock.pump([0.1] * 30)
        assert ends == [pytest.approx(began + STOP_WITHIN, abs=0.2)]
        assert not clock.getDelayedCalls()
    finally:
        warnings.stop()
        os.close(reader)


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines are lost and told of; it is tried again, and goes on once it can."""
    monkeypatch.setattr(lines, "RETRY_EVERY", 0.0)
    clock, folder = Clock(), tmp_path / "logs"
    folder.mkdir()
    writer = LineWriter(clock, folder / "log")
    warnings = Warnings()
    try:
        folder.rename(tmp_path / "away")
        writer.reopen()
        writer.write(b"one\n")
        writer.write(b"two\n")
        clock.advance(FLUSH_EVERY)
        until(lambda: writer.lost == 2)
        clock.advance(FLUSH_EVERY)
        assert warnings.texts == [
            "2 lines of the access log were dropped: No such file or directory"
        ]
        folder.mkdir()
        writer.write(b"three\n")
        clock.advance(FLUSH_EVERY)
        until(lambda: not writer.waiting)
        assert (folder / "log").read_bytes() == b"three\n"
        writer.stop()
    finally:
        warnings.stop()


def test_a_file_that_cannot_be_opened_at_the_start(tmp_path: Path) -> None:
    """Is told at once."""
    with pytest.raises(FileNotFoundError):
        LineWriter(Clock(), tmp_path / "missing" / "log")


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """It stays open at the end."""
    writer = LineWriter(Clock(), None)
    writer.write(b"one\n")
    writer.stop()
    until(lambda: not writer.waiting)
    assert capfd.readouterr().out == "one\n"
    os.write(1, b"two\n")
    assert capfd.readouterr().out == "two\n"
