"""What visitors notice when the network between an agent and its relay breaks: a pause."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.integration.cutting import BOTH, DOWN, UP, Cut, Network
from tests.integration.harness import (
    DEADLINE,
    Lab,
    Program,
    Relay,
    echo,
    environment,
    free_port,
    get,
    http_answer,
    need,
    random_file,
    sha256,
    tcp_server,
    tunnel_command,
    until,
    which,
)
from tests.integration.test_openssh import client_words, make_key, start_daemon

pytestmark = pytest.mark.integration

FULL: Final = bool(os.environ.get("SRRRS_TEST_FULL"))
SIZE: Final = 500_000_000 if FULL else 64 << 20
"""Bytes that go each way while the network breaks."""
CUTS: Final = 100 if FULL else 8
PATIENCE: Final = 900.0 if FULL else 120.0
"""Seconds that a transfer may take, all its pauses among them."""
GROWTH: Final = 24 << 20
"""Bytes that a process may be greater at the end of many cuts than after the first few."""

ESTABLISHED, SYN_SENT = "01", "02"
BEATS: Final = ("--heartbeat-interval", "1s")


class Visitor:
    """A connection to a TCP service that echoes."""

    def __init__(self, lab: Lab, endpoint: str) -> None:
        port = int(endpoint.rpartition(":")[2])
        self.socket: socket.socket = lab.keep(
            socket.create_connection(("127.0.0.1", port), DEADLINE)
        )

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            assert chunk, f"it ended after {data!r}"
            data += chunk
        return data

    def says(self, data: bytes) -> bool:
        """Whether it comes back as it went."""
        self.send(data)
        return self.receive(len(data)) == data

    def was_reset(self) -> bool:
        """Whether its connection ends by a reset."""
        try:
            return self.socket.recv(1) == b"never"
        except ConnectionResetError:
            return True


def connected(program: Program, port: int, state: str = ESTABLISHED) -> int:
    """How many connections a program has from or to a port, in that state."""
    return sum(
        f":{port:04X} " in name and name.endswith(f"state {state}")
        for name in program.connections()
    )


def number(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


class Setting:
    """A relay, a network, and an agent behind it with a web server and an echo service."""

    def __init__(self, lab: Lab, *agent_options: str, relay_options: tuple[str, ...] = ()) -> None:
        self.lab = lab
        self.web = lab.keep(tcp_server(http_answer(b"first")))
        self.echoing = lab.keep(tcp_server(echo))
        self.relay: Relay = lab.relay(*relay_options)
        self.network = Network(lab, self.relay.port)
        self.services = ("--local-http", f"web={self.web}", "--local-tcp", f"echo={self.echoing}")
        self.agent = lab.agent(
            self.network.url,
            *self.services,
            *BEATS,
            *agent_options,
            token=self.relay.first_token,
        )
        self.endpoint = self.agent.event("ready", service="web")["endpoint"]
        self.echo = self.agent.event("ready", service="echo")["endpoint"]

    def visitor(self) -> Visitor:
        return Visitor(self.lab, self.echo)

    def outage(self, door: str = "refused") -> None:
        """The connection breaks, and none comes through until the door is open again."""
        self.network.door(door)
        since = self.agent.mark
        self.network.cut("rst")
        self.agent.event("parked", since)
        self.relay.line(r"\): parked: ")


def talk(shell: subprocess.Popen[bytes], word: str) -> str:
    """Say something to the shell; its process's number, which it answers with."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{word}\n".encode())
    shell.stdin.flush()
    heard, end = b"", time.monotonic() + DEADLINE
    while not (found := re.search(rf"(\d+) heard {word}\r?\n".encode(), heard)):
        ready, _, _ = select.select([shell.stdout], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"the shell is silent; it said {heard!r}"
        chunk = os.read(shell.stdout.fileno(), 4096)
        assert chunk, f"the shell ended; it said {heard!r}"
        heard += chunk
    return found[1].decode()


def files_of(folder: Path) -> Callable[[socket.socket], None]:
    """A web server: ``GET`` sends a file of the folder, ``PUT`` writes one."""

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rwb") as stream:
            method, target, _ = stream.readline().decode().split()
            length = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            path = folder / target.lstrip("/")
            if method == "PUT":
                with path.open("wb") as sink:
                    while length:
                        chunk = stream.read1(min(length, 1 << 20))
                        if not chunk:
                            return
                        length -= len(chunk)
                        sink.write(chunk)
                stream.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n")
                stream.write(b"Connection: close\r\n\r\n")
                return
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\n"
            stream.write(f"{head}Connection: close\r\n\r\n".encode())
            with path.open("rb") as source:
                while chunk := source.read(1 << 18):
                    stream.write(chunk)

    return handle


def memory(program: Program) -> int:
    """Its resident bytes."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def many_cuts(number: int) -> list[Cut]:
    """Cuts of every kind at odd places, most within a message."""
    hows = ["rst", "silence", "rst", "half", "rst", "fin", "rst", "silence"]
    return [
        Cut(hows[i % len(hows)], BOTH, 3_000_007 + i * 977_777 % 6_000_000) for i in range(number)
    ]


@pytest.mark.programs
@pytest.mark.slow
def test_ssh_and_curl_live_through_cuts(lab: Lab) -> None:
    """A shell over ssh and a download and an upload with curl beside it, while the connection is
    reset, closed and falls silent, in the middle of messages: both files arrive whole, and the
    shell goes on as the same process. The agent says each time that it was parked and resumed."""
    need("sshd", "ssh", "ssh-keygen", "curl")
    host_key, key = make_key(lab.path / "host_key"), make_key(lab.path / "key")
    daemon = start_daemon(lab, host_key, key)
    there, here = lab.path / "there", lab.path / "here"
    there.mkdir()
    here.mkdir()
    hashes = random_file(there / "down", SIZE), random_file(here / "up", SIZE)
    web = lab.keep(tcp_server(files_of(there)))

    relay = lab.relay()
    network = Network(lab, relay.port)
    agent = lab.agent(
        network.url,
        *("--local-http", f"web={web}", "--local-ssh", f"127.0.0.1:{daemon}", *BEATS),
        token=relay.first_token,
    )
    site = agent.event("ready", service="web")["endpoint"]
    port = number(agent.event("ready", service="ssh")["endpoint"])
    command = 'stty -echo; while read word; do echo "$$ heard $word"; done'
    shell = lab.keep(
        subprocess.Popen(
            [*client_words(lab.path, key, host_key, port), "-tt", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    )
    host = f"{site.removeprefix('http://')}:127.0.0.1"
    curl = [
        *(which("curl"), "--silent", "--show-error", "--fail", "--resolve", host),
        *("--max-time", str(PATIENCE), "--header", "Expect:"),
    ]
    try:
        process = talk(shell, "hello")
        first, *others = many_cuts(CUTS)
        network.coming(*others)
        network.cut(first.how, first.after, first.way)
        down = lab.spawn("curl", [*curl, "--output", str(here / "down"), f"{site}/down"])
        up = lab.spawn("curl", [*curl, "--upload-file", str(here / "up"), f"{site}/up"])
        before: list[int] = []
        for cut in range(1, CUTS + 1):
            network.cuts(cut)
            assert talk(shell, f"cut-{cut}") == process
            if cut == min(10, CUTS):
                before = [memory(each) for each in (relay, agent)]
        for each in (down, up):
            assert each.process.wait(PATIENCE) == 0, each.text()
        assert (sha256(here / "down"), sha256(there / "up")) == hashes
        assert talk(shell, "goodbye") == process
        parked, resumed = (len(agent.events(each)) for each in ("parked", "resumed"))
        assert parked == resumed == CUTS
        assert len(agent.events("connected")) == 1
        assert relay.count(r"\): resumed: ") == CUTS
        assert sum(each["replayed"] for each in agent.events("resumed")) > 0
        if FULL:
            for program, size in zip((relay, agent), before, strict=True):
                assert memory(program) <= size + GROWTH, program.name
    finally:
        shell.kill()


@pytest.mark.parametrize("door", ["refused", "dropped"])
def test_visitors_who_come_in_an_outage_are_held_and_served(lab: Lab, door: str) -> None:
    """While connections to the relay are refused, or their packets lost, visitors wait; once the
    network is back they are served, and who was there before goes on."""
    setting = Setting(lab)
    old = setting.visitor()
    assert old.says(b"before")
    setting.outage(door)
    old.send(b"meanwhile")
    new = setting.visitor()
    new.send(b"new")
    with ThreadPoolExecutor() as pool:
        page = pool.submit(get, setting.endpoint)
        # The visitor of the page is there, beside two of the other port.
        until(lambda: connected(setting.relay, setting.relay.port) == 1, "the visitor's connection")
        until(lambda: connected(setting.relay, number(setting.echo)) == 2, "the other one's")
        if door == "refused":
            setting.agent.event("retrying")
        else:
            port = number(setting.network.url.removesuffix("/tunnel"))
            until(lambda: connected(setting.agent, port, SYN_SENT), "a dial that is not answered")
        assert not page.done()
        setting.network.door("open")
        setting.agent.event("resumed")
        assert page.result(DEADLINE) == (200, b"first")
    assert new.receive(3) == b"new"
    assert old.receive(9) == b"meanwhile"
    assert len(setting.agent.events("connected")) == 1


def test_who_waits_in_vain_is_turned_away(lab: Lab) -> None:
    """After ``--hold`` a visitor gets a page with 503, or a reset; streams that were open before
    still wait, and go on."""
    setting = Setting(lab, relay_options=("--hold", "1s"))
    old = setting.visitor()
    assert old.says(b"before")
    setting.outage()
    new = setting.visitor()
    new.send(b"in vain")
    assert get(setting.endpoint)[0] == 503
    assert new.was_reset()
    setting.network.door("open")
    setting.agent.event("resumed")
    assert old.says(b"after")


def test_where_too_many_wait_the_next_is_turned_away_at_once(lab: Lab) -> None:
    """With ``--max-held 1``, the second, while the first still waits, and is served."""
    setting = Setting(lab, relay_options=("--max-held", "1"))
    setting.outage()
    first = setting.visitor()
    first.send(b"first")
    until(lambda: connected(setting.relay, number(setting.echo)) == 1, "its connection")
    # So fast that connecting may be what fails.
    with pytest.raises(ConnectionResetError):
        setting.visitor().receive(1)
    setting.network.door("open")
    assert first.receive(5) == b"first"


def test_after_the_grace_time_streams_are_reset_and_the_address_stays(lab: Lab) -> None:
    """An outage beyond ``--session-grace`` resets the streams; the agent says parked, expired and
    connected, with the same words for people as in ``--json``, and so does the relay; then the
    services are where they were."""
    setting = Setting(lab, "--session-grace", "2s")
    relay, network = setting.relay, setting.network
    words = tunnel_command(
        "agent",
        *("--edge-url", network.url, "--auth-token", f"file:{relay.first_token}"),
        *("--local-http", f"plain={setting.web}", "--instance", "plain"),
        *("--session-grace", "2s", *BEATS),
    )
    plain = lab.spawn("agent", words)
    plain.line(r"^plain +http://")
    visitor = setting.visitor()
    assert visitor.says(b"before")
    mark, plain_mark = setting.agent.mark, plain.mark
    setting.outage()
    setting.agent.event("expired", mark)
    assert visitor.was_reset()
    plain.line(r"^expired: ", plain_mark)
    until(lambda: relay.count(r"\): expired: ") == 2, "the relay's word")
    network.door("open")
    setting.agent.event("connected", mark)
    assert setting.agent.event("ready", mark, service="web")["endpoint"] == setting.endpoint
    assert setting.agent.event("ready", mark, service="echo")["endpoint"] == setting.echo
    plain.line(r"^connected to ", plain_mark)
    plain.line(r"^plain +http://", plain_mark)
    assert get(setting.endpoint) == (200, b"first")
    assert setting.visitor().says(b"after")

    told = [line.split()[0].rstrip(":") for line in plain.lines[plain_mark:]]
    told = [word for word in told if word in ("parked", "expired", "connected", "resumed")]
    assert told == ["parked", "expired", "connected"]
    names = [
        name
        for line in setting.agent.lines[mark:]
        for name in re.findall(r'"event": ?"(parked|expired|connected|resumed)"', line)
    ]
    assert names == told


def test_a_killed_agents_services_are_taken_over_with_the_visitors_who_wait(lab: Lab) -> None:
    """An agent that was killed is parked, and visitors wait; another process of the same instance
    gets its services, for the parked one does not answer, and serves who waited."""
    setting = Setting(lab)
    web = lab.keep(tcp_server(http_answer(b"second")))
    setting.agent.kill()
    setting.relay.line(r"\): parked: ")
    visitor = setting.visitor()
    visitor.send(b"hello")
    with ThreadPoolExecutor() as pool:
        page = pool.submit(get, setting.endpoint)
        until(lambda: connected(setting.relay, setting.relay.port) == 1, "the visitor's connection")
        second = lab.agent(
            setting.relay,
            *("--local-http", f"web={web}", "--local-tcp", f"echo={setting.echoing}", *BEATS),
        )
        assert second.event("ready", service="web")["endpoint"] == setting.endpoint
        assert second.event("ready", service="echo")["endpoint"] == setting.echo
        assert page.result(DEADLINE) == (200, b"second")
    assert visitor.receive(5) == b"hello"
    assert not second.events("refused")


def test_who_lost_a_service_in_an_outage_keeps_its_running_streams(lab: Lab) -> None:
    """While an agent is out of reach another run takes its services; when it is back, the streams
    that it had go on to their end, and it is told that the services are another's."""
    setting = Setting(lab)
    web = lab.keep(tcp_server(http_answer(b"second")))
    old = setting.visitor()
    assert old.says(b"before")
    setting.outage()
    second = lab.agent(setting.relay, "--local-http", f"web={web}", *BEATS)
    assert second.event("ready", service="web")["endpoint"] == setting.endpoint
    assert get(setting.endpoint) == (200, b"second")
    setting.network.door("open")
    setting.agent.event("resumed")
    setting.agent.event("withdrawn", service="web")
    assert setting.agent.event("refused", service="web")["reason"] == "held"
    assert old.says(b"after")
    assert setting.visitor().says(b"new: this service was not taken")
    assert get(setting.endpoint) == (200, b"second")


def test_a_relay_that_was_killed_knows_no_session(lab: Lab) -> None:
    """The agent finds that out at its first dial: it says so, and publishes its services anew at
    the same addresses."""
    web = lab.keep(tcp_server(http_answer(b"first")))
    port, data_dir = free_port(), lab.path / "data"
    listen = f"tcp:{port}:interface=127.0.0.1"
    relay = lab.relay(data_dir=data_dir, listen=listen)
    agent = lab.agent(relay, "--local-http", f"web={web}", *BEATS)
    endpoint = agent.event("ready")["endpoint"]
    mark = agent.mark
    relay.kill()
    agent.event("parked", mark)
    agent.event("retrying", mark)
    lab.relay(data_dir=data_dir, listen=listen)
    assert "does not know" in agent.event("expired", mark)["reason"]
    agent.event("connected", mark)
    assert agent.event("ready", mark)["endpoint"] == endpoint
    assert get(endpoint) == (200, b"first")
    assert not agent.events("resumed")
    assert not agent.events("disconnected")


def test_a_new_source_address(lab: Lab) -> None:
    """The old connection falls silent, and the next comes from another address: the session goes
    on there."""
    setting = Setting(lab)
    visitor = setting.visitor()
    assert visitor.says(b"before")
    setting.network.source("127.0.0.2")
    setting.network.cut("silence")
    visitor.send(b"meanwhile")
    setting.agent.event("resumed")
    assert visitor.receive(9) == b"meanwhile"
    assert any(" 0200007F:" in each for each in setting.relay.connections())
    assert len(setting.agent.events("connected")) == 1


def test_a_resume_before_the_relay_has_missed_anything(lab: Lab) -> None:
    """The agent's side of the connection is reset and the relay's still stands: the resume puts
    the new one in its place, and the relay parks nothing."""
    setting = Setting(lab, "--heartbeat-interval", "15s")
    visitor = setting.visitor()
    assert visitor.says(b"before")
    setting.network.cut("half")
    setting.agent.event("resumed")
    assert visitor.says(b"after")
    assert setting.relay.count(r"\): resumed: ") == 1
    assert setting.relay.count(r"\): parked: ") == 0


def test_a_handshake_that_is_cut_again_and_again(lab: Lab) -> None:
    """However far each new connection gets before it is reset, in the end one resumes."""
    setting = Setting(lab)
    visitor = setting.visitor()
    assert visitor.says(b"before")
    places = [(UP, 0), (UP, 90), (DOWN, 0), (DOWN, 200), (DOWN, 330), (UP, 700), (DOWN, 480)]
    setting.network.coming(*(Cut("rst", way, after) for way, after in places))
    since = setting.network.state()["accepted"]
    setting.network.cut("rst")
    visitor.send(b"meanwhile")
    assert visitor.receive(9) == b"meanwhile"
    assert setting.network.state()["accepted"] >= since + len(places) + 1
    assert len(setting.agent.events("connected")) == 1
