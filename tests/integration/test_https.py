"""HTTPS with the owner's certificates, TLS that is passed on, and proxies in front, for real."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from srrrs.net.proxyheader import V2_BYTES, read_header, write_header
from tests.integration.certificates import write_pair
from tests.integration.harness import (
    DEADLINE,
    Lab,
    Program,
    Relay,
    free_port,
    http_answer,
    need,
    run,
    tcp_server,
    until,
    which,
)
from tests.integration.test_tls import connect_proxy

pytestmark = pytest.mark.integration

DOMAIN = "relay.test"
SITE = "site.localhost"
PAGE = b"a page"
CLIENT = ("203.0.113.5", 6000)


def trusting(*certificates: Path) -> ssl.SSLContext:
    """A visitor's TLS, which trusts these alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for each in certificates:
        context.load_verify_locations(each)
    return context


def blind() -> ssl.SSLContext:
    """A visitor's TLS that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def connection(
    port: int, name: str, context: ssl.SSLContext | None = None, before: bytes = b""
) -> Iterator[ssl.SSLSocket]:
    """TLS to this machine under a name, behind some bytes in the clear."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as raw:
        raw.sendall(before)
        with (context or blind()).wrap_socket(raw, server_hostname=name) as secure:
            yield secure


def shown(port: int, name: str) -> bytes:
    """The certificate that is shown, as DER."""
    with connection(port, name) as secure:
        return secure.getpeercert(binary_form=True) or b""


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def ask(visitor: socket.socket, host: str, path: str = "/", *fields: str) -> bytes:
    """A request, and all that is answered until the end."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields, "", ""]
    visitor.sendall("\r\n".join(lines).encode())
    answer = b""
    while data := visitor.recv(65536):
        answer += data
    return answer


def ask_plainly(port: int, host: str, path: str = "/", *fields: str, before: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as visitor:
        visitor.sendall(before)
        return ask(visitor, host, path, *fields)


def head_of(connection: socket.socket) -> bytes:
    """A request's head, of those without a body."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            break
        head += data
    return head


def mirror(connection: socket.socket) -> None:
    """A web server that answers with the fields that it got."""
    lines = head_of(connection).decode().split("\r\n")[1:-2]
    body = json.dumps(dict(line.split(": ", 1) for line in lines)).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def told(answer: bytes) -> Any:
    """What :func:`mirror` got."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def site(
    lab: Lab, *options: str, handle: Callable[[socket.socket], None] | None = None
) -> tuple[Relay, Program]:
    """A relay with those options, and a service ``site``."""
    relay = lab.relay(*options)
    page = lab.keep(tcp_server(handle or http_answer(PAGE)))
    agent = lab.agent(relay, "--local-http", f"site={page}")
    return relay, agent


# --- certificates --------------------------------------------------------------------------


def test_a_certificate_is_taken_by_name_and_renewed_while_it_runs(lab: Lab) -> None:
    """A browser gets the one for its name; a new file is noticed, and on SIGHUP at once; a broken
    one changes nothing."""
    folder = lab.path / "tls"
    first = write_pair(folder, "a", SITE)
    other = write_pair(folder, "b", "*.other.localhost")
    relay, agent = site(lab, "--tls", str(folder))
    endpoint = agent.event("ready", service="site")["endpoint"]
    assert endpoint == f"https://{SITE}:{relay.port}"
    with connection(relay.port, SITE, trusting(first)) as visitor:
        assert ask(visitor, SITE).endswith(PAGE)
    assert shown(relay.port, "x.other.localhost") == der(other)
    assert ask_plainly(relay.port, SITE).endswith(PAGE)

    old = der(first)
    write_pair(folder, "a", SITE)
    until(lambda: shown(relay.port, SITE) == der(first) != old, "the new certificate")

    renewed = der(first)
    (folder / "a.crt").write_text("half a certif")
    relay.line(r"a\.crt cannot be used: .*the one before is used further")
    assert shown(relay.port, SITE) == renewed

    since = relay.mark
    write_pair(folder, "c", "c.localhost")
    relay.send(signal.SIGHUP)
    relay.line(r"c\.crt, valid until", since)
    assert shown(relay.port, "c.localhost") == der(folder / "c.crt")


def test_agents_that_know_the_relay_by_its_pin_go_on_with_it(lab: Lab) -> None:
    """Certificates that come later are shown to visitors alone."""
    before = lab.relay(domain=DOMAIN)
    pin = before.line(r"--pin (\S+)")[1].strip("'")
    assert before.stop() == 0
    folder = lab.path / "tls"
    certificate = write_pair(folder, "a", DOMAIN, f"*.{DOMAIN}")
    relay = lab.relay("--tls", str(folder), domain=DOMAIN, data_dir=before.data_dir)
    proxy = lab.keep(connect_proxy([]))
    page = lab.keep(tcp_server(http_answer(PAGE)))
    agent = lab.agent(
        f"wss://{DOMAIN}:{relay.port}/tunnel",
        *("--pin", pin, "--local-http", f"site={page}"),
        token=relay.first_token,
        env={"https_proxy": f"http://127.0.0.1:{proxy}"},
    )
    assert agent.event("ready")["endpoint"] == f"https://site.{DOMAIN}:{relay.port}"
    with connection(relay.port, f"site.{DOMAIN}", trusting(certificate)) as visitor:
        assert ask(visitor, f"site.{DOMAIN}").endswith(PAGE)


def test_a_relay_whose_domain_has_a_certificate_needs_no_pin(lab: Lab) -> None:
    """Agents check it as everybody does, and the relay makes none of its own."""
    folder = lab.path / "tls"
    certificate = write_pair(folder, "a", DOMAIN)
    relay = lab.relay("--tls", str(folder), domain=DOMAIN)
    assert "--pin" not in relay.line(r"the relay is ready.*")[0]
    proxy = lab.keep(connect_proxy([]))
    agent = lab.agent(
        f"wss://{DOMAIN}:{relay.port}/tunnel",
        *("--ca-file", str(certificate), "--local-http", "1"),
        token=relay.first_token,
        env={"https_proxy": f"http://127.0.0.1:{proxy}"},
    )
    agent.event("ready")
    assert not (relay.data_dir / "tls.key").exists()


def test_from_http_to_https_and_challenges(lab: Lab) -> None:
    """Visitors are sent on, agents are not; authorities get their answers by HTTP."""
    folder = lab.path / "tls"
    certificate = write_pair(folder, "a", SITE)
    webroot = lab.path / "acme" / ".well-known" / "acme-challenge"
    webroot.mkdir(parents=True)
    (webroot / "token").write_text("token.print")
    relay, agent = site(
        lab,
        *("--tls", str(folder), "--https-redirect", "--hsts", "1d"),
        *("--acme-webroot", str(lab.path / "acme")),
    )
    agent.event("ready")
    answer = ask_plainly(relay.port, SITE, "/x?y=z")
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nlocation: https://%b:%d/x?y=z\r\n" % (SITE.encode(), relay.port) in answer
    assert b"strict-transport-security" not in answer
    answer = ask_plainly(relay.port, "any.host", "/.well-known/acme-challenge/token")
    assert answer.endswith(b"\r\n\r\ntoken.print")
    with connection(relay.port, SITE, trusting(certificate)) as visitor:
        answer = ask(visitor, SITE)
    assert answer.endswith(PAGE)
    assert b"\r\nstrict-transport-security: max-age=86400\r\n" in answer


# --- TLS that is passed on -----------------------------------------------------------------


def tls_service(certificate: Path, proxied: list[bytes]) -> Callable[[socket.socket], None]:
    """A server with TLS of its own, behind a PROXY header."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def handle(connection: socket.socket) -> None:
        seen = connection.recv(V2_BYTES, socket.MSG_PEEK)
        found = read_header(seen)
        assert found is not None
        proxied.append(connection.recv(found[1]))
        with context.wrap_socket(connection, server_side=True) as secure:
            http_answer(PAGE)(secure)

    return handle


def test_tls_reaches_its_service_undecrypted(lab: Lab) -> None:
    """By the name asked for, with the service's own certificate, beside others' that end at the
    relay; the service learns who the visitor is."""
    folder = lab.path / "tls"
    ours = write_pair(folder, "a", SITE)
    theirs = write_pair(lab.path / "vault", "v", "vault.localhost")
    relay = lab.relay("--tls", str(folder))
    proxied: list[bytes] = []
    vault = lab.keep(tcp_server(tls_service(theirs, proxied)))
    page = lab.keep(tcp_server(http_answer(PAGE)))
    agent = lab.agent(
        relay,
        *("--local-tls", f"vault={vault}", "--local-http", f"site={page}"),
        *("--send-proxy", "vault=v2"),
    )
    ready = agent.event("ready", service="vault")
    assert ready["endpoint"] == f"https://vault.localhost:{relay.port}"
    agent.event("ready", service="site")
    with connection(relay.port, "vault.localhost", trusting(theirs)) as visitor:
        source = visitor.getsockname()
        assert ask(visitor, "vault.localhost").endswith(PAGE)
    (header,) = proxied
    found = read_header(header)
    assert found is not None
    assert found[0].source == source
    assert shown(relay.port, SITE) == der(ours)
    agent.kill()
    relay.line(r"parked|disconnected")


def test_a_name_that_nobody_has_is_refused_as_such(lab: Lab) -> None:
    """A relay without any certificate says so in TLS's own words."""
    relay = lab.relay()
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        shown(relay.port, "nobody.localhost")


# --- proxies in front ----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_trusted_proxy_names_its_client(lab: Lab, version: Any) -> None:
    """Before TLS and before HTTP; a stranger's PROXY header is refused."""
    folder = lab.path / "tls"
    write_pair(folder, "a", SITE)
    options = ("--tls", str(folder), "--trusted-proxy", "127.0.0.1/32")
    relay, agent = site(lab, *options, handle=mirror)
    agent.event("ready")
    header = write_header(version, CLIENT, None)
    lie = "X-Forwarded-For: 192.0.2.66"
    fields = told(ask_plainly(relay.port, SITE, "/", lie, before=header))
    assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == (CLIENT[0], "http")
    with connection(relay.port, SITE, before=header) as visitor:
        fields = told(ask(visitor, SITE, "/", lie))
    assert (fields["x-forwarded-for"], fields["x-forwarded-proto"]) == (CLIENT[0], "https")
    fields = told(ask_plainly(relay.port, SITE, "/", lie))
    assert fields["x-forwarded-for"] == "192.0.2.66, 127.0.0.1"

    stranger, agent = site(lab, "--trusted-proxy", "192.0.2.0/24", handle=mirror)
    agent.event("ready")
    assert ask_plainly(stranger.port, SITE, before=header).startswith(b"HTTP/1.1 400 ")
    assert told(ask_plainly(stranger.port, SITE, "/", lie))["x-forwarded-for"] == "127.0.0.1"


def test_a_tcp_service_learns_who_the_visitor_is(lab: Lab) -> None:
    """By a PROXY header of the version that was asked for, and nothing else is added."""
    relay = lab.relay()

    def repeat(connection: socket.socket) -> None:
        connection.sendall(connection.recv(65536))

    service = lab.keep(tcp_server(repeat))
    agent = lab.agent(relay, "--local-tcp", f"db={service}", "--send-proxy", "v1")
    parts = urlsplit(agent.event("ready", service="db")["endpoint"])
    assert parts.port is not None
    with socket.create_connection(("127.0.0.1", parts.port), timeout=DEADLINE) as visitor:
        host, port = visitor.getsockname()
        expected = f"PROXY TCP4 {host} 127.0.0.1 {port} {service}\r\n".encode()
        got = b""
        while len(got) < len(expected):
            data = visitor.recv(65536)
            assert data
            got += data
    assert got == expected


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
    except OSError:
        return False
    return True


CADDYFILE = """
{{
    admin off
    auto_https disable_redirects
    http_port {spare}
}}
https://{site}:{port} {{
    bind 127.0.0.1
    tls {certificate} {key}
    reverse_proxy 127.0.0.1:{relay}
}}
"""

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen tls
    bind 127.0.0.1:{port}
    server relay 127.0.0.1:{relay} send-proxy-v2
"""


@pytest.mark.programs
@pytest.mark.parametrize("program", ["caddy", "haproxy"])
def test_real_proxies_in_front(lab: Lab, program: str) -> None:
    """Caddy that speaks HTTP, and haproxy that passes TLS on: the service learns who asks, and by
    what, though many requests share the proxy's connections."""
    need(program, "curl")
    folder = lab.path / "tls"
    certificate = write_pair(folder, "a", SITE)
    options = ("--tls", str(folder), "--trusted-proxy", "127.0.0.1")
    relay, agent = site(lab, *options, handle=mirror)
    agent.event("ready")
    port = free_port()
    values = {
        "site": SITE,
        "port": port,
        "spare": free_port(),
        "relay": relay.port,
        "certificate": certificate,
        "key": certificate.with_suffix(".key"),
    }
    config = lab.path / "proxy.conf"
    config.write_text((CADDYFILE if program == "caddy" else HAPROXY).format(**values))
    words = ["run", "--adapter", "caddyfile", "--config"] if program == "caddy" else ["-db", "-f"]
    home = {"HOME": str(lab.path), "XDG_DATA_HOME": str(lab.path), "XDG_CONFIG_HOME": str(lab.path)}
    lab.spawn(program, [which(program), *words, str(config)], env=home)
    until(lambda: answers(port), f"{program} listens")
    for source in ("127.0.0.1", "127.0.0.5"):
        done = run(
            *("curl", "-sS", "--fail", "--interface", source, "--cacert", certificate),
            *("--resolve", f"{SITE}:{port}:127.0.0.1", "-H", "X-Forwarded-For: 192.0.2.66"),
            f"https://{SITE}:{port}/",
        )
        assert done.returncode == 0, done.stderr
        fields = json.loads(done.stdout)
        # Caddy is told of nobody who could speak for its clients; haproxy says it by PROXY.
        chain = f"{source}, 127.0.0.1" if program == "caddy" else source
        if program == "haproxy" and source == "127.0.0.1":
            chain = "192.0.2.66, 127.0.0.1"  # A client who is trusted by itself.
        assert fields["x-forwarded-for"] == chain
        assert fields["x-forwarded-proto"] == "https"


def test_agents_come_by_a_proxy_that_passes_tls_on(lab: Lab) -> None:
    """The log has the agent's own address, not the proxy's."""
    folder = lab.path / "tls"
    certificate = write_pair(folder, "a", "localhost")
    relay = lab.relay("--tls", str(folder), "--trusted-proxy", "127.0.0.1")

    def forward(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", relay.port)) as server:
            server.sendall(write_header("v2", CLIENT, None))
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join()

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    port = lab.keep(tcp_server(forward))
    agent = lab.agent(
        f"wss://localhost:{port}/tunnel",
        *("--ca-file", str(certificate), "--local-http", "1"),
        token=relay.first_token,
    )
    agent.event("ready")
    relay.line(rf"connected from {CLIENT[0]}:{CLIENT[1]}")
