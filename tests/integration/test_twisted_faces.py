"""Twisted's own ways in: ``twistd`` runs both ends, and programs publish themselves by a
``srrrs:`` string, with no agent process."""

from __future__ import annotations

import getpass
import signal
import sys
from pathlib import Path

import pytest

from tests.integration.harness import (
    ROOT,
    Lab,
    Relay,
    get,
    http_answer,
    need,
    run,
    status_of,
    tcp_server,
    twistd_command,
    until,
)
from tests.integration.test_openssh import client_words, make_key

pytestmark = pytest.mark.integration

ENDED = -signal.SIGTERM
"""twistd ends by the signal that it was sent, once everything has ended in good order."""


def endpoint_string(relay: Relay, kind: str, name: str) -> str:
    edge = relay.url.replace(":", r"\:")
    return rf"srrrs:edge={edge}:token=file\:{relay.first_token}:kind={kind}:name={name}"


def test_twistd_runs_relay_and_agent_with_the_same_options(lab: Lab) -> None:
    """Both plugins, with the options of the command: a page comes through, and SIGTERM ends each
    in good order."""
    page = lab.keep(tcp_server(http_answer(b"by twistd")))
    relay = lab.relay(command=twistd_command, face="srrrs-relay")
    agent = lab.agent(
        relay, "--local-http", f"site={page}", command=twistd_command, face="srrrs-agent"
    )
    endpoint = agent.event("ready", service="site")["endpoint"]
    assert endpoint == f"http://site.localhost:{relay.port}"
    assert get(endpoint) == (200, b"by twistd")
    assert agent.stop() == ENDED
    agent.event("stopped")
    assert status_of(endpoint) == 503
    assert relay.stop() == ENDED


def test_twistd_web_publishes_a_folder_by_an_endpoint_string(lab: Lab) -> None:
    """``twistd web --listen srrrs:…`` serves a site at its public name, through a restart of the
    relay, and takes it back when it ends."""
    folder = lab.path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("a folder")
    (folder / "large.bin").write_bytes(bytes(range(256)) * 20_000)
    relay = lab.relay()
    web = lab.spawn(
        "web",
        twistd_command(
            "web", "--path", str(folder), "--listen", endpoint_string(relay, "http", "blog")
        ),
    )
    url = f"http://blog.localhost:{relay.port}"
    until(lambda: status_of(url) == 200, "the site")
    assert get(url) == (200, b"a folder")
    assert get(url, "/large.bin") == (200, (folder / "large.bin").read_bytes())

    relay.kill()
    lab.relay(data_dir=relay.data_dir, listen=f"tcp:{relay.port}:interface=127.0.0.1")
    until(lambda: status_of(url) == 200, "the site at the relay's second life")
    assert web.stop() == ENDED
    assert status_of(url) == 503


@pytest.mark.programs
def test_a_conch_server_publishes_itself_and_openssh_reaches_it(lab: Lab) -> None:
    """An ssh server on Conch listens on a ``srrrs:`` string, unpatched; OpenSSH's client runs a
    command there, and the server sees the visitor as its peer."""
    need("ssh", "ssh-keygen")
    pytest.importorskip("bcrypt", reason="Conch's keys need twisted[conch]")
    host_key, key = make_key(lab.path / "host_key"), make_key(lab.path / "key")
    relay = lab.relay()
    words = [
        *(sys.executable, "-m", "tests.integration.conch_server"),
        *(endpoint_string(relay, "ssh", "shell"), str(host_key)),
        *(str(key.with_suffix(".pub")), getpass.getuser()),
    ]
    server = lab.spawn("conch", words, cwd=Path(__file__).parents[2])
    port = int(server.line(r"published at tcp://localhost:(\d+)")[1])
    client = client_words(lab.path, key, host_key, port)
    done = run(*client, "shout through the tunnel")
    assert (done.returncode, done.stdout) == (0, b"THROUGH THE TUNNEL\n"), done.stderr
    assert b"127.0.0.1" in run(*client, "who").stdout


def test_a_string_that_cannot_heal_ends_with_one_line(lab: Lab) -> None:
    """``listen`` fails where waiting cannot help: a wrong argument is named, with no traceback of
    ours and no token."""
    relay = lab.relay()
    text = endpoint_string(relay, "gopher", "blog")
    web = lab.spawn("web", twistd_command("web", "--path", str(ROOT), "--listen", text))
    assert web.wait() != 0
    assert web.count(r"kind=gopher: must be one of")
    lab.faults_expected = True
