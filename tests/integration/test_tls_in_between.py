"""nginx ends the agent's TLS and begins another to the relay: no frame may lose its mask.

A proxy that reads WebSocket frames is what masks are there for (RFC 6455, 10.3).
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.integration.certificates import write_certificate
from tests.integration.harness import (
    Lab,
    exchange,
    free_port,
    hash_of_all,
    need,
    tcp_server,
    until,
    which,
)
from tests.integration.test_nginx import listens

pytestmark = pytest.mark.integration

SIZE = 4 * 1024 * 1024


class Wire:
    """What an agent sends, as it comes out of nginx."""

    def __init__(self) -> None:
        self.data = bytearray()

    @contextlib.contextmanager
    def to(self, target: int) -> Iterator[int]:
        """A way to the relay at that port on which all is noted; its port."""

        def handle(client: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", target)) as server:
                back = threading.Thread(target=copy, args=(server, client, None), daemon=True)
                back.start()
                copy(client, server, self.data)
                back.join()

        with tcp_server(handle) as port:
            yield port

    def masks(self) -> list[bool]:
        """Of each data frame that has come whole, after the opening handshake."""
        data = bytes(self.data)
        pos = data.index(b"\r\n\r\n") + 4
        found = []
        while pos + 14 <= len(data):
            opcode, masked, size = data[pos] & 15, data[pos + 1] >> 7, data[pos + 1] & 127
            head = 2
            if size > 125:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[pos + 2 : pos + head], "big")
            if opcode < 8:
                found.append(bool(masked))
            pos += head + 4 * masked + size
        return found


def copy(source: socket.socket, sink: socket.socket, note: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if note is not None:
                note += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def nginx_config(folder: str, port: int, certificate: str, key: str, target: str) -> str:
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    return f"""
        daemon off; {user} error_log stderr; pid {folder}/nginx.pid;
        events {{ worker_connections 64; }}
        http {{
            access_log off; {temporary}
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate}; ssl_certificate_key {key};
                location / {{
                    proxy_pass {target};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                    proxy_set_header Host localhost;
                    proxy_read_timeout 1h;
                }}
            }}
        }}
    """


@pytest.mark.parametrize("inner_tls", [False, True], ids=["plain inside", "TLS inside"])
def test_masks_stay_on_where_nginx_ends_tls(lab: Lab, inner_tls: bool) -> None:
    """Whether it goes on to the relay in the clear (here every frame is looked at) or over a TLS
    connection of its own, whose exporter is another (the relay takes no bare frame then)."""
    need("nginx")
    listen, pin = write_certificate(lab.path, "localhost")
    relay = lab.relay(listen=listen) if inner_tls else lab.relay()
    wire = Wire()
    inner = relay.port if inner_tls else lab.keep(wire.to(relay.port))
    port = free_port()
    config = lab.path / "nginx.conf"
    target = f"{'https' if inner_tls else 'http'}://127.0.0.1:{inner}"
    own = (str(lab.path / "own.crt"), str(lab.path / "own.key"))
    config.write_text(nginx_config(str(lab.path), port, *own, target))
    lab.spawn("nginx", [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)])
    until(lambda: listens(port), "nginx")
    service = lab.keep(tcp_server(hash_of_all))
    agent = lab.agent(
        f"wss://localhost:{port}/tunnel",
        *("--pin", pin, "--local-tcp", f"hash=127.0.0.1:{service}"),
        token=relay.first_token,
    )
    endpoint = agent.event("ready", service="hash")["endpoint"]
    data = os.urandom(SIZE)
    assert exchange(endpoint, data).decode() == hashlib.sha256(data).hexdigest()
    if not inner_tls:
        until(lambda: len(wire.masks()) > 3, "frames of the agent")
        assert all(wire.masks())
    assert relay.count("without a mask") == 0
