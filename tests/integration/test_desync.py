"""Nothing that is passed on is read by nginx or haproxy as other requests than we read."""

from __future__ import annotations

import getpass
import os
import re
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.edge.corpuskit import pass_through_edge
from tests.http.corpus import REQUESTS, Case
from tests.http.passing import Passed, mutations
from tests.integration.harness import DEADLINE, Lab, free_port, need, until, which

pytestmark = [pytest.mark.integration, pytest.mark.programs]

# Of final responses; no page holds such a line.
STATUS = re.compile(rb"(?:\A|(?<=\n))HTTP/1\.[01] ([2-5]\d\d) ")
SEEN = re.compile(rb"\r\nX-Seen: -([^\r\n]*)-\r\n", re.IGNORECASE)


def nginx(lab: Lab) -> int:
    """An nginx that says of each request how it read it; its port."""
    port = free_port()
    folder = lab.path / "nginx"
    folder.mkdir()
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; {user} worker_processes 1; error_log stderr crit; pid {folder}/nginx.pid;
        events {{ worker_connections 256; }}
        http {{
            access_log off; {temporary}
            keepalive_requests 100000; lingering_close off;
            large_client_header_buffers 4 64k;
            server {{
                listen 127.0.0.1:{port};
                add_header X-Seen "-$request_method $request_uri-" always;
                location / {{ return 200 "seen\\n"; }}
            }}
        }}
        """
    )
    lab.spawn("nginx", [which("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config)])
    until(lambda: listens(port), "nginx")
    return port


def haproxy(lab: Lab, backend: int) -> int:
    """A haproxy before it; its port."""
    port = free_port()
    config = lab.path / "haproxy.cfg"
    config.write_text(
        f"""
global
    maxconn 256
    tune.bufsize 65536
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
    option http-keep-alive
    http-reuse safe
listen front
    bind 127.0.0.1:{port}
    server nginx 127.0.0.1:{backend}
"""
    )
    lab.spawn("haproxy", [which("haproxy"), "-db", "-f", str(config)])
    until(lambda: listens(port), "haproxy")
    return port


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def ask(port: int, passed: Passed) -> tuple[bytes, bool]:
    """All that a server answers on one connection: to the whole requests, and, once nothing more
    comes, to what is left; and whether it ended the connection before."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        try:
            connection.sendall(passed.data)
            # haproxy drops requests that wait where it has seen the end.
            while len(STATUS.findall(answer)) < passed.complete:
                piece = connection.recv(65536)
                if not piece:
                    return answer, True
                answer += piece
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            return answer, True
    return answer, False


def check(port: int, passed: Passed) -> None:
    """The server saw what we read: the same requests in their order, each once.

    It may refuse one of them, and then sees none after it.
    """
    answer, broken = ask(port, passed)
    statuses = [int(status) for status in STATUS.findall(answer)]
    seen = SEEN.findall(answer)
    # A refusal comes without the request, or with it.
    refused = [status for status in statuses if status >= 400]
    taken = seen[: len(seen) - len(refused)] if len(seen) == len(statuses) else seen
    assert taken == passed.requests[: len(taken)], (passed.data, answer)
    assert len(statuses) <= len(passed.requests), (passed.data, answer)
    assert len(refused) <= 1
    if not refused and not broken:
        assert len(taken) >= passed.complete, (passed.data, answer)


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_servers_read_what_we_read(lab: Lab, server: str) -> None:
    """The whole corpus, each message as it is passed on."""
    port = start(lab, server)
    for case in REQUESTS:
        for passed in pass_through_edge(case.data):
            check(port, passed)


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_servers_read_mutations_as_we_do(lab: Lab, server: str) -> None:
    """The corpus with bytes put in and taken out."""
    port = start(lab, server)

    @settings(max_examples=300, database=None)
    @given(st.sampled_from([case for case in REQUESTS if len(case.data) < 1000]), st.data())
    def mutated(case: Case, draw: st.DataObject) -> None:
        for passed in pass_through_edge(draw.draw(mutations(case.data))):
            check(port, passed)

    mutated()


def start(lab: Lab, server: str) -> int:
    need("nginx", server)
    port = nginx(lab)
    return haproxy(lab, port) if server == "haproxy" else port


def test_the_comparison_notices(lab: Lab) -> None:
    """A request hidden in another is found where it was not read here: what is shown above is not
    that nothing is ever seen."""
    need("nginx")
    port = nginx(lab)
    hidden = b"GET /hidden HTTP/1.1\r\nhost: a.example\r\n\r\n"
    data = b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n" + hidden
    with pytest.raises(AssertionError):
        check(port, Passed(data, [b"GET /"], 1))
    check(port, Passed(data, [b"GET /", b"GET /hidden"], 2))
