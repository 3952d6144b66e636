"""Policies, error pages and the access log of a relay and an agent that run."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import struct
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.harness import DEADLINE, Lab, Program, Relay, exchange, tcp_server, until

pytestmark = [pytest.mark.integration]

PASSWORD = "correct horse battery"
COOKIE = "a-cookie-that-nobody-sees"


def mirror(connection: socket.socket) -> None:
    """Answers a request with itself; ``/part`` with a part of an answer; an upgrade with a 101 and
    then what it is sent, once."""
    connection.settimeout(DEADLINE)
    request = b""
    while b"\r\n\r\n" not in request:
        data = connection.recv(65536)
        if not data:
            return
        request += data
    if request.startswith(b"GET /part "):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
        connection.recv(1)
    elif b"\r\nupgrade: echo\r\n" in request.lower():
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        connection.sendall(connection.recv(100))
    else:
        head = b"HTTP/1.1 200 OK\r\nServer: mirror\r\nContent-Length: %d\r\n" % len(request)
        connection.sendall(head + b"Connection: close\r\n\r\n" + request)


class Site:
    """A relay, an agent that publishes the mirror under several names, and their log."""

    def __init__(self, lab: Lab, relay_options: tuple[str, ...], *options: str) -> None:
        self.log = lab.path / "access.log"
        self.relay: Relay = lab.relay("--access-log", str(self.log), *relay_options)
        self.mirror = lab.keep(tcp_server(mirror))
        names = {option.partition("=")[0] for option in options if not option.startswith("-")}
        services = [f"--local-http={name}={self.mirror}" for name in {"plain", *names} - {"db"}]
        self.agent: Program = lab.agent(
            self.relay, *services, f"--local-tcp=db={self.mirror}", *options
        )
        lab.secrets.update({PASSWORD, COOKIE, base64.b64encode(PASSWORD.encode()).decode()})

    def endpoint(self, name: str) -> str:
        """The address of a service."""
        return str(self.agent.event("ready", service=name)["endpoint"])

    def ask(
        self,
        name: str,
        path: str = "/",
        fields: dict[str, str] | None = None,
        password: str | None = None,
        body: bytes | None = None,
    ) -> tuple[int, dict[str, str], str]:
        """A request: the status, fields and body of its answer."""
        parts = urlsplit(self.endpoint(name))
        sent = {"Host": parts.netloc, **(fields or {})}
        if password is not None:
            sent["Authorization"] = (
                "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()
            )
        connection = HTTPConnection("127.0.0.1", self.relay.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body, sent)
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return response.status, found, response.read().decode("latin-1")

    def lines(self, true: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        """The lines of the log, as soon as there are such."""

        def found() -> list[dict[str, Any]]:
            entries = [json.loads(line) for line in self.log.read_text().splitlines()]
            return [entry for entry in entries if true(entry)]

        return list(until(found, "a line of the access log"))


def test_policies(lab: Lab) -> None:
    """Passwords right, wrong and missing; lists of networks for HTTP and TCP; rates; rewritten
    fields; sizes; and no secret in any log at debug level."""
    users = lab.path / "users"
    users.write_text(f"alice:{PASSWORD}\n")
    site = Site(
        lab,
        (),
        *("--basic-auth", f"locked=file:{users}"),
        *("--rate-limit", "slow=1/h:2"),
        *("--deny-ip", "shut=127.0.0.0/8", "--allow-ip", "db=192.0.2.0/24"),
        *("--host-header", "edited=inner.example:3000"),
        *("--request-header", "edited=X-Added: yes, it is", "--request-header", "edited=-Cookie"),
        *("--response-header", "edited=-Server", "--response-header", "edited=X-Also: this"),
        *("--max-body", "small=10"),
    )
    status, fields, _ = site.ask("locked")
    assert (status, fields["www-authenticate"]) == (401, 'Basic realm="locked", charset="UTF-8"')
    assert site.ask("locked", password="wrong")[0] == 401
    for _ in range(2):
        status, _, seen = site.ask("locked", password=PASSWORD)
        assert status == 200
        assert "authorization" not in seen
    assert site.ask("plain", fields={"Authorization": "Bearer mine"})[2].count("Bearer mine") == 1
    assert [site.ask("slow")[0] for _ in range(2)] == [200, 200]
    status, fields, _ = site.ask("slow")
    assert (status, 1700 < int(fields["retry-after"]) <= 3600) == (429, True)
    assert site.ask("shut")[0] == 403
    with pytest.raises(ConnectionResetError):
        exchange(site.endpoint("db"), b"GET / HTTP/1.1\r\n\r\n")
    status, fields, seen = site.ask("edited", fields={"Cookie": COOKIE})
    assert (status, fields.get("server"), fields["x-also"]) == (200, None, "this")
    assert "host: inner.example:3000\r\n" in seen
    assert f"x-forwarded-host: {urlsplit(site.endpoint('edited')).netloc}\r\n" in seen
    assert "x-added: yes, it is\r\n" in seen
    assert COOKIE not in seen
    assert [site.ask("small", body=b"x" * size)[0] for size in (10, 11)] == [200, 413]
    # Also of those who were turned away; what they sent with it is not in it.
    (denied,) = site.lines(lambda entry: entry["kind"] == "tcp")
    assert (denied["closed"], denied["visitor"]) == ("turned away by a policy", "127.0.0.1")
    assert denied["port"] == urlsplit(site.endpoint("db")).port
    site.lines(lambda entry: entry["status"] == 413 if "status" in entry else False)
    assert not lab.leaks(site.log.read_text())


def test_what_the_relay_does_not_allow_is_refused(lab: Lab) -> None:
    """The service is not served without what its agent asked for; others are."""
    site = Site(
        lab, ("--policies", "rate", "--max-request-body", "5"), "--deny-ip", "shut=192.0.2.1"
    )
    refused = site.agent.event("refused", service="shut")
    assert refused["reason"] == "policy"
    assert refused["message"] == "this relay allows no policy of ip"
    assert site.ask("plain", body=b"x" * 6)[0] == 413


def test_the_owners_pages(lab: Lab) -> None:
    """And SIGHUP, after which they are read again and the log goes on in a new file."""
    pages = lab.path / "pages"
    pages.mkdir()
    (pages / "4xx.html").write_text("nothing, says the owner")
    site = Site(lab, ("--error-pages", str(pages)))
    site.endpoint("plain")
    host = {"Host": "nobody.localhost"}
    assert site.ask("plain", fields=host)[::2] == (404, "nothing, says the owner")
    (pages / "404.html").write_text("still nothing")
    site.lines(lambda entry: entry.get("status") == 404)
    site.log.rename(lab.path / "access.log.1")
    mark = site.relay.mark
    site.relay.send(signal.SIGHUP)
    site.relay.line("error pages were read", mark)
    assert site.ask("plain", fields=host)[2] == "still nothing"
    until(site.log.exists, "a new log")
    (line,) = site.lines(lambda entry: entry["host"] == "nobody.localhost")
    assert line["service"] == ""


def test_the_access_log(lab: Lab) -> None:
    """A request, one that was broken off, an upgraded connection and a TCP connection: one line
    each, under the ids that the service and the agent know, too."""
    site = Site(lab, ())
    _, _, seen = site.ask("plain", "/a?b=c", body=b"12345")
    (line,) = site.lines(lambda entry: entry.get("path") == "/a?b=c")
    assert f"x-request-id: {line['id']}\r\n" in seen
    assert line["kind"] == "request"
    assert line["token"] == "default"
    assert (line["method"], line["status"], line["received"]) == ("POST", 200, 5)
    assert (line["sent"], line["closed"]) == (len(seen), "done")
    assert 0 <= line["first_byte"] <= line["duration"]
    site.agent.line(rf"plain: a visitor, {line['id'].partition('-')[0]}")

    host = urlsplit(site.endpoint("plain")).netloc.encode()
    visitor = socket.create_connection(("127.0.0.1", site.relay.port), timeout=DEADLINE)
    visitor.sendall(b"GET /part HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    until(lambda: b"part" in visitor.recv(65536, socket.MSG_PEEK), "a part of an answer")
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.close()
    (line,) = site.lines(lambda entry: entry.get("path") == "/part")
    assert (line["status"], line["sent"], line["closed"]) == (200, 4, "the visitor went away")

    with socket.create_connection(("127.0.0.1", site.relay.port), timeout=DEADLINE) as visitor:
        visitor.sendall(
            b"GET /up HTTP/1.1\r\nHost: " + host + b"\r\nConnection: upgrade\r\nUpgrade: echo\r\n"
            b"Cookie: " + COOKIE.encode() + b"\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += visitor.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        visitor.sendall(b"hello")
        while chunk := visitor.recv(65536):
            answer += chunk
        assert answer.endswith(b"\r\n\r\nhello")
    (line,) = site.lines(lambda entry: entry.get("path") == "/up")
    assert (line["status"], line["received"], line["sent"]) == (101, 5, 5)

    # And what is no request: what it said is not repeated.
    assert b" 400 " in exchange(
        f"tcp://127.0.0.1:{site.relay.port}", b"GET / HTTP/1.1\r\na\r\n\r\n"
    )
    (line,) = site.lines(lambda entry: entry.get("status") == 400)
    assert (line["method"], line["path"], line["visitor"]) == ("-", "-", "127.0.0.1")

    answer = exchange(site.endpoint("db"), b"GET / HTTP/1.1\r\n\r\n")
    (line,) = site.lines(lambda entry: entry["kind"] == "tcp")
    assert (line["service"], line["received"], line["sent"]) == ("db", 18, len(answer))
    assert line["closed"] == "done"
    assert line["port"] == urlsplit(site.endpoint("db")).port
    site.agent.line(rf"db: a visitor, {line['id']}")
    assert not lab.leaks(site.log.read_text())


def test_what_was_logged_last(lab: Lab) -> None:
    """A relay that is stopped writes down what its visitors have just done."""
    site = Site(lab, ("--access-log-format", "combined", "--drain", "0s"))
    assert site.ask("plain", "/last", {"User-Agent": 'a "b"'})[0] == 200
    assert site.relay.stop() == 0
    line = site.log.read_text()
    assert '"GET /last HTTP/1.1" 200 ' in line
    assert line.endswith('"-" "a \\x22b\\x22"\n')


def test_a_log_that_cannot_be_opened(lab: Lab, tmp_path: Path) -> None:
    """Is told at the start, in one line."""
    from tests.integration.harness import run, tunnel_command

    done = run(
        *tunnel_command("relay", "--listen", "tcp:0:interface=127.0.0.1"),
        *("--data-dir", str(tmp_path), "--access-log", str(tmp_path / "missing" / "log")),
    )
    assert done.returncode == 1
    assert b"the error pages or the access log: " in done.stderr
    assert b"Traceback" not in done.stderr
