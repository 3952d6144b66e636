"""The files in ``conf/`` are what systemd and systemd-sysusers accept, and what was promised."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from srrrs.config import relay_config
from srrrs.tap.options import AgentOptions

CONF: Final = Path(__file__).parent.parent / "conf"
DEADLINE: Final = 60.0
#: Of conf/srrrs-agent.service, which users have copied and automated: it never changes.
AGENT_UNIT: Final = "c11882374b30caaa8d4bbb258979f6c6534305e348c99a48196a26f68432b3bb"
#: The label that `systemd-analyze security` gives to an exposure below 5.0.
GOOD: Final = re.compile(r"Overall exposure level for \S+: (\d\.\d) OK")


def systemd_analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, or skip the test where it is not installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        [program, *map(str, words)],
        env={**os.environ, "SYSTEMD_PAGER": "", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The root of a file system in which the units are installed as their heads say."""
    units = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(CONF, units)
    system = Path("/usr/lib/systemd/system")
    if not system.is_dir():
        system = Path("/lib/systemd/system")
    targets = tmp_path / "usr" / "lib" / "systemd" / "system"
    targets.mkdir(parents=True)
    for target in system.glob("*.target"):
        shutil.copy(target, targets)
    for path in ("usr/local/bin/srrrs-tunnel", "bin/kill"):
        program = tmp_path / path
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return tmp_path


def directives(file: str) -> dict[str, list[str]]:
    """The assignments in a unit file, lines that go on joined."""
    found: dict[str, list[str]] = {}
    for line in (CONF / file).read_text().replace("\\\n", " ").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_agents_unit_is_unchanged() -> None:
    """Hardening goes into the drop-in."""
    unit = (CONF / "srrrs-agent.service").read_bytes()
    assert hashlib.sha256(unit).hexdigest() == AGENT_UNIT


def test_the_agents_unit_runs_with_our_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its ExecStart says is understood."""
    program, command, *words = shlex.split(directives("srrrs-agent.service")["ExecStart"][0])
    assert (program, command) == ("/usr/local/bin/srrrs-tunnel", "agent")
    for name in [each for each in os.environ if each.startswith("SRRRS_")]:
        monkeypatch.delenv(name)
    options = AgentOptions()
    options.parseOptions(words)
    assert options.config.edge_urls == ("wss://relay.edge.srrrs.com/tunnel",)
    assert options.config.heartbeat_interval == 15.0
    assert [(each.name, each.kind) for each in options.config.services] == [
        ("http", "http"),
        ("ssh", "ssh"),
    ]


def test_the_relays_unit_has_its_data_where_the_relay_looks() -> None:
    """systemd makes the folder and names it in the environment."""
    name = directives("srrrs-relay.service")["StateDirectory"][0]
    config = relay_config({}, {"STATE_DIRECTORY": f"/var/lib/{name}"})
    assert str(config.data_dir) == "/var/lib/srrrs"


def test_the_socket_is_the_one_that_the_relay_takes() -> None:
    """Its name stands in both places."""
    name = directives("srrrs-relay.socket")["FileDescriptorName"][0]
    command = directives("srrrs-relay.service.d/socket.conf")["ExecStart"][-1]
    assert f"--listen systemd:domain=INET6:name={name}" in command


def test_every_user_of_a_unit_is_made() -> None:
    """sysusers.d makes them all."""
    made = {
        line.split()[1]
        for line in (CONF / "sysusers.d" / "srrrs.conf").read_text().splitlines()
        if line.startswith("u ")
    }
    users = {directives(unit)["User"][0] for unit in ("srrrs-agent.service", "srrrs-relay.service")}
    assert made == users


@pytest.mark.programs
def test_sysusers_accepts_the_users(tmp_path: Path) -> None:
    """A dry run in an empty root."""
    program = shutil.which("systemd-sysusers")
    if program is None:
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        [program, "--dry-run", f"--root={tmp_path}", "-"],
        input=(CONF / "sysusers.d" / "srrrs.conf").read_text(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-sysusers is too old for --dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Creating user") + done.stdout.count("Creating user") == 2


@pytest.mark.programs
@pytest.mark.parametrize("socket", [False, True], ids=["own listener", "socket unit"])
def test_systemd_accepts_the_units(installed: Path, socket: bool) -> None:
    """Not even a warning; with and without the socket."""
    units = installed / "etc" / "systemd" / "system"
    names = ["srrrs-agent.service", "srrrs-relay.service"]
    if socket:
        names.append("srrrs-relay.socket")
    else:
        shutil.rmtree(units / "srrrs-relay.service.d")
        (units / "srrrs-relay.socket").unlink()
    done = systemd_analyze("verify", "--man=no", f"--root={installed}", *names)
    if "unrecognized option '--root" in done.stderr:
        pytest.skip("systemd-analyze is too old for --root")
    assert done.returncode == 0, done.stderr
    assert "srrrs" not in done.stderr


@pytest.mark.programs
@pytest.mark.parametrize("unit", ["srrrs-agent.service", "srrrs-relay.service"])
@pytest.mark.parametrize("socket", [False, True], ids=["own listener", "socket unit"])
def test_the_exposure_is_ok(installed: Path, unit: str, socket: bool) -> None:
    """`systemd-analyze security` rates agent-plus-drop-in and relay "OK"."""
    if not socket:
        shutil.rmtree(installed / "etc/systemd/system/srrrs-relay.service.d")
    done = systemd_analyze("security", "--offline=true", "--no-pager", f"--root={installed}", unit)
    if "unrecognized option '--offline" in done.stderr:
        pytest.skip("systemd-analyze is too old for --offline")
    match = GOOD.search(done.stdout)
    assert match is not None, done.stdout[-300:] + done.stderr
    assert float(match[1]) < 2.5
