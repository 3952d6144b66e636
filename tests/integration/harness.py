"""Real relays, agents and other programs as processes of their own, on loopback.

Nothing here sleeps for a guessed time: what happens is read from the programs' output line by line,
and every wait ends with the event or, at :data:`DEADLINE`, with the output so far in the error.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

import srrrs

DEADLINE: Final = 30.0
"""Seconds after which what was waited for counts as never coming: a hang, not a speed."""
LOOK_EVERY: Final = 0.02
"""Seconds between two looks at what tells nothing of itself (``/proc``, a port)."""
RANGE_WIDTH: Final = 40
"""Public ports that each relay may use."""
REACTOR: Final = os.environ.get("SRRRS_TEST_REACTOR", "")
"""The reactor of relays and agents, by the name that ``--reactor`` takes; empty: their default."""

ROOT: Final = Path(srrrs.__file__).parent.parent
SECRET: Final = re.compile(r"srrrs_[a-z2-7]{10}_[a-z2-7]{52}")
_SHOWN: Final = 6
"""Programs whose output a failed test shows: the latest."""
_FAULT: Final = re.compile(r"Traceback \(most recent|Unhandled [Ee]rror|was never awaited")

# Below the range of ports that systems give to outgoing connections, so that a port which is free
# for a moment, while a relay restarts, stays free; apart for test runs side by side.
_LOW, _HIGH = 20_000, 30_000
_blocks = itertools.count(os.getpid() * 7)


def port_range() -> tuple[int, int]:
    """A range of ports for one relay, unlike that of any other."""
    low = _LOW + next(_blocks) * RANGE_WIDTH % (_HIGH - _LOW)
    return low, low + RANGE_WIDTH - 1


def free_port() -> int:
    """A port that nobody listens on, and that no outgoing connection gets."""
    while True:
        low, high = port_range()
        for port in range(low, high + 1):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


def need(*programs: str) -> None:
    """Skip the test where a program is not installed."""
    for program in programs:
        if shutil.which(program, path=_search_path()) is None:
            pytest.skip(f"{program} is not installed")


def which(program: str) -> str:
    """The program's path, after :func:`need`; daemons are often outside of a user's PATH."""
    found = shutil.which(program, path=_search_path())
    assert found is not None
    return found


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])


def until(condition: Callable[[], Any], what: str, within: float = DEADLINE) -> Any:
    """Look again until ``condition`` gives something true; that is returned."""
    end = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"never came: {what}")
        time.sleep(LOOK_EVERY)


class Program:
    """A process whose lines are read as they come, of both streams in one list.

    :ivar lines: what it has written so far, without line ends.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.words = list(words)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._open = 2
        self.process = subprocess.Popen(
            self.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            cwd=cwd,
            # A group of its own, so that its children can be ended with it.
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                with self._news:
                    self.lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
                    self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def mark(self) -> int:
        """Where its output stands: give it as ``since`` to look at what comes after."""
        return len(self.lines)

    def wait_for(self, found: Callable[[str], Any], what: str, since: int = 0) -> Any:
        """The first true value that ``found`` has for a line from ``since`` on."""
        end = time.monotonic() + DEADLINE
        position = since
        with self._news:
            while True:
                for line in self.lines[position:]:
                    position += 1
                    value = found(line)
                    if value:
                        return value
                if self._open == 0:
                    raise AssertionError(f"{self.name} ended without {what}\n{self.text(40)}")
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"{self.name} never gave {what}\n{self.text(40)}")
                self._news.wait(left)

    def line(self, pattern: str, since: int = 0) -> re.Match[str]:
        """The first line that the pattern is found in."""
        match: re.Match[str] = self.wait_for(
            lambda line: re.search(pattern, line), f"a line like {pattern!r}", since
        )
        return match

    def event(self, event: str, since: int = 0, **fields: Any) -> dict[str, Any]:
        """The first JSON event of that name with those fields."""
        wanted = {"event": event, **fields}

        def matches(line: str) -> dict[str, Any] | None:
            found = _event(line)
            return found if found is not None and wanted.items() <= found.items() else None

        result: dict[str, Any] = self.wait_for(matches, f"the event {wanted}", since)
        return result

    def events(self, event: str, since: int = 0) -> list[dict[str, Any]]:
        """All JSON events of that name so far."""
        found = (_event(line) for line in self.lines[since:])
        return [each for each in found if each is not None and each["event"] == event]

    def count(self, pattern: str) -> int:
        """How many lines so far the pattern is found in."""
        return sum(1 for line in list(self.lines) if re.search(pattern, line))

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would, stopped or not; returns when it is gone."""
        # Children may have outlived it: then they still hold its streams.
        if self.running or self._open:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """End it in good order; its exit status."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Until it has ended and all its output is read; its exit status."""
        status = self.process.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        return status

    def open_files(self) -> int:
        """How many files and sockets it has open, without ``/dev/null``: the loop keeps that open
        from its first transport on, whenever that is."""
        return sum(name != os.devnull for name in self.files().values())

    def connections(self) -> list[str]:
        """Its TCP sockets, listening ones among them."""
        return [name for name in self.files().values() if name.startswith("tcp ")]

    def files(self) -> dict[str, str]:
        """Its open files and sockets by number, TCP sockets with their ends and state as the
        kernel shows them."""
        folder = Path(f"/proc/{self.pid}/fd")
        found = {}
        for each in sorted(folder.iterdir(), key=lambda path: int(path.name)):
            with contextlib.suppress(OSError):
                found[each.name] = str(each.readlink())
        sockets = {}
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            sockets[f"socket:[{fields[9]}]"] = f"tcp {fields[1]} {fields[2]} state {fields[3]}"
        return {number: sockets.get(name, name) for number, name in found.items()}

    def command_line(self) -> str:
        """What every user of the machine can see of it."""
        data = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        return data.replace(b"\0", b" ").decode("utf-8", "replace")

    def text(self, last: int = 1_000_000) -> str:
        """Its last lines, for people."""
        shown = list(self.lines)[-last:]
        return "\n".join([f"--- {self.name} (pid {self.pid}): {' '.join(self.words)}", *shown])


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program: ours, without options of srrrs and without proxies."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SRRRS_") and not name.lower().endswith("_proxy")
    }
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    env["PYTHONUNBUFFERED"] = "1"
    return {**env, **(more or {})}


def tunnel_command(*words: str) -> list[str]:
    """``srrrs-tunnel WORDS``, with the reactor that the tests are to run on."""
    reactor = ["--reactor", REACTOR] if REACTOR else []
    return [sys.executable, "-m", "srrrs.cli", *reactor, *words]


def twistd_command(*words: str) -> list[str]:
    """``twistd -n WORDS``."""
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    reactor = ["--reactor", REACTOR] if REACTOR else []
    return [sys.executable, "-c", code, "--nodaemon", "--pidfile=", *reactor, *words]


class Relay(Program):
    """A relay that is ready.

    :ivar port: of its listener.
    :ivar data_dir: its data folder.
    """

    port: int
    data_dir: Path
    domain: str

    @property
    def url(self) -> str:
        """What an agent on this machine dials, without TLS."""
        return f"ws://localhost:{self.port}/tunnel"

    @property
    def first_token(self) -> Path:
        """The file with the token that the relay made on its first run."""
        return self.data_dir / "first.token"

    def wait_ready(self) -> None:
        """Until it listens and says so."""
        self.port = int(self.line(r"listening on .*:(\d+)")[1])
        self.line(r"the relay is ready")


class Lab:
    """What one test starts, and what must be true of all of it in the end.

    :ivar path: a folder of this test's own.
    :ivar secrets: texts that no output and no command line may hold.
    :ivar faults_expected: whether tracebacks are no fault of the test's subjects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.programs: list[Program] = []
        self.secrets: set[str] = set()
        self.faults_expected = False
        self._names: dict[str, int] = {}
        self._close = contextlib.ExitStack()

    def keep(self, manager: contextlib.AbstractContextManager[Any]) -> Any:
        """Enter a context manager and leave it when the test is over."""
        return self._close.enter_context(manager)

    # --- programs -----------------------------------------------------------------------

    def spawn(self, name: str, words: Sequence[str], **how: Any) -> Program:
        """Start any program."""
        return self._started(Program(self._numbered(name), words, **how))

    def relay(
        self,
        *options: str,
        data_dir: Path | None = None,
        listen: str = "tcp:0:interface=127.0.0.1",
        domain: str = "localhost",
        command: Callable[..., list[str]] = tunnel_command,
        face: str = "relay",
        tcp_ports: tuple[int, int] | None = None,
    ) -> Relay:
        """Start a relay at debug level and wait until it listens."""
        name = self._numbered("relay")
        data_dir = data_dir or self.path / name
        low, high = tcp_ports or port_range()
        words = command(
            face,
            *("--listen", listen, "--domain", domain, "--data-dir", str(data_dir)),
            *("--tcp-ports", f"{low}-{high}", "--log-level", "debug"),
            *options,
        )
        relay = Relay(name, words)
        self._started(relay)
        relay.data_dir = data_dir
        relay.domain = domain
        relay.wait_ready()
        if relay.first_token.exists():
            self.secrets.add(relay.first_token.read_text().strip())
        return relay

    def agent(
        self,
        relay: Relay | str,
        *options: str,
        token: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        command: Callable[..., list[str]] = tunnel_command,
        face: str = "agent",
    ) -> Program:
        """Start an agent at debug level with its events as JSON; returns at once.

        :param relay: a relay, or an edge URL.
        :param token: a file with a token, or what ``--auth-token`` is to get; default: the
            relay's first token.
        """
        if token is None:
            assert isinstance(relay, Relay)
            token = relay.first_token
        words = command(
            face,
            *("--edge-url", relay if isinstance(relay, str) else relay.url),
            *("--auth-token", f"file:{token}" if isinstance(token, Path) else token),
            *("--json", "--log-level", "debug"),
            *options,
        )
        return self.spawn("agent", words, env=env)

    def token(self, relay: Relay, name: str, *options: str, action: str = "create") -> Path:
        """Make or rotate a token with the command; the file that holds it."""
        number = self._numbered(f"{name}.token")
        path = self.path / number
        self.run_token(relay, action, name, "--out", str(path), *options)
        self.secrets.add(path.read_text().strip())
        return path

    def run_token(self, relay: Relay, *words: str) -> str:
        """Run a ``token`` command beside a relay; what it printed on standard output."""
        done = subprocess.run(
            tunnel_command("token", *words, "--data-dir", str(relay.data_dir)),
            capture_output=True,
            check=False,
            text=True,
            env=environment(),
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _numbered(self, name: str) -> str:
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"

    def _started(self, program: Program) -> Program:
        self.programs.append(program)
        return program

    # --- the end ------------------------------------------------------------------------

    def close(self) -> None:
        """Kill what is left, and say what was wrong in what the programs wrote."""
        for program in self.programs:
            program.kill()
        self._close.close()
        self.check()

    def check(self) -> None:
        """No secret anywhere in sight, and no program met a fault."""
        wrong = []
        for program in self.programs:
            seen = [*program.lines, " ".join(program.words)]
            if program.running:
                seen.append(program.command_line())
            leaks = [line for line in seen if self.leaks(line)]
            wrong += [f"{program.name} shows a secret: {SECRET.sub('***', each)}" for each in leaks]
            if not self.faults_expected:
                wrong += [
                    f"{program.name} met a fault: {line}"
                    for line in program.lines
                    if _FAULT.search(line)
                ]
        assert not wrong, "\n".join(wrong)

    def leaks(self, text: str) -> bool:
        """Whether a text holds a secret, whole or its secret part."""
        return any(each in text or each.rpartition("_")[2] in text for each in self.secrets)

    def report(self) -> str:
        """The end of every program's output, for a test that failed."""
        ended = self.programs[:-_SHOWN]
        shown = [f"({len(ended)} earlier programs left out)"] if ended else []
        shown += [program.text(100) for program in self.programs[-_SHOWN:]]
        return "\n\n".join(shown)


# --- local services -----------------------------------------------------------------------


@contextlib.contextmanager
def tcp_server(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback whose every connection ``handle`` gets, in a thread; its port."""
    connections: set[socket.socket] = set()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            handle(connection)
        connections.discard(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.add(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(DEADLINE)
        for connection in list(connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    """Send back whatever comes, until its end."""
    while data := connection.recv(65536):
        connection.sendall(data)


def hash_of_all(connection: socket.socket) -> None:
    """Read to the end, then answer with the SHA-256: works only if half-close does."""
    digest = hashlib.sha256()
    while data := connection.recv(65536):
        digest.update(data)
    connection.sendall(digest.hexdigest().encode())


def http_answer(body: bytes) -> Callable[[socket.socket], None]:
    """A web server that has one page and no keep-alive."""

    def handle(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = connection.recv(65536)
            if not data:
                return
            request += data
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    return handle


# --- visitors -----------------------------------------------------------------------------


def get(endpoint: str, path: str = "/", within: float = DEADLINE) -> tuple[int, bytes]:
    """Fetch a page from a service's public address, which is on this machine whatever its name.

    :raises OSError, HTTPException: there was no answer, or not all of it.
    """
    parts = urlsplit(endpoint)
    assert parts.port is not None
    connection = HTTPConnection("127.0.0.1", parts.port, timeout=within)
    try:
        connection.request("GET", path, headers={"Host": parts.netloc})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def status_of(endpoint: str) -> int:
    """The status of a page; 0 where there is no answer."""
    try:
        return get(endpoint)[0]
    except (OSError, HTTPException):
        return 0


def exchange(endpoint: str, data: bytes, within: float = DEADLINE) -> bytes:
    """Send to a TCP service, half-close, and read to the end."""
    parts = urlsplit(endpoint)
    assert parts.port is not None
    with socket.create_connection(("127.0.0.1", parts.port), timeout=within) as visitor:
        sender = threading.Thread(target=_send_all, args=(visitor, data), daemon=True)
        sender.start()
        received = b""
        while chunk := visitor.recv(65536):
            received += chunk
        sender.join(within)
        return received


def _send_all(visitor: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        visitor.sendall(data)
        visitor.shutdown(socket.SHUT_WR)


def sha256(path: Path) -> str:
    """A file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path: Path, size: int) -> str:
    """Fill a file with random bytes; its hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            block = os.urandom(min(1 << 20, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def run(*words: str | Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a visitor's program to its end."""
    return subprocess.run(
        list(map(str, words)),
        input=b"" if data is None else data,
        capture_output=True,
        env=environment(),
        timeout=DEADLINE,
        check=False,
    )
