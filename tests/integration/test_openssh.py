"""OpenSSH through the tunnel: its own daemon behind an agent, its own client as the visitor."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.harness import (
    Lab,
    free_port,
    need,
    random_file,
    run,
    sha256,
    until,
    which,
)

pytestmark = [pytest.mark.integration, pytest.mark.programs]

FILE_SIZE = 64 * 1024 * 1024


@dataclass
class Ssh:
    """A way to a daemon through the tunnel.

    :ivar client: the words of the client, up to the command.
    :ivar printed: the command that the agent printed for people.
    """

    client: list[str]
    printed: str
    port: int


def make_key(path: Path) -> Path:
    done = run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
    assert done.returncode == 0, done.stderr
    return path


def client_words(folder: Path, key: Path, host_key: Path, port: int) -> list[str]:
    """A client that knows this host key, and nothing of the user's own settings."""
    known = folder / "known_hosts"
    public = host_key.with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
    options = {
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": os.devnull,
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-F", os.devnull, "-i", str(key), "-p", str(port), "-l", getpass.getuser()]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return [*words, "127.0.0.1"]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def start_daemon(lab: Lab, host_key: Path, key: Path) -> int:
    """An OpenSSH daemon of our own, as the user who runs the tests; its port."""
    if os.geteuid() == 0:
        # Where the daemon, as root, separates its privileges: Debian makes it at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    allowed = lab.path / "authorized_keys"
    allowed.write_bytes(key.with_suffix(".pub").read_bytes())
    port = free_port()
    config = lab.path / "sshd_config"
    config.write_text(
        "\n".join(
            [
                f"ListenAddress 127.0.0.1:{port}",
                f"HostKey {host_key}",
                f"AuthorizedKeysFile {allowed}",
                "PidFile none",
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "PermitRootLogin prohibit-password",
                "PrintMotd no",
                "",
            ]
        )
    )
    lab.spawn("sshd", [which("sshd"), "-D", "-e", "-f", str(config)])
    until(lambda: answers(port), "the daemon's banner")
    return port


@pytest.fixture
def ssh(lab: Lab) -> Ssh:
    """A relay, an agent with ``--local-ssh`` and a daemon behind it."""
    need("sshd", "ssh", "ssh-keygen")
    host_key, key = make_key(lab.path / "host_key"), make_key(lab.path / "key")
    daemon = start_daemon(lab, host_key, key)
    relay = lab.relay()
    agent = lab.agent(relay, "--local-ssh", f"127.0.0.1:{daemon}")
    ready = agent.event("ready", service="ssh", kind="ssh")
    port = int(ready["endpoint"].removeprefix("tcp://localhost:"))
    return Ssh(client_words(lab.path, key, host_key, port), ready["command"], port)


def test_a_command_runs_and_its_status_comes_back(ssh: Ssh) -> None:
    """``ssh`` runs a command at the device: output, errors and exit status are those of there;
    and the line that the agent prints for people names that way."""
    done = run(*ssh.client, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert ssh.printed == f"ssh -p {ssh.port} USER@localhost"


def test_64_mib_arrive_whole_both_ways(lab: Lab, ssh: Ssh) -> None:
    """A 64 MiB file read through ``ssh`` and one written through it have the same hash at both
    ends."""
    there, here = lab.path / "there.bin", lab.path / "here.bin"
    expected = random_file(there, FILE_SIZE)
    with here.open("wb") as sink:
        subprocess.run(
            [*ssh.client, f"cat {shlex.quote(str(there))}"], stdout=sink, check=True, timeout=120
        )
    assert sha256(here) == expected

    up = lab.path / "up.bin"
    expected = random_file(here, FILE_SIZE)
    with here.open("rb") as source:
        subprocess.run(
            [*ssh.client, f"cat > {shlex.quote(str(up))}"], stdin=source, check=True, timeout=120
        )
    assert sha256(up) == expected


def test_the_end_of_input_arrives_and_the_answer_still_comes(ssh: Ssh) -> None:
    """A command that reads to the end of its input gets that end, and what it says after it comes
    back."""
    done = run(*ssh.client, "cat; echo the end", data=b"some input\n")
    assert (done.returncode, done.stdout) == (0, b"some input\nthe end\n")
