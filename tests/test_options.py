"""The commands: what their options say and refuse, and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from srrrs.cli.main import MainOptions
from srrrs.config.option import Option
from srrrs.config.table import AGENT_OPTIONS, CONFIG, LOG_LEVEL, RELAY_OPTIONS
from srrrs.net.notify import Notifier, NotifyService
from srrrs.relay.store import Store
from srrrs.relay.tokens import Tokens
from srrrs.tap.help import default_note
from srrrs.tap.options import AgentOptions, RelayOptions, TableOptions

ROOT: Final = Path(__file__).parent.parent
SECRET: Final = re.compile(r"srrrs_[a-z2-7]{10}_[a-z2-7]{52}")
DEADLINE: Final = 60.0
"""Seconds after which a program counts as hanging."""


def environment(**more: str) -> dict[str, str]:
    """The environment of a program: this one's, without what configures srrrs."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SRRRS_")}
    return {**plain, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``srrrs-tunnel`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "srrrs.cli", *map(str, words)],
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def start(*words: str | Path, **more: str) -> subprocess.Popen[str]:
    """Start ``srrrs-tunnel``."""
    return subprocess.Popen(
        [sys.executable, "-m", "srrrs.cli", *map(str, words)],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read what a program logs until a text comes up; the line that holds it."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never logged")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that is not there yet."""
    return tmp_path / "data"


# --- options


@pytest.mark.parametrize(
    ("options", "table"), [(RelayOptions, RELAY_OPTIONS), (AgentOptions, AGENT_OPTIONS)]
)
def test_help_shows_each_option_with_its_default_and_unit(
    options: type[TableOptions], table: Sequence[Option], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing about an option has to be looked up elsewhere."""
    with pytest.raises(SystemExit) as raised:
        options().parseOptions(["--help"])
    assert raised.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in table:
        assert f"--{option.name}" in shown
        assert option.metavar in shown
        assert default_note(option) in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["relay", "--nonsense"], "option --nonsense not recognized"),
        (["relay", "extra"], "wrong number of arguments"),
        (["relay", "--domain"], "option --domain requires argument"),
        (["relay", "--tcp-ports", "9-8"], "--tcp-ports: '9-8' is no range of ports"),
        (["relay", "--max-head", "1"], "--max-head: 1 is too little: 1024 bytes or more"),
        (["relay", "--config", "/nonexistent"], "--config: there is no file /nonexistent"),
        (["agent"], "--edge-url must be given"),
        (["agent", "--json=yes"], "option --json must not have an argument"),
        (["token"], "no command: one of create, list, rotate, revoke"),
        (["token", "create"], "give the token's NAME"),
        (["token", "create", "a", "b"], "give one NAME only"),
        (["token", "create", "a", "--expires", "soon"], "--expires: 'soon' is no duration"),
        (["token", "create", "a", "--force"], "--force"),
        (["token", "create", "a", "--allow-host", "*"], "'*' is no host"),
        (["token", "create", "a", "--allow-port", "9-1"], "'9-1' is no range of ports"),
        (["token", "nonsense"], "unknown command: nonsense"),
        (["demo", "--port", "70000"], "--port: 70000 is no port"),
        (["demo", "--local-http", "http://x:1"], "--local-http: 'http://x:1' is a URL"),
        (["nonsense"], "unknown command: nonsense"),
        (["--reactor", "nonsense", "relay"], "--reactor: there is no reactor 'nonsense'"),
        ([], "no command"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line begins with the command, and names what is wrong."""
    with pytest.raises(SystemExit) as raised:
        MainOptions().parseOptions(words)  # type: ignore[no-untyped-call]
    assert raised.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert complaint in shown.err


def test_environment_and_file_reach_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is not the only place to configure."""
    file = tmp_path / "srrrs.toml"
    file.write_text("[relay]\nmax-visitors = 7\n")
    monkeypatch.setenv("SRRRS_DOMAIN", "env.example")
    options = RelayOptions()
    options.parseOptions(["--config", str(file), "--listen", "tcp:1", "--listen", "tcp:2"])
    assert options.config.domain == "env.example"
    assert options.config.listen == ("tcp:1", "tcp:2")
    assert options.config.limits.visitors_per_address == 7


def test_names_do_not_clash_with_variables_of_other_meaning() -> None:
    """One variable means one thing, whichever command reads it."""
    for table in (RELAY_OPTIONS, AGENT_OPTIONS):
        names = [option.name for option in table]
        assert len(names) == len(set(names))
        assert CONFIG in table
        assert LOG_LEVEL in table
    shared = {option.name: option for option in RELAY_OPTIONS}
    for option in AGENT_OPTIONS:
        if option.name in shared:
            assert option.parse is shared[option.name].parse
            assert option.repeatable == shared[option.name].repeatable


@pytest.mark.parametrize("plugin", ["srrrs-relay", "srrrs-agent"])
def test_twistd_runs_the_same_options(plugin: str) -> None:
    """twistd shows the same help, and ends as srrrs-tunnel does on a wrong option."""
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*twistd, *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    ours = run(plugin.removeprefix("srrrs-"), "--help")
    theirs = called(plugin, "--help")
    assert theirs.returncode == 0
    assert theirs.stdout.splitlines()[1:] == ours.stdout.splitlines()[1:]
    wrong = called("-n", plugin, "--log-level", "loud")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.splitlines() == [
        f"twistd {plugin}: --log-level: 'loud' is no log level: debug, info, warn or error"
    ]


def test_version_and_help() -> None:
    """The two questions that every program answers."""
    version = run("--version")
    assert version.returncode == 0
    assert re.fullmatch(r"srrrs \d+\.\d+\.\d+\n", version.stdout)
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("relay", "agent", "token", "demo"):
        assert f"  {command} " in shown.stdout


# --- tokens


def test_token_commands(data: Path, tmp_path: Path) -> None:
    """From the first token to its end; options stand before or behind the name."""
    created = run("token", "create", "--data-dir", data, "ci")
    assert created.returncode == 0
    assert SECRET.fullmatch(created.stdout.removesuffix("\n"))
    assert "'ci'" in created.stderr
    assert not SECRET.search(created.stderr)

    out = tmp_path / "agent.token"
    written = run("token", "--data-dir", data, "create", "web", "--expires", "30d", "--out", out)
    assert written.returncode == 0, written.stderr
    assert written.stdout == ""
    assert SECRET.fullmatch(out.read_text().removesuffix("\n"))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    kept = out.read_text()
    again = run("token", "create", "other", "--out", out, "--data-dir", data)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert "--force" in again.stderr
    assert out.read_text() == kept

    rotated = run("token", "rotate", "web", "--out", out, "--force", "--data-dir", data)
    assert rotated.returncode == 0, rotated.stderr
    assert out.read_text() != kept
    assert out.read_text().split("_")[1] == kept.split("_")[1]

    assert run("token", "revoke", "--data-dir", data, "ci").returncode == 0
    listed = run("token", "list", "--json", "--all", "--data-dir", data)
    rows = {row["name"]: row for row in map(json.loads, listed.stdout.splitlines())}
    assert {name: row["state"] for name, row in rows.items()} == {"ci": "revoked", "web": "rotated"}
    assert not SECRET.search(listed.stdout)
    table = run("token", "list", env=environment(SRRRS_DATA_DIR=str(data))).stdout.splitlines()
    assert table[0].split()[:3] == ["NAME", "ID", "STATE"]
    assert [line.split()[0] for line in table[1:]] == ["web"]


def test_a_tokens_scope_is_listed_as_it_was_given(data: Path) -> None:
    """On the table and as JSON; one without a scope says what it may by default."""
    hosts = ("--allow-host", "*.dev.example.com", "--allow-host", "app.example.com")
    made = run("token", "create", "ci", *hosts, "--allow-port", "20000-20100", "--data-dir", data)
    assert made.returncode == 0, made.stderr
    scope = "*.dev.example.com, app.example.com; ports 20000-20100"
    assert f"it may publish: {scope}." in made.stderr
    run("token", "create", "web", "--allow-host", "none", "--data-dir", data)
    run("token", "create", "zoo", "--data-dir", data)
    table = run("token", "list", "--data-dir", data).stdout.splitlines()
    ends = [scope, "no host; any port", "any name; any port"]
    assert [line.endswith(end) for line, end in zip(table[1:], ends, strict=True)] == [True] * 3
    rows = map(json.loads, run("token", "list", "--json", "--data-dir", data).stdout.splitlines())
    assert [(row["hosts"], row["ports"]) for row in rows] == [
        (["*.dev.example.com", "app.example.com"], ["20000-20100"]),
        (["none"], []),
        ([], []),
    ]


def test_a_token_whose_file_cannot_be_written_is_not_made(data: Path, tmp_path: Path) -> None:
    """Nobody could use it, and its name would be taken."""
    failed = run("token", "create", "x", "--data-dir", data, "--out", tmp_path / "no" / "file")
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        f"srrrs-tunnel token create: {tmp_path / 'no' / 'file'}: No such file or directory"
    ]
    with Store(data) as store:
        assert not Tokens(store).list()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("rotate", "x"), "no relay has run here"),
        (("revoke", "x"), "no relay has run here"),
        (("create", "no/name"), "is no name for a token"),
    ],
)
def test_token_commands_that_fail(data: Path, words: tuple[str, ...], complaint: str) -> None:
    """One line, status 1."""
    failed = run("token", *words, "--data-dir", data)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert complaint in failed.stderr


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root")
def test_root_leaves_nothing_that_the_relays_user_cannot_use(data: Path) -> None:
    """The folder's owner owns what a token command, run by root, makes in it."""
    data.mkdir(mode=0o700)
    os.chown(data, 4711, 4711)
    assert run("token", "create", "x", "--data-dir", data).returncode == 0
    assert run("token", "rotate", "x", "--data-dir", data).returncode == 0
    assert {path.stat().st_uid for path in data.iterdir()} == {4711}


# --- processes


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_relay_well(data: Path, number: signal.Signals) -> None:
    """It stops in good order and with status 0."""
    process = start("relay", "--listen", "tcp:0:interface=127.0.0.1", "--data-dir", data)
    with process:
        wait_for(process, "the relay is ready")
        process.send_signal(number)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.integration
def test_a_port_in_use_is_one_line_and_status_1(data: Path) -> None:
    """A service that cannot start says why, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = run(
            *("relay", "--listen", f"tcp:{port}:interface=127.0.0.1", "--log-level", "error"),
            *("--data-dir", data),
        )
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert str(port) in failed.stderr


@pytest.mark.integration
def test_an_address_that_cannot_be_used_is_a_wrong_option() -> None:
    """Endpoint strings are looked at before anything runs."""
    failed = run(
        *("agent", "--edge-url", "ws://localhost:1", "--auth-token", "env:T"),
        *("--local-tcp", "x=nonsense:1:2"),
    )
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert "nonsense:1:2" in failed.stderr


@pytest.mark.integration
def test_demo_publishes_its_page(tmp_path: Path) -> None:
    """One command is enough to see a page through a tunnel; nothing is left behind."""
    from http.client import HTTPConnection

    process = start("demo", "--port", "0", TMPDIR=str(tmp_path))
    with process:
        assert process.stdout is not None
        url = next(line for line in process.stdout if "http://" in line).strip()
        match = re.fullmatch(r"http://demo\.localhost:(\d+)/", url)
        assert match is not None
        connection = HTTPConnection("127.0.0.1", int(match[1]), timeout=DEADLINE)
        connection.request("GET", "/<b>", headers={"Host": f"demo.localhost:{match[1]}"})
        answer = connection.getresponse()
        page = answer.read().decode()
        assert answer.status == 200
        assert "It came through the tunnel" in page
        assert connection.sock is None or f"port {connection.sock.getsockname()[1]}" in page
        assert "<b>" not in page
        connection.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert errors == ""
    assert list(tmp_path.iterdir()) == []


# --- the service manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(DEADLINE)
        yield listening


@pytest.mark.integration
@pytest.mark.parametrize("face", ["srrrs-tunnel", "twistd"])
def test_ready_and_stopping_are_told(face: str, manager: socket.socket, tmp_path: Path) -> None:
    """READY=1 comes though no relay answers, STOPPING=1 when the process is told to end."""
    options = ["--edge-url", "ws://127.0.0.1:9/tunnel", "--auth-token", "none", "--local-ssh", "22"]
    words = {
        "srrrs-tunnel": [sys.executable, "-m", "srrrs.cli", "agent", *options],
        "twistd": [
            *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
            *("-n", "--pidfile", "", "srrrs-agent", *options),
        ],
    }
    env = environment(NOTIFY_SOCKET=manager.getsockname())
    with subprocess.Popen(
        words[face], env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert manager.recv(100) == b"READY=1"
        process.terminate()
        assert manager.recv(100) == b"STOPPING=1"


def test_the_socket_is_not_inherited(manager: socket.socket) -> None:
    """Children must not speak for the process."""
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "OTHER": "1"}
    notifier = Notifier(environ)
    assert environ == {"OTHER": "1"}
    assert notifier.send("STATUS=well")
    assert manager.recv(100) == b"STATUS=well"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_abstract_sockets() -> None:
    """A leading @ stands for a zero byte."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the system chooses an abstract name
        name = listening.getsockname()
        assert Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).send("READY=1")
        assert listening.recv(100) == b"READY=1"


def test_no_manager_is_no_fault(tmp_path: Path) -> None:
    """Nothing is sent, and nothing raised, where nobody listens."""
    for environ in ({}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": str(tmp_path / "none")}):
        assert not Notifier(environ).send("READY=1")


def test_ready_is_not_told_after_the_end(manager: socket.socket) -> None:
    """A service that is stopped before the reactor runs was never ready."""
    waiting: list[Callable[[], None]] = []

    class Reactor:
        def callWhenRunning(self, function: Callable[[], None]) -> None:
            waiting.append(function)

    service = NotifyService(Reactor(), {"NOTIFY_SOCKET": manager.getsockname()})
    service.startService()
    service.stopService()
    assert manager.recv(100) == b"STOPPING=1"
    for function in waiting:
        function()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


_STUCK: Final = """
import sys
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from srrrs.cli.run import run

class Stuck(Service):
    def stopService(self):
        print("stopping", flush=True)
        return Deferred()

def make(reactor):
    reactor.callWhenRunning(print, "running", flush=True)
    return Stuck()

sys.exit(run(make, "stuck", "info"))
"""


@pytest.mark.integration
def test_a_second_signal_ends_the_process_at_once() -> None:
    """A service that does not come to an end can still be ended."""
    with subprocess.Popen(
        [sys.executable, "-c", _STUCK], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for state in ("running", "stopping"):
            assert process.stdout.readline() == f"{state}\n"
            assert process.poll() is None
            process.terminate()
        assert process.wait(DEADLINE) == -signal.SIGTERM
