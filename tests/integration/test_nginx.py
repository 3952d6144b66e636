"""nginx behind an agent, curl as the visitor, and the pages that the relay gives by itself."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.harness import (
    Lab,
    Program,
    Relay,
    free_port,
    need,
    random_file,
    run,
    sha256,
    until,
    which,
)

pytestmark = [pytest.mark.integration, pytest.mark.programs]

LARGE = 64 * 1024 * 1024
CONCURRENT = 200
EACH = 200 * 1024


@dataclass
class Site:
    """nginx behind a tunnel.

    :ivar root: the folder that it serves; below ``up/`` it takes PUT.
    :ivar url: its public address, with no slash at the end.
    """

    root: Path
    url: str
    relay: Relay
    agent: Program


def nginx_config(folder: Path, port: int) -> str:
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/temp-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    return f"""
        daemon off; {user} worker_processes 2; error_log stderr; pid {folder}/nginx.pid;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; client_max_body_size 0; {temporary}
            server {{
                listen 127.0.0.1:{port} backlog=512;
                root {folder}/root;
                location /up/ {{ dav_methods PUT; }}
            }}
        }}
    """


def curl(url: str, *options: str | Path) -> tuple[int, bytes]:
    """Status and body; the name is resolved to this machine, as the public DNS would."""
    parts = urlsplit(url)
    done = run(
        *("curl", "-sS", "--noproxy", "*", "-w", "%{stderr}%{http_code}"),
        *("--resolve", f"{parts.hostname}:{parts.port}:127.0.0.1", *options, url),
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr), done.stdout


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def site(lab: Lab) -> Site:
    """A relay, an agent with ``--local-http site=…`` and nginx behind it."""
    need("nginx", "curl")
    root = lab.path / "root"
    (root / "up").mkdir(parents=True)
    (root / "index.html").write_text("a page by nginx\n")
    port = free_port()
    config = lab.path / "nginx.conf"
    config.write_text(nginx_config(lab.path, port))
    words = [which("nginx"), "-p", str(lab.path), "-e", "stderr", "-c", str(config)]
    lab.spawn("nginx", words)
    until(lambda: listens(port), "nginx")
    relay = lab.relay()
    agent = lab.agent(relay, "--local-http", f"site=127.0.0.1:{port}")
    url = agent.event("ready", service="site")["endpoint"]
    assert url == f"http://site.localhost:{relay.port}"
    return Site(root, url, relay, agent)


def test_a_page_a_large_download_and_an_upload_by_hash(lab: Lab, site: Site) -> None:
    """By its subdomain the site is nginx's own: a page, 64 MiB down, 64 MiB up."""
    assert curl(f"{site.url}/") == (200, b"a page by nginx\n")
    assert curl(f"{site.url}/nothing")[0] == 404

    expected = random_file(site.root / "large.bin", LARGE)
    fetched = lab.path / "fetched.bin"
    assert curl(f"{site.url}/large.bin", "-o", fetched)[0] == 200
    assert sha256(fetched) == expected

    expected = random_file(fetched, LARGE)
    assert curl(f"{site.url}/up/sent.bin", "-T", fetched)[0] == 201
    assert sha256(site.root / "up" / "sent.bin") == expected


def test_200_concurrent_downloads_each_get_their_own_bytes(lab: Lab, site: Site) -> None:
    """200 visitors at once, each with a file of its own: every hash is right."""
    expected = {}
    lines = [f'resolve = "{urlsplit(site.url).netloc}:127.0.0.1"', "fail", 'noproxy = "*"']
    for number in range(CONCURRENT):
        name = f"{number}.bin"
        expected[name] = random_file(site.root / name, EACH)
        lines += [f'url = "{site.url}/{name}"', f'output = "{lab.path}/got-{name}"']
    config = lab.path / "curl.conf"
    config.write_text("\n".join(lines) + "\n")
    done = run(
        *("curl", "-sS", "--parallel", "--parallel-immediate"),
        *("--parallel-max", str(CONCURRENT), "-K", config),
    )
    assert done.returncode == 0, done.stderr
    assert {name: sha256(lab.path / f"got-{name}") for name in expected} == expected


def test_pages_of_the_relay_itself(lab: Lab) -> None:
    """A site that is not up: 502. A device that is away: 503 with Retry-After. A name that nobody
    has: 404. The relay's own host is the relay's."""
    need("curl")
    # Without a grace time a device is away at once.
    relay = lab.relay("--session-grace", "0s")
    agent = lab.agent(relay, "--local-http", f"site=127.0.0.1:{free_port()}")
    url = agent.event("ready", service="site")["endpoint"]
    status, page = curl(f"{url}/")
    assert status == 502
    assert b"Traceback" not in page

    assert curl(f"http://nobody.localhost:{relay.port}/")[0] == 404
    assert curl(f"http://localhost:{relay.port}/")[0] == 200
    assert curl(f"http://localhost:{relay.port}/nothing")[0] == 404

    agent.kill()
    relay.line(r"disconnected:")
    status, answer = curl(f"{url}/", "-i")
    assert status == 503
    assert b"\r\nretry-after: " in answer.lower()


def test_an_agent_comes_and_goes_in_good_order(lab: Lab, site: Site) -> None:
    """SIGTERM ends an agent with status 0 and its site with it; another one brings it back."""
    assert site.agent.stop() == 0
    site.agent.event("stopped")
    assert curl(f"{site.url}/")[0] == 503
    assert site.relay.stop() == 0
