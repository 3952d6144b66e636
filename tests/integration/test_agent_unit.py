"""The agent's systemd unit as it ships: its command is run, not only read."""

from __future__ import annotations

import contextlib
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.harness import ROOT, Lab, get, tunnel_command

pytestmark = pytest.mark.integration

UNIT = ROOT / "conf" / "srrrs-agent.service"
URL = "wss://relay.edge.srrrs.com/tunnel"
TOKEN = "file:/etc/srrrs/agent.token"
HTTP_PORT = 8080


def exec_start(unit: Path) -> list[str]:
    """The words of the unit's ExecStart, as systemd splits them."""
    joined = unit.read_text().replace("\\\n", " ")
    command = next(line for line in joined.splitlines() if line.startswith("ExecStart="))
    return shlex.split(command.removeprefix("ExecStart="))


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"device")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_the_command_of_the_unit_works_as_it_is(lab: Lab) -> None:
    """With nothing replaced but the relay's URL, the token's path and where the program is
    installed, both services get their addresses and the web server answers at its own."""
    if not UNIT.exists():
        pytest.skip("conf/ is not beside the package")
    words = exec_start(UNIT)
    assert words[0] == "/usr/local/bin/srrrs-tunnel"
    assert words.count(URL) == 1
    assert words.count(TOKEN) == 1
    relay = lab.relay()
    replaced = {URL: relay.url, TOKEN: f"file:{relay.first_token}"}
    agent = lab.spawn("unit", tunnel_command(*(replaced.get(word, word) for word in words[1:])))
    site = agent.line(r"^http +(http://\S+) -> localhost:8080")[1]
    shell = agent.line(r"^ssh +(tcp://localhost:\d+) -> localhost:22\b.*ssh -p \d+ USER@localhost")
    assert shell[1]

    # Another program may have the port: then the way to it is shown by whatever answers.
    with contextlib.ExitStack() as stack:
        server = None
        with contextlib.suppress(OSError):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", HTTP_PORT), _Page))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        status, page = get(site)
        if server is not None:
            assert (status, page) == (200, b"device")
        else:
            assert status not in (404, 503)
    assert agent.stop() == 0
