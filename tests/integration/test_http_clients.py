"""HTTPS for programs of others, curl, nghttp, h2load, Chromium and git; and beside slow ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from subprocess import CompletedProcess
from subprocess import run as run_process
from typing import Final

import pytest

from tests.integration.certificates import write_pair
from tests.integration.harness import (
    DEADLINE,
    ROOT,
    Lab,
    Program,
    Relay,
    environment,
    free_port,
    need,
    random_file,
    run,
    sha256,
    tcp_server,
    until,
    which,
)
from tests.integration.test_http_edge import Talk, answer, server
from tests.integration.test_https import blind
from tests.integration.test_nginx import listens, nginx_config

pytestmark = [pytest.mark.integration, pytest.mark.programs]

LARGE: Final = (64 if os.environ.get("SRRRS_TEST_FULL") else 8) << 20
PARALLEL: Final = 30
OBJECTS: Final = 300
SLOW: Final = 2000
NAME: Final = "site.localhost"


@dataclass
class Web:
    """A relay with a certificate, and an agent with a service ``site``.

    :ivar url: the service's public address, with no slash at the end.
    :ivar certificate: what is to be trusted there.
    """

    relay: Relay
    agent: Program
    url: str
    certificate: Path

    @property
    def authority(self) -> str:
        return self.url.removeprefix("https://")

    def curl(self, *words: str | Path, data: bytes | None = None) -> CompletedProcess[bytes]:
        """The name is resolved to this machine, as the public DNS would."""
        done = run(
            *("curl", "-sS", "--noproxy", "*", "--cacert", self.certificate),
            *("--resolve", f"{self.authority}:127.0.0.1", *words),
            data=data,
        )
        assert done.returncode == 0, done.stderr
        return done


def web(lab: Lab, port: int, *services: str, relay_options: tuple[str, ...] = ()) -> Web:
    """Publish what listens on a port as ``site``, and other services."""
    folder = lab.path / "tls"
    certificate = write_pair(folder, "site", NAME)
    relay = lab.relay("--tls", str(folder), *relay_options)
    words = [f"site=127.0.0.1:{port}", *services]
    agent = lab.agent(relay, *(word for each in words for word in ("--local-http", each)))
    url = agent.event("ready", service="site")["endpoint"]
    assert url == f"https://{NAME}:{relay.port}"
    return Web(relay, agent, url, certificate)


def nginx(lab: Lab) -> tuple[Path, int]:
    """The folder that it serves, whose ``up/`` takes PUT; its port."""
    root = lab.path / "root"
    (root / "up").mkdir(parents=True)
    port = free_port()
    config = lab.path / "nginx.conf"
    config.write_text(nginx_config(lab.path, port))
    lab.spawn("nginx", [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)])
    until(lambda: listens(port), "nginx")
    return root, port


def peak_memory(program: Program) -> int:
    """Bytes of a process that have been in memory at a time."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


# --- curl ---------------------------------------------------------------------------------


def test_curl_moves_large_bodies_by_http2_with_flat_memory(lab: Lab) -> None:
    """Down and up, by hash; the relay never holds more than a part of one."""
    need("nginx", "curl")
    root, port = nginx(lab)
    expected = random_file(root / "large.bin", LARGE)
    (root / "small.bin").write_bytes(b"x" * 200_000)
    site = web(lab, port)
    fetched = lab.path / "fetched"
    upload = ("--http2", "-f", "-w", "%{http_version} %{http_code}", "-T")
    site.curl("--http2", "-f", "-o", fetched, f"{site.url}/small.bin")
    site.curl(*upload, fetched, f"{site.url}/up/small")
    before = peak_memory(site.relay)

    done = site.curl(
        "--http2", "-f", "-w", "%{http_version}", "-o", fetched, site.url + "/large.bin"
    )
    assert done.stdout == b"2"
    assert sha256(fetched) == expected
    assert peak_memory(site.relay) - before < LARGE

    for name, options in (("sized", ()), ("endless", ("-H", "Content-Length:"))):
        done = site.curl(*upload, fetched, *options, f"{site.url}/up/{name}")
        assert done.stdout == b"2 201"
        assert sha256(root / "up" / name) == expected
    assert peak_memory(site.relay) - before < LARGE


class Gathering:
    """A web server that answers nobody before so many have asked.

    :ivar ids: the request ids that it was told.
    """

    def __init__(self, count: int) -> None:
        self.ids: set[str] = set()
        self._all_here = threading.Barrier(count, timeout=DEADLINE)

    def reply(self, first: str, fields: dict[str, str]) -> bytes:
        self.ids.add(fields["x-request-id"])
        self._all_here.wait()
        return answer(first.split()[1].encode())


def test_curl_asks_much_at_once_on_one_connection(lab: Lab) -> None:
    """30 requests are under way together, and each gets its own answer."""
    need("curl")
    gathering = Gathering(PARALLEL)
    site = web(lab, lab.keep(tcp_server(server(gathering.reply))))
    done = site.curl(
        *("--http2", "--parallel", "--parallel-max", str(PARALLEL)),
        *("-w", "%{http_version} %{http_code} %{num_connects}\n"),
        *("-o", lab.path / "page-#1", f"{site.url}/[1-{PARALLEL}]"),
    )
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert [row[:2] for row in rows] == [["2", "200"]] * PARALLEL
    assert sum(int(row[2]) for row in rows) == 1
    for number in range(1, PARALLEL + 1):
        assert (lab.path / f"page-{number}").read_text() == f"/{number}"
    assert len(gathering.ids) == PARALLEL
    assert len({each.rpartition("-")[0] for each in gathering.ids}) == 1


def odd_answers(first: str, _fields: dict[str, str]) -> bytes:
    """Answers that have no body, go elsewhere, or say something after the body."""
    method, path, _version = first.split()
    if path == "/nothing":
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    if path == "/moved":
        return b"HTTP/1.1 302 Found\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n"
    if path == "/trailers":
        return (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n"
        )
    return answer(b"here") if method == "GET" else answer(b"here")[:-4]


@pytest.mark.parametrize(
    ("options", "version"),
    [
        (("--http2",), "2"),
        (("--http1.1",), "1.1"),
        (("--no-alpn",), "1.1"),
        (("--http1.0",), "1.1"),
    ],
    ids=["http2", "http1.1", "no-alpn", "http1.0"],
)
def test_curl_takes_every_kind_of_answer(lab: Lab, options: tuple[str, ...], version: str) -> None:
    """By whichever version it asks for on the one port, whatever came before on a connection."""
    need("curl")
    site = web(lab, lab.keep(tcp_server(server(odd_answers))))
    each_time = ("-w", "\n=%{num_connects} %{http_code} %{size_download}\n", *options)
    show = ("-w", "\n%{http_version} %{http_code} %{size_download}", *options)

    def asked(*words: str) -> tuple[str, str]:
        shown, _, result = site.curl(*show, *words).stdout.decode().rpartition("\n")
        return shown, result

    assert asked(f"{site.url}/") == ("here", f"{version} 200 4")
    head, result = asked("--head", f"{site.url}/")
    assert result == f"{version} 200 0"
    assert "\ncontent-length: 4\r\n" in head.lower()
    assert asked(f"{site.url}/nothing") == ("", f"{version} 204 0")
    assert asked("-L", f"{site.url}/moved") == ("here", f"{version} 200 4")
    if "--http1.0" not in options:
        shown, result = asked("--dump-header", "-", f"{site.url}/trailers")
        assert result == f"{version} 200 4"
        assert "x-sum: 42" in shown.lower().partition("\r\n\r\n")[2]
        words = ["--head", site.url]
        for path in ("nothing", "trailers", "moved", ""):
            words += ["--next", "-sS", "--cacert", str(site.certificate), *each_time]
            words.append(f"{site.url}/{path}")
        rows = site.curl(*each_time, *words).stdout.decode().split("\n")
        told = [line for line in rows if line.startswith("=")]
        assert told == ["=1 200 0", "=0 204 0", "=0 200 4", "=0 302 0", "=0 200 4"]


@pytest.mark.parametrize("version", ["2", "1.1"])
def test_curl_is_refused_in_the_midst_of_an_upload(lab: Lab, version: str) -> None:
    """The answer reaches it, though it says only then that it wants no more."""
    need("curl")
    large = lab.path / "large"
    random_file(large, LARGE)

    def refuse(connection: socket.socket) -> None:
        talk = Talk(connection)
        talk.head()
        talk.exactly(1)
        talk.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nrefused")
        drained(connection)

    site = web(lab, lab.keep(tcp_server(refuse)))
    options = (
        f"--http{version}",
        "-H",
        "Expect:",
        "-w",
        " %{http_version} %{http_code}",
        "-T",
        large,
    )
    for _ in range(3):
        assert site.curl(*options, f"{site.url}/").stdout.decode() == f"refused {version} 403"


@pytest.mark.parametrize("version", ["2", "1.1"])
def test_curl_waits_for_100_with_a_body_of_unknown_length(lab: Lab, version: str) -> None:
    """The service is told that it does, and what the service says reaches it."""
    need("curl")
    seen: list[tuple[str | None, bytes]] = []

    def handle(connection: socket.socket) -> None:
        talk = Talk(connection)
        expects = talk.head()[1].get("expect")
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        seen.append((expects, talk.chunks()[0]))
        talk.send(answer(b"taken"))

    site = web(lab, lab.keep(tcp_server(handle)))
    done = site.curl(
        *(f"--http{version}", "--dump-header", "-", "-H", "Expect: 100-continue"),
        *("--expect100-timeout", str(DEADLINE), "-T", "-", f"{site.url}/"),
        data=b"said later",
    )
    assert seen == [("100-continue", b"said later")]
    statuses = re.findall(rb"^HTTP/%b (\d+)" % version.encode(), done.stdout, re.MULTILINE)
    assert statuses == [b"100", b"200"]
    assert done.stdout.endswith(b"\r\n\r\ntaken")


# --- nghttp2 ------------------------------------------------------------------------------


def test_nghttp_fetches_several_on_one_connection(lab: Lab) -> None:
    """Every frame as nghttp2 wants it, with its priorities and padding."""
    need("nghttp")
    ids: set[str] = set()

    def reply(first: str, fields: dict[str, str]) -> bytes:
        ids.add(fields["x-request-id"])
        return answer(f"<{first.split()[1]}>".encode())

    site = web(lab, lab.keep(tcp_server(server(reply))))
    urls = [f"https://127.0.0.1:{site.relay.port}/{number}" for number in range(8)]
    done = run(
        *("nghttp", "--no-verify-peer", "--padding=100", "-H", f":authority: {site.authority}"),
        *urls,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"<.*?>", done.stdout.decode())) == [f"</{n}>" for n in range(8)]
    assert len(ids) == 8
    assert len({each.rpartition("-")[0] for each in ids}) == 1


def test_nghttp_with_the_smallest_windows_and_trailers(lab: Lab) -> None:
    """What comes back stands still again and again until it is given credit; what follows the body
    goes along both ways."""
    need("nghttp")
    sent = lab.path / "sent"
    expected = random_file(sent, 1 << 20)
    seen: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        talk = Talk(connection)
        talk.head()
        body, trailers = talk.chunks()
        seen.append(trailers)
        talk.send(answer(body))

    site = web(lab, lab.keep(tcp_server(handle)))
    done = run(
        *("nghttp", "--no-verify-peer", "--window-bits=10", "--connection-window-bits=16"),
        *("-H", f":authority: {site.authority}", "-H", "trailer: x-sum", "--no-content-length"),
        *(f"--data={sent}", "--trailer=x-sum: 42", f"https://127.0.0.1:{site.relay.port}/"),
    )
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == expected
    assert [each.lower() for each in seen] == [b"x-sum: 42\r\n"]


def test_h2load_gets_all_its_answers(lab: Lab) -> None:
    """1,000 requests, 50 at a time on each of 4 connections."""
    need("h2load")
    site = web(lab, lab.keep(tcp_server(server(lambda *_: answer(b"served")))))
    done = run(
        *("h2load", "-n", "1000", "-c", "4", "-m", "50"),
        *(f"--connect-to=127.0.0.1:{site.relay.port}", f"{site.url}/"),
    )
    shown = done.stdout.decode()
    assert done.returncode == 0, shown
    assert "Application protocol: h2" in shown
    assert re.search(r"^requests: 1000 .* 1000 succeeded, 0 failed, 0 errored", shown, re.MULTILINE)
    assert re.search(r"^status codes: 1000 2xx", shown, re.MULTILINE)


# --- Chromium -----------------------------------------------------------------------------

# Chromium writes the page out when it is loaded, which it is not before its image came; that comes
# when the script has asked for /done.
PAGE: Final = b"""<!doctype html><title>page</title>
<p id="protocol"></p>
<p id="socket"></p>
<p id="events"></p>
<script>
const note = (id, text) => { document.getElementById(id).textContent += text + ";"; };
note("protocol", performance.getEntriesByType("navigation")[0].nextHopProtocol);
const talked = new Promise(done => {
  const socket = new WebSocket(`wss://${location.host}/ws`);
  const words = ["one", "x".repeat(100000), "three"];
  const say = () => words.length ? socket.send(words.shift()) : socket.close(1000);
  socket.onopen = say;
  socket.onmessage = event => { note("socket", event.data.slice(0, 9)); say(); };
  socket.onclose = event => { note("socket", `${event.code} ${event.wasClean}`); done(); };
});
const listened = new Promise(done => {
  const source = new EventSource("/events");
  source.onmessage = event => {
    note("events", event.data);
    fetch(`/seen/${event.data}`, {method: "POST", body: event.data});
    if (event.data == "3") { source.close(); done(); }
  };
});
Promise.all([talked, listened]).then(() => fetch("/done"));
</script>
<img src="/image">
"""


class Page:
    """The web server of the page: sends each event when the page has seen the one before."""

    def __init__(self) -> None:
        self._asked: dict[str, threading.Event] = {
            path: threading.Event() for path in ("/seen/1", "/seen/2", "/seen/3", "/done")
        }

    def handle(self, connection: socket.socket) -> None:
        talk = Talk(connection)
        for first, _, _ in talk.requests():
            path = first.split()[1]
            if path == "/events":
                self._tell(talk)
            elif path == "/image":
                self._asked["/done"].wait(DEADLINE)
                talk.send(answer(b""))
            elif path in self._asked:
                self._asked[path].set()
                talk.send(answer(b""))
            else:
                talk.send(answer(PAGE, "Content-Type: text/html"))

    def _tell(self, talk: Talk) -> None:
        talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in (b"1", b"2", b"3"):
            talk.send(b"9\r\ndata: " + number + b"\n\n\r\n")
            self._asked[f"/seen/{number.decode()}"].wait(DEADLINE)
        talk.send(b"0\r\n\r\n")


def chromium(lab: Lab, site: Web) -> str:
    """What the site's page has become once it is loaded."""
    browser = lab.spawn(
        "chromium",
        [
            *(which("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--no-proxy-server", "--ignore-certificate-errors"),
            "--host-resolver-rules=MAP * 127.0.0.1",
            *(f"--user-data-dir={lab.path}/profile", "--dump-dom", f"{site.url}/"),
        ],
        env={"HOME": str(lab.path)},
    )
    assert browser.wait() == 0
    return "\n".join(browser.lines)


def test_chromium_with_a_websocket_and_events(lab: Lab) -> None:
    """A page by HTTP/2 whose script talks to a WebSocket, and hears of events as they are sent."""
    need("chromium")
    echo = lab.spawn(
        "echo", [sys.executable, "-m", "tests.integration.autobahn_echo", "serve"], cwd=ROOT
    )
    echo_port = int(echo.line(r"port (\d+)")[1])
    page = lab.keep(tcp_server(Page().handle))
    site = web(lab, page, f"site/ws=127.0.0.1:{echo_port}")
    # Each in a line, as lines of the browser's log may come in between.
    shown = re.findall(r'<p id="(\w+)">(.*)</p>', chromium(lab, site))
    assert dict(shown) == {
        "protocol": "h2;",
        "socket": "one;xxxxxxxxx;three;1000 true;",
        "events": "1;2;3;",
    }


# --- git ----------------------------------------------------------------------------------


def git_server(root: Path) -> Callable[[socket.socket], None]:
    """A web server for the repositories in a folder: git's own CGI program, and what runs that."""

    def reply(first: str, fields: dict[str, str], body: bytes) -> bytes:
        method, target, _ = first.split()
        path, _, query = target.partition("?")
        names = {name.upper().replace("-", "_"): value for name, value in fields.items()}
        done = run_process(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env=environment(
                {
                    **{f"HTTP_{name}": value for name, value in names.items()},
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": method,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": fields.get("content-type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "REMOTE_USER": "visitor",
                    "REMOTE_ADDR": "127.0.0.1",
                }
            ),
            timeout=DEADLINE,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = next((line[8:] for line in lines if line.startswith("Status: ")), "200 OK")
        kept = [
            line for line in lines if line and not line.startswith(("Status:", "Content-Length:"))
        ]
        kept.append(f"Content-Length: {len(content)}")
        return "\r\n".join([f"HTTP/1.1 {status}", *kept, "", ""]).encode() + content

    def handle(connection: socket.socket) -> None:
        talk = Talk(connection)
        for request in talk.requests():
            talk.send(reply(*request))

    return handle


@pytest.mark.parametrize("smart", [True, False], ids=["smart", "dumb"])
@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/1.1"])
def test_git_clones(lab: Lab, version: str, smart: bool) -> None:
    """Hundreds of objects in one pack, which a push adds to, or each by a request of its own."""
    need("git")
    (lab.path / "served").mkdir()
    served = lab.path / "served" / "project.git"

    def git(*words: str | Path, cwd: Path = lab.path, env: Mapping[str, str] | None = None) -> str:
        program = lab.spawn(
            "git",
            [
                *("git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "gc.auto=0"),
                *("-c", f"http.version={version}", "-c", "http.postBuffer=65536"),
                *map(str, words),
            ],
            cwd=cwd,
            env={"HOME": str(lab.path), "GIT_CONFIG_NOSYSTEM": "1", **(env or {})},
        )
        assert program.wait() == 0, program.text()
        return "\n".join(program.lines)

    def commit(folder: Path, count: int, size: int) -> str:
        for number in range(count):
            (folder / f"{count}-{number}").write_bytes(os.urandom(size))
        git("add", ".", cwd=folder)
        git("commit", "-q", "-m", "files", cwd=folder)
        return git("rev-parse", "HEAD", cwd=folder)

    git("init", "-q", "--bare", served)
    git("config", "http.receivepack", "true", cwd=served)
    git("config", "receive.unpackLimit", "10000", cwd=served)
    first = lab.path / "first"
    git("clone", "-q", served, first)
    head = commit(first, OBJECTS, 100)
    git("push", "-q", "origin", "HEAD", cwd=first)
    git("update-server-info", cwd=served)

    site = web(lab, lab.keep(tcp_server(git_server(lab.path / "served"))))
    trust = {
        "GIT_SSL_CAINFO": str(site.certificate),
        "GIT_SMART_HTTP": "1" if smart else "0",
        "GIT_TRACE_CURL": "1",
        "GIT_TRACE_CURL_NO_DATA": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.curloptResolve",
        "GIT_CONFIG_VALUE_0": f"{site.authority}:127.0.0.1",
    }
    second = lab.path / "second"
    shown = git("clone", "-q", f"{site.url}/project.git", second, env=trust)
    assert f"Recv header: {version} 200" in shown
    assert git("rev-parse", "HEAD", cwd=second) == head
    git("fsck", "--strict", cwd=second)
    if smart:
        pushed = commit(second, 10, 100_000)
        git("push", "-q", "origin", "HEAD", cwd=second, env=trust)
        assert git("rev-parse", "HEAD", cwd=served) == pushed


# --- slow ones ----------------------------------------------------------------------------


def client_hello(name: str) -> bytes:
    """How a visitor begins TLS."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        blind().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def test_slow_visitors_of_https(lab: Lab) -> None:
    """2,000 from all over 127.0.0.0/8 that begin TLS or, within TLS, a head a byte at a time:
    everybody else is served meanwhile, each of them is let go, and nothing of them is left."""
    need("curl")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < SLOW + 1000:
        pytest.skip("too few files can be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, SLOW + 1000), hard))
    port = lab.keep(tcp_server(server(lambda *_: answer(b"served"))))
    site = web(lab, port, relay_options=("--head-timeout", "6s"))

    def served(count: int) -> None:
        urls = [f"{site.url}/{number}" for number in range(count)]
        for version in ("--http1.1", "--http2"):
            assert site.curl(version, "-f", *urls).stdout == b"served" * count

    served(1)
    before = site.relay.open_files()
    hello = client_hello(NAME)
    context, context2 = blind(), blind()
    context2.set_alpn_protocols(["h2"])
    # What each sends, the first byte by the first time.
    slow: list[tuple[socket.socket, bytes]] = []
    for number in range(SLOW):
        source = (str(IPv4Address(int(IPv4Address("127.0.1.1")) + 7919 * number)), 0)
        client = socket.create_connection(("127.0.0.1", site.relay.port), DEADLINE, source)
        says = hello
        if number % 20 == 0:
            client, says = context.wrap_socket(client, server_hostname=NAME), b"GET / HTTP/1.1"
        elif number % 20 == 1:
            client, says = context2.wrap_socket(client, server_hostname=NAME), b"PRI * HTTP/2.0"
        slow.append((lab.keep(client), says))
    for position in range(6):
        for client, says in slow:
            with contextlib.suppress(OSError):  # Where it was let go already.
                client.sendall(says[position : position + 1])
        served(5)
    told = {says: set[bytes]() for says in (hello, b"GET / HTTP/1.1", b"PRI * HTTP/2.0")}
    for client, says in slow:
        told[says].add(drained(client)[:12])
        client.close()
    assert told[hello] == {b""}
    assert b"HTTP/1.1 408" in told[b"GET / HTTP/1.1"] <= {b"HTTP/1.1 408", b""}
    until(lambda: site.relay.open_files() <= before, "the end of all that was open for them")
    served(1)


def drained(client: socket.socket) -> bytes:
    """What comes until the connection ends, in whichever way."""
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := client.recv(65536):
            received += data
    return received
