"""Lines to a file or to standard output, written on a thread of their own: a disk or a reader that
hangs costs lines and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from srrrs.net.draining import when_idle

MOST: Final = 8 * 1024 * 1024
"""Bytes that wait to be written; what comes beyond is dropped, counted, and told."""
BLOCK: Final = 64 * 1024
"""Bytes that are handed to the thread at once."""
FLUSH_EVERY: Final = 0.25
"""Seconds that a line waits for others at the longest."""
TELL_EVERY: Final = 10.0
"""Seconds between two words about what was dropped."""
STOP_WITHIN: Final = 2.0
"""Seconds that what waits has to be written in at the end."""
RETRY_EVERY: Final = 1.0
"""Seconds after which a file that cannot be written is tried again."""
MODE: Final = 0o640
STDOUT: Final = 1


class LineWriter:
    """Appends lines. Of each number that two threads look at, one alone is the writer.

    :param path: the file, or None: standard output.
    :param most: cap of bytes that wait.
    :raises OSError: the file cannot be opened.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, path: Path | None, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._lines: list[bytes] = []
        self._size = 0
        self._handed = 0
        self._dropped = 0
        self._told = 0
        self._told_at: float | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._sink = _Sink(path)
        # A daemon: the process ends, whatever it hangs in.
        threading.Thread(target=self._sink.run, name="access log", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._size + self._handed - self._sink.done

    @property
    def lost(self) -> int:
        """Lines that were dropped or could not be written."""
        return self._dropped + self._sink.lost

    def write(self, line: bytes) -> None:
        """Take a line, or drop it where too much waits."""
        size = self._size + len(line)
        if self._stopped or size + self._handed - self._sink.done > self._most:
            self._dropped += 1
        else:
            self._lines.append(line)
            self._size = size
            if size >= BLOCK:
                self._hand_over()
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(FLUSH_EVERY, self._flush)

    def reopen(self) -> None:
        """Go on in a new file of the same name, now that the old one was moved away."""
        self._hand_over()
        self._sink.blocks.put(self._sink.open)

    def stop(self) -> Deferred[None]:
        """Write what waits, and end; fires when it is written, or :data:`STOP_WITHIN` is over."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over()
        self._sink.blocks.put(None)
        waiter = when_idle(self._clock, lambda: not self.waiting)
        waiter.addTimeout(STOP_WITHIN, self._clock, lambda _, __: None)
        return waiter.addCallback(lambda _: self._tell())

    def _flush(self) -> None:
        self._timer = None
        self._hand_over()
        now = self._clock.seconds()
        if self.lost == self._told and not self.waiting:
            return
        if self._told_at is None or now - self._told_at >= TELL_EVERY:
            self._tell()
        self._timer = self._clock.callLater(FLUSH_EVERY, self._flush)

    def _hand_over(self) -> None:
        if self._lines:
            block = b"".join(self._lines)
            self._lines.clear()
            self._size = 0
            self._handed += len(block)
            self._sink.blocks.put(block)

    def _tell(self) -> None:
        lost = self.lost - self._told
        if lost:
            self._told += lost
            self._told_at = self._clock.seconds()
            self._log.warn(
                "{lost} lines of the access log were dropped: {why}",
                lost=lost,
                why=self._sink.problem or "it is written too slowly",
            )


class _Sink:
    """What the thread does.

    :ivar blocks: bytes to write, something to do between them, or None: the end.
    :ivar done: bytes that were written, or given up.
    :ivar lost: lines that were given up.
    :ivar problem: why the file could not be written when it was last tried; empty: it could.
    """

    def __init__(self, path: Path | None) -> None:
        self.blocks: SimpleQueue[bytes | Callable[[], None] | None] = SimpleQueue()
        self.done = 0
        self.lost = 0
        self.problem = ""
        self._path = path
        self._tried_at = 0.0
        self._file = self._opened()

    def run(self) -> None:
        while (block := self.blocks.get()) is not None:
            if isinstance(block, bytes):
                self._write(block)
            else:
                block()
        self._close()

    def open(self) -> None:
        """Open the file anew. Where that fails, it is tried again with what is to be written."""
        self._close()
        self._tried_at = time.monotonic()
        try:
            self._file = self._opened()
            self.problem = ""
        except OSError as error:
            self.problem = error.strerror or "input/output error"

    def _opened(self) -> int:
        if self._path is None:
            return os.dup(STDOUT)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        return os.open(self._path, flags, MODE)

    def _write(self, block: bytes) -> None:
        if self._file < 0 and time.monotonic() - self._tried_at >= RETRY_EVERY:
            self.open()
        rest = memoryview(block)
        try:
            while rest and self._file >= 0:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._close()
            self._tried_at = time.monotonic()
            self.problem = error.strerror or "input/output error"
        self.lost += bytes(rest).count(b"\n")
        self.done += len(block)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            try:
                os.close(file)
            except OSError:
                pass
