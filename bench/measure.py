"""Processes, ports and what ``/proc`` says about them (Linux only)."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

LOOPBACK: Final = "127.0.0.1"
START_WITHIN: Final = 20.0
"""Seconds that a program has to be ready."""
STOP_WITHIN: Final = 5.0
"""Seconds that a program has to end before it is killed."""
LOOK_EVERY: Final = 0.02
"""Seconds between two looks at what tells nothing of itself."""
LOG_TAIL: Final = 2000
"""Characters of a program's output that an error shows."""
ROOT: Final = Path(__file__).resolve().parent.parent
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_T = TypeVar("_T")


class BenchError(Exception):
    """Something could not be measured; one line that says why."""


def wait_for(look: Callable[[], _T | None], what: str, within: float = START_WITHIN) -> _T:
    """What ``look`` gives as soon as it is true.

    :raises BenchError: it was not, ``within`` seconds.
    """
    end = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise BenchError(f"never came within {within:g} s: {what}")
        time.sleep(LOOK_EVERY)


class Programs:
    """The processes of one measurement, in a folder of their own; :meth:`close` ends them all."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self.running: list[Program] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, words: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Program:
        """Start a program; its output goes to a file."""
        program = Program([str(each) for each in words], self.path, env)
        self.running.append(program)
        return program

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file for a program to read."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def close(self) -> None:
        """End what is still running, last started first, and remove the folder."""
        while self.running:
            self.running.pop().stop()
        self._folder.cleanup()


class Program:
    """A process that we started, as the leader of a group of its own."""

    def __init__(self, words: list[str], folder: Path, env: Mapping[str, str] | None) -> None:
        self.words = words
        descriptor, name = tempfile.mkstemp(suffix=".log", dir=folder)
        self._log = Path(name)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise BenchError(f"{words[0]} cannot be started: {error}") from None
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """:raises BenchError: it has ended."""
        if not self.running:
            raise BenchError(f"{self.words[0]} ended: {self.output[-LOG_TAIL:].strip()}")

    def wait_port(self, port: int, host: str = LOOPBACK) -> None:
        """Until somebody listens there. The connection that finds out is closed at once."""

        def look() -> bool:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
                return True
            return False

        try:
            wait_for(look, f"{self.words[0]} on port {port}")
        except BenchError as error:
            raise BenchError(f"{error}; {self.output[-LOG_TAIL:].strip()}") from None

    def wait_text(self, text: str, within: float = START_WITHIN) -> None:
        """Until it has printed that."""

        def look() -> bool:
            self.check()
            return text in self.output

        try:
            wait_for(look, f"{text!r} of {self.words[0]}", within)
        except BenchError as error:
            raise BenchError(f"{error}; {self.output[-LOG_TAIL:].strip()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send it, and it alone, a signal."""
        if self.running:
            self._process.send_signal(number)

    def wait(self, within: float) -> bool:
        """Whether it ended in time."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and what it started."""
        self.send(number)
        self.wait(STOP_WITHIN)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without srrrs' own variables and proxies, and with srrrs in Python's path."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SRRRS_") and not name.lower().endswith("_proxy")
    }
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH", ""), str(ROOT)]))
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **(more or {})}


def free_port(count: int = 1) -> int:
    """The first of ``count`` ports in a row that are free on loopback.

    Below the ports that outgoing connections get, so that it is still free when it is used.
    """
    for _ in range(1000):
        first = random.randrange(10_000, 32_000 - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise BenchError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def processes(root: int) -> list[int]:
    """A process and all that came of it."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(each) for each in (task / "children").read_text().split()]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, their children that have ended included."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(each) for each in fields[11:15])
    return ticks / _TICKS


def memory(pids: Iterable[int], name: str = "VmHWM") -> int:
    """Bytes: the sum over the processes of their peak (``VmHWM``) or of now (``VmRSS``)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(name + ":"):
                    total += int(line.split()[1]) * 1024
    return total


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """Who else used the processors while something was measured.

    :ivar cores: how many there are.
    :ivar before: the load average of the last minute at the start.
    :ivar others: share of all cores' time that was neither idle nor ours, 0 to 1.
    """

    cores: int
    before: float
    others: float


class LoadWatch:
    """Tells, at the end, how busy the machine was with other things."""

    def __init__(self) -> None:
        self._before = os.getloadavg()[0]
        self._busy, self._all = machine_ticks()
        self._ours = self._own()

    @staticmethod
    def _own() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    def result(self) -> MachineLoad:
        """Since it was made. Children count once they have ended."""
        busy, total = machine_ticks()
        ours = (self._own() - self._ours) * _TICKS
        spent = max(1, total - self._all)
        others = max(0.0, busy - self._busy - ours) / spent
        return MachineLoad(os.cpu_count() or 1, self._before, others)


def machine_ticks() -> tuple[int, int]:
    """Of all processors since the machine began: those that were used, and all."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def median(values: Sequence[float]) -> float | None:
    """The median, or ``None`` of nothing."""
    return statistics.median(values) if values else None


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key: PEM files."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not cert.exists():
        words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        done = subprocess.run(
            [*words.split(), "-subj", "/CN=localhost", "-addext"]
            + ["subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"openssl makes no certificate: {done.stderr.decode()[-LOG_TAIL:]}")
    return cert, key


def raise_files() -> int:
    """Allow this process as many open files as the system lets it; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
