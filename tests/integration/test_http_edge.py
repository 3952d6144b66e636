"""Requests through a relay as visitors' and services' programs make them."""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.integration.cutting import Network
from tests.integration.harness import (
    DEADLINE,
    ROOT,
    Lab,
    Program,
    Relay,
    free_port,
    need,
    random_file,
    run,
    sha256,
    tcp_server,
    until,
    which,
)
from tests.integration.test_nginx import listens, nginx_config

pytestmark = [pytest.mark.integration]

LARGE: Final = 64 << 20
GROWTH: Final = 24 << 20
"""Bytes that a process may grow by while much more than that goes through it."""


class Talk:
    """One end of a connection, read as HTTP messages are."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(DEADLINE)
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._read += data
        return bool(data)

    def exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            assert self._more(), f"it ended after {self._read!r}"
        data, self._read = self._read[:size], self._read[size:]
        return data

    def until(self, end: bytes) -> bytes:
        while end not in self._read:
            assert self._more(), f"it ended after {self._read!r}"
        return self.exactly(self._read.index(end) + len(end))

    def rest(self) -> bytes:
        """All up to the end."""
        while self._more():
            pass
        return self._read

    def head(self) -> tuple[str, dict[str, str]]:
        """The first line and the fields."""
        first, *lines = self.until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return first, {name.lower(): value.strip() for name, _, value in pairs}

    def chunks(self) -> tuple[bytes, bytes]:
        """A chunked body, and its trailers."""
        body = b""
        while size := int(self.until(b"\r\n").partition(b";")[0], 16):
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        trailers = b""
        while (line := self.until(b"\r\n")) != b"\r\n":
            trailers += line
        return body, trailers

    def requests(self) -> Iterator[tuple[str, dict[str, str], bytes]]:
        """Each one's first line, fields and body, up to the end."""
        while True:
            try:
                first, fields = self.head()
            except AssertionError:
                return
            if "transfer-encoding" in fields:
                yield first, fields, self.chunks()[0]
            else:
                yield first, fields, self.exactly(int(fields.get("content-length", 0)))

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """A response whose body has a length or is chunked."""
        first, fields = self.head()
        status = int(first.split()[1])
        if "content-length" in fields:
            return status, fields, self.exactly(int(fields["content-length"]))
        return status, fields, self.chunks()[0]


@dataclass
class Backend:
    """A service that a test speaks for: its connections, in the order in which they came."""

    port: int = 0
    talks: list[Talk] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def handle(self, connection: socket.socket) -> None:
        self.talks.append(Talk(connection))
        self.over.wait(DEADLINE)

    def talk(self, index: int) -> Talk:
        until(lambda: len(self.talks) > index, f"connection {index} of a service")
        return self.talks[index]


@dataclass
class Edge:
    """A relay, an agent, and services that the test speaks for.

    :ivar endpoint: the public address of the first service.
    """

    lab: Lab
    relay: Relay
    agent: Program
    backends: dict[str, Backend]

    def visitor(self) -> Talk:
        return Talk(
            self.lab.keep(socket.create_connection(("127.0.0.1", self.relay.port), DEADLINE))
        )

    def host(self, name: str) -> str:
        return f"{name}.localhost:{self.relay.port}"

    def get(self, name: str, path: str = "/", *fields: str, method: str = "GET") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host(name)}", *fields, "", ""]
        return "\r\n".join(lines).encode()


def backend(lab: Lab) -> Backend:
    made = Backend()
    made.port = lab.keep(tcp_server(made.handle))
    lab.keep(_Opener(made.over))
    return made


class _Opener:
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._event.set()


def edge_of(
    lab: Lab, *names: str, relay_options: tuple[str, ...] = (), network: bool = False
) -> Edge:
    relay = lab.relay(*relay_options)
    backends = {name: backend(lab) for name in names}
    options = [
        word
        for name in names
        for word in ("--local-http", f"{name}=127.0.0.1:{backends[name].port}")
    ]
    agent = lab.agent(relay, *options)
    for name in names:
        agent.event("ready", service=name)
    return Edge(lab, relay, agent, backends)


def answer(body: bytes, *fields: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def server(reply: Callable[[str, dict[str, str]], bytes]) -> Callable[[socket.socket], None]:
    """A web server with keep-alive, for requests without a body."""

    def handle(connection: socket.socket) -> None:
        talk = Talk(connection)
        for first, fields, _ in talk.requests():
            talk.send(reply(first, fields))

    return handle


# --- tenants ------------------------------------------------------------------------------


def test_requests_of_one_connection_go_to_their_own_tenants(lab: Lab) -> None:
    """Two devices of two owners: what is asked of one is never seen by the other, whatever came
    before on the connection; also pipelined."""
    relay = lab.relay()
    seen: dict[str, list[str]] = {"alice": [], "bob": []}

    def site(name: str) -> Callable[[socket.socket], None]:
        def reply(first: str, fields: dict[str, str]) -> bytes:
            seen[name].append(f"{fields['host']} {first}")
            return answer(f"{name}'s".encode())

        return server(reply)

    for name in seen:
        port = lab.keep(tcp_server(site(name)))
        token = lab.token(relay, name)
        agent = lab.agent(relay, "--local-http", f"{name}=127.0.0.1:{port}", token=token)
        agent.event("ready", service=name)
    edge = Edge(lab, relay, agent, {})
    visitor = edge.visitor()
    names = ["alice", "bob", "bob", "alice", "alice", "bob"] * 5
    for index, name in enumerate(names):
        visitor.send(edge.get(name, f"/{index}", "Cookie: secret"))
        status, _, body = visitor.answer()
        assert (status, body) == (200, f"{name}'s".encode())
    visitor.send(b"".join(edge.get(name, f"/p{index}") for index, name in enumerate(names)))
    for name in names:
        assert visitor.answer()[2] == f"{name}'s".encode()
    for name, requests in seen.items():
        assert len(requests) == 2 * names.count(name)
        assert all(each.startswith(f"{name}.localhost") for each in requests)


@pytest.mark.programs
def test_nginx_in_front_may_keep_its_connections(lab: Lab) -> None:
    """A proxy that shares one connection between hosts shows each visitor the right site."""
    need("nginx", "curl")
    edge = edge_of(lab, "one", "two")
    for name, each in edge.backends.items():
        threading.Thread(
            target=_serve_all, args=(each, server(lambda *_, name=name: answer(name.encode())))
        ).start()
    port = free_port()
    temporary = nginx_config(lab.path, port).partition("http {")[0]
    config = lab.path / "front.conf"
    paths = "\n".join(
        f"{kind}_temp_path {lab.path}/temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        temporary.replace("worker_processes 2", "worker_processes 1")
        + f"""http {{ access_log off; {paths}
            upstream relay {{ server 127.0.0.1:{edge.relay.port}; keepalive 1; }}
            server {{ listen 127.0.0.1:{port};
                location / {{ proxy_pass http://relay; proxy_http_version 1.1;
                    proxy_set_header Host $host:{edge.relay.port};
                    proxy_set_header Connection ""; }} }} }}"""
    )
    words = [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)]
    lab.spawn("front", words)
    until(lambda: listens(port), "nginx")
    for name in ["one", "two"] * 10:
        done = run(
            *("curl", "-sS", "--noproxy", "*", "-H", f"Host: {name}.localhost"),
            f"http://127.0.0.1:{port}/",
        )
        assert done.stdout == name.encode(), done.stderr


def _serve_all(each: Backend, handle: Callable[[socket.socket], None]) -> None:
    """Serve the connections of a backend one after the other as they come."""
    served = 0
    while not each.over.wait(0.01):
        while len(each.talks) > served:
            threading.Thread(
                target=_quietly, args=(handle, each.talks[served].socket), daemon=True
            ).start()
            served += 1


def _quietly(handle: Callable[[socket.socket], None], connection: socket.socket) -> None:
    try:
        handle(connection)
    except OSError:
        pass


# --- messages -----------------------------------------------------------------------------


def test_what_a_service_is_told(lab: Lab) -> None:
    """Who asks, and by which name; what the visitor says of that itself is replaced, and what is
    for one connection goes no further."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(
        edge.get(
            "site",
            "/a?b",
            "X-Forwarded-For: 198.51.100.7",
            "Forwarded: for=198.51.100.7",
            "X-Request-Id: mine",
            "X_Forwarded_For: 198.51.100.7",
            "Connection: X-Hop",
            "X-Hop: 1",
            "X-Stays: 1",
        )
    )
    talk = edge.backends["site"].talk(0)
    first, fields = talk.head()
    assert first == "GET /a?b HTTP/1.1"
    assert fields.pop("x-request-id").endswith("-1")
    assert fields == {
        "host": edge.host("site"),
        "x-stays": "1",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": edge.host("site"),
        "forwarded": f'for=127.0.0.1;host="{edge.host("site")}";proto=http',
    }
    talk.send(answer(b"ok", "Keep-Alive: timeout=5", "Set-Cookie: a=b; Domain=localhost"))
    status, fields, body = visitor.answer()
    assert (status, body, fields["set-cookie"]) == (200, b"ok", "a=b")
    assert "keep-alive" not in fields


def test_bodies_in_chunks_both_ways_with_trailers(lab: Lab) -> None:
    """They come as they go, their trailers too, and the connections serve another request."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    for turn in range(2):
        visitor.send(edge.get("site", "/", "Transfer-Encoding: chunked", method="POST"))
        visitor.send(b"5\r\nhello\r\n")
        talk = edge.backends["site"].talk(0)
        _, fields = talk.head()
        assert fields["transfer-encoding"] == "chunked"
        # What has come is passed on at once.
        assert talk.until(b"hello\r\n") == b"5\r\nhello\r\n"
        visitor.send(b"6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n")
        body, trailers = talk.chunks()
        assert (body, trailers.lower()) == (b" world", b"x-sum: 11\r\n")
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        _, fields = visitor.head()
        assert visitor.until(b"one\r\n") == b"3\r\none\r\n"
        talk.send(b"3\r\ntwo\r\n0\r\nX-End: %d\r\n\r\n" % turn)
        body, trailers = visitor.chunks()
        assert (body, trailers.lower()) == (b"two", b"x-end: %d\r\n" % turn)


def test_100_continue_head_interim_and_bodyless_answers(lab: Lab) -> None:
    """One after the other on one connection at either end, each where it belongs."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site", "/", "Expect: 100-continue", "Content-Length: 4", method="PUT"))
    talk = edge.backends["site"].talk(0)
    assert talk.head()[1]["expect"] == "100-continue"
    talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert visitor.head()[0] == "HTTP/1.1 100 Continue"
    visitor.send(b"body")
    assert talk.exactly(4) == b"body"
    talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n")
    assert visitor.head() == ("HTTP/1.1 103 Early Hints", {"link": "</s.css>"})
    talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert visitor.head()[0] == "HTTP/1.1 204 No Content"
    visitor.send(edge.get("site", method="HEAD"))
    assert talk.head()[0].startswith("HEAD ")
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    assert visitor.head()[1]["content-length"] == "1000"
    visitor.send(edge.get("site", "/", 'If-None-Match: "x"'))
    talk.head()
    talk.send(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 1000\r\n\r\n')
    assert visitor.head()[0] == "HTTP/1.1 304 Not Modified"
    visitor.send(edge.get("site", "/last"))
    assert talk.head()[0] == "GET /last HTTP/1.1"
    talk.send(answer(b"last"))
    assert visitor.answer()[2] == b"last"


def test_events_come_as_they_are_sent(lab: Lab) -> None:
    """Server-sent events, and an answer without a length, are not collected."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site", "/events", "Accept: text/event-stream"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    assert visitor.head()[1]["transfer-encoding"] == "chunked"
    for number in range(5):
        talk.send(b"data: %d\n\n" % number)
        assert visitor.until(b"\n\n\r\n").endswith(b"data: %d\n\n\r\n" % number)


def test_an_early_answer(lab: Lab) -> None:
    """A refusal in the midst of an upload reaches a visitor that goes on sending."""
    need("curl")
    edge = edge_of(lab, "site")

    def refuse() -> None:
        talk = edge.backends["site"].talk(0)
        talk.head()
        talk.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    thread = threading.Thread(target=refuse)
    thread.start()
    large = lab.path / "large"
    large.write_bytes(bytes(8 << 20))
    host = edge.host("site")
    done = run(
        *("curl", "-sS", "--noproxy", "*", "-T", large, "-H", "Expect:", "-w", "%{http_code}"),
        *("--resolve", f"{host}:127.0.0.1", f"http://{host}/up"),
    )
    thread.join()
    assert done.stdout == b"no403", done


# --- what goes wrong ----------------------------------------------------------------------


def test_a_kept_connection_that_died_is_tried_again(lab: Lab) -> None:
    """A service that closes its kept connection as a request comes by it: nobody notices."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    talk.send(answer(b"first"))
    assert visitor.answer()[2] == b"first"
    visitor.send(edge.get("site", "/second"))
    talk.head()
    talk.socket.close()
    again = edge.backends["site"].talk(1)
    assert again.head()[0] == "GET /second HTTP/1.1"
    again.send(answer(b"second"))
    assert visitor.answer()[2] == b"second"
    # What may have been done is not asked twice.
    visitor.send(edge.get("site", "/", "Content-Length: 1", method="POST") + b"x")
    again.head()
    again.exactly(1)
    again.socket.close()
    assert visitor.answer()[0] == 502
    assert len(edge.backends["site"].talks) == 2


def test_surplus_bytes_go_to_nobody(lab: Lab) -> None:
    """What a service sends beyond its answer is never the answer to the next request."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    talk.send(answer(b"first") + answer(b"evil"))
    assert visitor.answer()[2] == b"first"
    visitor.send(edge.get("site", "/next"))
    fresh = edge.backends["site"].talk(1)
    assert fresh.head()[0] == "GET /next HTTP/1.1"
    fresh.send(answer(b"right"))
    assert visitor.answer()[2] == b"right"


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_an_answer_that_breaks_off(lab: Lab, framing: bytes) -> None:
    """A service that breaks off within a body: so does the visitor's connection."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    talk.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
    visitor.head()
    visitor.until(b"hello")
    talk.socket.shutdown(socket.SHUT_RDWR)
    try:
        assert not visitor.rest().endswith(b"0\r\n\r\n")
    except ConnectionResetError:
        pass


def test_a_visitor_that_stops_reading(lab: Lab) -> None:
    """It holds up its own service, and nobody else; then it gets all."""
    edge = edge_of(lab, "site")
    slow, quick = edge.visitor(), edge.visitor()
    slow.send(edge.get("site", "/slow"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    size = 32 << 20
    sent = threading.Event()

    def send() -> None:
        talk.send(answer(bytes(size)))
        sent.set()

    threading.Thread(target=send, daemon=True).start()
    slow.head()
    for _ in range(3):
        quick.send(edge.get("site", "/quick"))
        other = edge.backends["site"].talk(1)
        other.head()
        other.send(answer(b"quick"))
        assert quick.answer()[2] == b"quick"
    assert not sent.is_set()
    received = 0
    while received < size:
        received += len(slow.exactly(min(1 << 20, size - received)))
    assert sent.wait(DEADLINE)


def test_slow_heads_hold_nobody_up(lab: Lab) -> None:
    """2,000 connections from all over 127.0.0.0/8 that send a head a byte at a time: every other
    visitor is served meanwhile, and each of them is told that it was too slow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("too few files can be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    relay = lab.relay("--head-timeout", "3s")
    port = lab.keep(tcp_server(server(lambda *_: answer(b"served"))))
    agent = lab.agent(relay, "--local-http", f"site=127.0.0.1:{port}")
    agent.event("ready", service="site")
    edge = Edge(lab, relay, agent, {})
    slow = []
    for number in range(2000):
        source = (str(IPv4Address(int(IPv4Address("127.0.1.1")) + 7919 * number)), 0)
        client = socket.create_connection(("127.0.0.1", relay.port), DEADLINE, source)
        slow.append(lab.keep(client))
        client.sendall(b"GET")
    for _ in range(20):
        visitor = edge.visitor()
        for _ in range(5):
            visitor.send(edge.get("site"))
            assert visitor.answer()[2] == b"served"
    for client in slow:
        assert Talk(client).head()[0] == "HTTP/1.1 408 Request Timeout"


def _memory(program: Program) -> int:
    """Bytes of a process that are in memory."""
    fields = Path(f"/proc/{program.pid}/statm").read_text().split()
    return int(fields[1]) * 4096


@pytest.mark.programs
def test_large_bodies_with_flat_memory(lab: Lab) -> None:
    """64 MiB each way, with a length and in chunks, by hash; neither end grows with them."""
    need("nginx", "curl")
    root = lab.path / "root"
    (root / "up").mkdir(parents=True)
    port = free_port()
    config = lab.path / "nginx.conf"
    config.write_text(nginx_config(lab.path, port))
    lab.spawn("nginx", [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)])
    until(lambda: listens(port), "nginx")
    relay = lab.relay()
    agent = lab.agent(relay, "--local-http", f"site=127.0.0.1:{port}")
    url = agent.event("ready", service="site")["endpoint"]
    expected = random_file(root / "large.bin", LARGE)
    parts = urlsplit(url)
    common = ("--noproxy", "*", "--resolve", f"{parts.hostname}:{parts.port}:127.0.0.1", "-sS")
    fetched = lab.path / "fetched"
    before = [_memory(each) for each in (relay, agent)]
    assert run("curl", *common, "-f", "-o", fetched, f"{url}/large.bin").returncode == 0
    assert sha256(fetched) == expected
    for name, options in (("sized", ()), ("chunked", ("-H", "Transfer-Encoding: chunked"))):
        done = run("curl", *common, "-f", "-T", fetched, *options, f"{url}/up/{name}")
        assert done.returncode == 0, done.stderr
        assert sha256(root / "up" / name) == expected
    for each, start in zip((relay, agent), before, strict=True):
        assert _memory(each) - start < GROWTH


# --- other protocols ----------------------------------------------------------------------


@pytest.mark.parametrize("through_nginx", [False, True])
def test_a_websocket(lab: Lab, through_nginx: bool) -> None:
    """Autobahn at both ends, and also with nginx between the agent and the server."""
    echo = lab.spawn(
        "echo", [sys.executable, "-m", "tests.integration.autobahn_echo", "serve"], cwd=ROOT
    )
    port = int(echo.line(r"port (\d+)")[1])
    if through_nginx:
        need("nginx")
        inner, port = port, free_port()
        config = lab.path / "nginx.conf"
        config.write_text(
            nginx_config(lab.path, port).replace(
                f"root {lab.path}/root;",
                f"""location /ws {{ proxy_pass http://127.0.0.1:{inner}; proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection "upgrade"; }}""",
            )
        )
        lab.spawn("nginx", [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)])
        until(lambda: listens(port), "nginx")
    relay = lab.relay()
    agent = lab.agent(relay, "--local-http", f"site=127.0.0.1:{port}")
    url = agent.event("ready", service="site")["endpoint"].replace("http:", "ws:") + "/ws"
    large = "x" * 100_000
    words = ("ask", url, str(relay.port), "one", large, "three")
    asker = lab.spawn(
        "asker", [sys.executable, "-m", "tests.integration.autobahn_echo", *words], cwd=ROOT
    )
    assert asker.wait() == 0
    assert asker.lines == ["one", large, "three", "closed 1000 clean True"]


# --- outages ------------------------------------------------------------------------------


def test_an_outage_under_requests(lab: Lab) -> None:
    """The agent's connection breaks: a running answer goes on after it, and a request that comes
    meanwhile, on a connection that was kept, is held and then served."""
    site = backend(lab)
    relay = lab.relay()
    network = Network(lab, relay.port)
    agent = lab.agent(
        network.url,
        *("--local-http", f"site=127.0.0.1:{site.port}", "--heartbeat-interval", "1s"),
        token=relay.first_token,
    )
    agent.event("ready", service="site")
    edge = Edge(lab, relay, agent, {"site": site})
    running, kept = edge.visitor(), edge.visitor()
    running.send(edge.get("site", "/running"))
    first = site.talk(0)
    first.head()
    first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
    running.head()
    assert running.exactly(5) == b"01234"
    kept.send(edge.get("site", "/before"))
    second = site.talk(1)
    second.head()
    second.send(answer(b"before"))
    assert kept.answer()[2] == b"before"

    network.door("refused")
    network.cut("rst")
    relay.line(r"parked")
    kept.send(edge.get("site", "/during"))
    first.send(b"56789")
    network.door("open")
    assert running.exactly(5) == b"56789"
    assert second.head()[0] == "GET /during HTTP/1.1"
    second.send(answer(b"during"))
    assert kept.answer()[2] == b"during"


def test_an_outage_that_is_too_long(lab: Lab) -> None:
    """Who waits longer than ``--hold`` is told to come again, on a connection that stays."""
    edge = edge_of(lab, "site", relay_options=("--hold", "0.2s"))
    visitor = edge.visitor()
    visitor.send(edge.get("site"))
    talk = edge.backends["site"].talk(0)
    talk.head()
    talk.send(answer(b"ok"))
    assert visitor.answer()[0] == 200
    edge.agent.kill()
    edge.relay.line(r"parked")
    for _ in range(2):
        visitor.send(edge.get("site"))
        status, fields, _ = visitor.answer()
        assert (status, fields["retry-after"]) == (503, "5")


def test_both_logs_have_one_id(lab: Lab) -> None:
    """The id that a service is told begins with the one in the agent's log."""
    edge = edge_of(lab, "site")
    visitor = edge.visitor()
    visitor.send(edge.get("site"))
    talk = edge.backends["site"].talk(0)
    request = talk.head()[1]["x-request-id"]
    talk.send(answer(json.dumps("ok").encode()))
    visitor.answer()
    edge.agent.line(rf"site: a visitor, {request.partition('-')[0]}$")
