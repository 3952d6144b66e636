"""How the reactor is installed, in fresh processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("uvloop")

ROOT = Path(__file__).parents[2]


def python(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_installs_nothing() -> None:
    """Importing the package imports no reactor and no uvloop."""
    code = """
        import sys, srrrs.net.reactor
        print("twisted.internet.reactor" in sys.modules, "uvloop" in sys.modules)
    """
    assert python(code) == "False False"


def test_install() -> None:
    """`install` makes the reactor, and its loop the thread's."""
    code = """
        import asyncio, srrrs.net.reactor
        srrrs.net.reactor.install()
        from twisted.internet import reactor
        print(type(reactor).__name__, type(asyncio.get_event_loop()).__module__)
    """
    assert python(code) == "LoopReactor uvloop"


def test_a_reactor_that_is_there_stays() -> None:
    """`install_default` leaves another reactor, and `install` refuses."""
    code = """
        from twisted.internet import selectreactor, error
        selectreactor.install()
        import srrrs.net.reactor
        from twisted.logger import Logger
        print(srrrs.net.reactor.install_default(Logger()))
        from twisted.internet import reactor
        print(type(reactor).__name__)
        try:
            srrrs.net.reactor.install()
        except error.ReactorAlreadyInstalledError:
            print("refused")
    """
    assert python(code).split() == ["False", "SelectReactor", "refused"]


def test_without_uvloop() -> None:
    """Without uvloop one line says so, and Twisted's own reactor runs."""
    code = """
        import sys
        sys.modules["uvloop"] = None
        import srrrs.net.reactor
        from twisted.logger import Logger, eventAsText, globalLogPublisher
        lines = []
        globalLogPublisher.addObserver(lines.append)
        print(srrrs.net.reactor.install_default(Logger()))
        for line in lines:
            print(line["log_level"].name, eventAsText(line, includeTimestamp=False))
        from twisted.internet import reactor
        print(type(reactor).__module__)
    """
    lines = python(code).splitlines()
    assert lines[0] == "False"
    assert len(lines) == 3
    assert "info" in lines[1]
    assert "uvloop is not installed" in lines[1]
    assert lines[2].startswith("twisted.internet.")


@pytest.mark.parametrize("daemon", [False, True])
def test_twistd(tmp_path: Path, daemon: bool) -> None:
    """`twistd --reactor=srrrs` serves, also from the process that daemonizing leaves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = free.getsockname()
    application = tmp_path / "app.py"
    application.write_text(
        textwrap.dedent(f"""
            from twisted.application.service import Application
            from twisted.application.strports import service
            from twisted.protocols.wire import Echo
            from twisted.internet.protocol import Factory
            application = Application("echo")
            address = "tcp:{where[1]}:interface=127.0.0.1"
            service(address, Factory.forProtocol(Echo)).setServiceParent(application)
        """)
    )
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    command += ["--reactor=srrrs", f"--pidfile={pid_file}", f"--logfile={log}"]
    command += ["-y", str(application)] + ([] if daemon else ["--nodaemon"])
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    try:
        with _connect(where) as client:
            client.sendall(b"x" * 100_000)
            left = 100_000
            while left:
                left -= len(client.recv(left))
        pid = int(pid_file.read_text())
        assert (pid != process.pid) is daemon
    finally:
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
        process.wait(30)
    _until(lambda: not pid_file.exists())
    text = log.read_text()
    assert "reactor class: srrrs.net.reactor.reactor.LoopReactor" in text
    assert "Traceback" not in text
    assert "Server Shut Down" in text


def _connect(where: tuple[str, int]) -> socket.socket:
    for _ in range(600):
        try:
            return socket.create_connection(where, 20)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("nothing listens")


def _until(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be so")


MEMORY = """
    import gc, socket, sys
    from srrrs.net.reactor import install
    if sys.argv[1] == "ours":
        install()
    else:
        from twisted.internet import epollreactor
        epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    held = []
    class Idle(Protocol):
        made = 0
        def connectionMade(self):
            Idle.made += 1
            if Idle.made % count == 0:
                reactor.callLater(0, step)
    count = int(sys.argv[2])

    def connect(n):
        for _ in range(n):
            a = socket.socket()
            a.setblocking(False)
            a.connect_ex(("127.0.0.1", port.getHost().port))
            held.append(a.detach())

    port = reactor.listenTCP(0, Factory.forProtocol(Idle), backlog=1024, interface="127.0.0.1")
    sizes = []

    def step():
        gc.collect()
        sizes.append(resident())
        if len(sizes) == 3:
            print((sizes[2] - sizes[1]) // count)
            reactor.stop()
        else:
            connect(count)
    reactor.callWhenRunning(step)
    reactor.run()
"""


def test_memory_of_an_idle_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """An idle connection costs a few kilobytes; the figure is printed beside Twisted's."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how much memory a process has")
    ours, theirs = (int(python(MEMORY, which, "500")) for which in ("ours", "theirs"))
    with capsys.disabled():
        print(f"\nbytes per idle connection: {ours} (epoll reactor: {theirs})", end="")
    assert ours < 8192
