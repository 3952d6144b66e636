"""A relay or an agent that is told to stop lets what runs finish first."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import threading
from urllib.parse import urlsplit

import pytest

from tests.integration.harness import (
    DEADLINE,
    Lab,
    Program,
    free_port,
    get,
    http_answer,
    status_of,
    tcp_server,
    twistd_command,
    until,
)

pytestmark = pytest.mark.integration

SIZE = 4 * 1024 * 1024
"""Bytes of a download, half of them sent before the backend is told to go on."""


class Download:
    """A visitor that is in the middle of a download until the backend is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.body = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._visitor: socket.socket | None = None

    def serve(self, connection: socket.socket) -> None:
        """The backend's side."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536) or b"\r\n\r\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + b"a" * (SIZE // 2))
        if self.go_on.wait(DEADLINE):
            connection.sendall(b"b" * (SIZE // 2))

    def start(self, endpoint: str) -> None:
        """Begin, and return in the middle of it."""
        parts = urlsplit(endpoint)
        assert parts.port is not None
        self._visitor = socket.create_connection(("127.0.0.1", parts.port), timeout=DEADLINE)
        self._visitor.sendall(
            f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
        )
        self._thread.start()
        until(lambda: len(self.body) > SIZE // 2, "the first half")

    def _read(self) -> None:
        assert self._visitor is not None
        with self._visitor as visitor, contextlib.suppress(OSError):
            while data := visitor.recv(65536):
                self.body += data

    def finish(self) -> bytes:
        """Let the backend go on; what the visitor got in the end."""
        self.go_on.set()
        return self.end()

    def end(self) -> bytes:
        """What the visitor has got once its connection has ended."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return bytes(self.body.partition(b"\r\n\r\n")[2])


WHOLE = b"a" * (SIZE // 2) + b"b" * (SIZE // 2)


def test_a_relay_that_stops_sends_the_agent_to_another_and_lets_a_download_finish(
    lab: Lab,
) -> None:
    """New visitors are served through the second relay while the first still carries the
    download; with its last stream the first relay ends, long before the limit."""
    download = Download()
    big = lab.keep(tcp_server(download.serve))
    small = lab.keep(tcp_server(http_answer(b"small")))
    # Two relays that know the same token.
    first = lab.relay("--drain", "300s")
    first.stop()
    copy = lab.path / "copy"
    shutil.copytree(first.data_dir, copy)
    relays = [
        lab.relay("--drain", "300s", data_dir=first.data_dir),
        lab.relay("--drain", "300s", data_dir=copy),
    ]
    agent = lab.agent(
        relays[0],
        *("--edge-url", relays[1].url),
        *("--local-http", f"big={big}", "--local-http", f"small={small}"),
    )
    chosen = agent.event("connected")["relay"]
    # Whichever was nearer by some microseconds.
    old, new = relays if chosen == relays[0].url else relays[::-1]
    download.start(agent.event("ready", service="big")["endpoint"])
    before = agent.event("ready", service="small")["endpoint"]
    assert get(before) == (200, b"small")

    mark = agent.mark
    old.send(signal.SIGTERM)
    assert agent.event("draining")["next"] == new.url
    agent.event("connected", since=mark, relay=new.url)
    after = agent.event("ready", since=mark, service="small")["endpoint"]
    assert get(after) == (200, b"small")
    assert status_of(before) == 503
    assert old.running
    assert len(download.body) < SIZE

    assert download.finish() == WHOLE
    assert old.wait() == 0
    old.line(r"the relay is draining: \d running streams have 300 s")
    assert get(after) == (200, b"small")
    assert not agent.events("disconnected")


def test_a_relay_ends_what_does_not_finish_in_time(lab: Lab) -> None:
    """An agent that has nowhere else to go keeps its tunnel to the end, and dials again then."""
    download = Download()
    relay = lab.relay("--drain", "200ms")
    agent = lab.agent(relay, "--local-http", str(lab.keep(tcp_server(download.serve))))
    download.start(agent.event("ready")["endpoint"])
    assert relay.stop() == 0
    assert len(download.end()) < SIZE
    relay.line(r"1 streams are reset")
    assert agent.event("draining")["next"] is None
    agent.event("disconnected")
    agent.event("retrying")


@pytest.mark.parametrize("face", ["command", "twistd"])
def test_an_agent_that_stops_lets_a_download_finish(lab: Lab, face: str) -> None:
    """Its services are withdrawn at once: new visitors are turned away. With the last stream it
    ends."""
    download = Download()
    relay = lab.relay()
    agent = _agent(lab, relay, face, str(lab.keep(tcp_server(download.serve))))
    endpoint = agent.event("ready")["endpoint"]
    download.start(endpoint)
    agent.send(signal.SIGTERM)
    agent.event("draining", streams=1)
    until(lambda: status_of(endpoint) == 503, "the withdrawal")
    assert agent.running
    assert download.finish() == WHOLE
    agent.wait()
    agent.event("stopped")
    relay.line(r"draining: the agent stops; \d streams")


@pytest.mark.parametrize("face", ["command", "twistd"])
def test_a_second_signal_ends_an_agent_at_once(lab: Lab, face: str) -> None:
    """Whatever still runs."""
    download = Download()
    relay = lab.relay()
    agent = _agent(lab, relay, face, str(lab.keep(tcp_server(download.serve))))
    download.start(agent.event("ready")["endpoint"])
    agent.send(signal.SIGTERM)
    agent.event("draining", streams=1)
    agent.send(signal.SIGTERM)
    assert agent.wait() == -signal.SIGTERM
    assert not agent.events("stopped")
    download.go_on.set()


def test_a_second_signal_ends_a_relay_at_once(lab: Lab) -> None:
    """Whatever still runs."""
    download = Download()
    relay = lab.relay()
    agent = lab.agent(relay, "--local-http", str(lab.keep(tcp_server(download.serve))))
    download.start(agent.event("ready")["endpoint"])
    relay.send(signal.SIGTERM)
    relay.line(r"the relay is draining")
    relay.send(signal.SIGINT)
    assert relay.wait() == -signal.SIGINT
    download.go_on.set()


def test_nothing_is_waited_for_where_nothing_runs(lab: Lab) -> None:
    """The limits are far beyond the deadline of what waits for them here."""
    relay = lab.relay("--drain", "1h")
    agent = lab.agent(relay, "--drain", "1h", "--local-http", str(free_port()))
    agent.event("ready")
    assert agent.stop() == 0
    other = lab.agent(relay, "--drain", "1h", "--local-http", str(free_port()))
    other.event("ready")
    assert relay.stop() == 0
    assert lab.relay("--drain", "1h").stop() == 0


def _agent(lab: Lab, relay: Program, face: str, port: str) -> Program:
    how = {"command": twistd_command, "face": "srrrs-agent"} if face == "twistd" else {}
    return lab.agent(relay, "--drain", "300s", "--local-http", port, **how)  # type: ignore[arg-type]
