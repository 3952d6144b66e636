"""The tunnels over a link of our own: the server in ``edge``, the client in ``site``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.measure import LOOPBACK, BenchError, Program, Programs
from bench.netns import EDGE_IP, Link, inside, words_in
from bench.peers import SRRRS_LAUNCH, find, need, srrrs_endpoints, srrrs_reactor

CONTROL: Final = 7000
"""Where the server takes clients; the ports of a namespace are all ours."""
FIRST: Final = 7100
"""Where visitors reach the first local port."""
_SECRET: Final = "bench-of-tunnels"

Start = Callable[[Link, Programs, list[int]], list[int]]


@dataclass(frozen=True)
class LinkPeer:
    """A tunnel: its programs, and what publishes ports of ``site`` on loopback of ``edge``."""

    name: str
    needs: tuple[str, ...]
    start: Start


def _run(
    link: Link, programs: Programs, namespace: str, words: list[str | Path], port: int = 0
) -> Program:
    program = programs.start(words_in(namespace, words), {"RUST_LOG": "error"})
    if port:
        with inside(namespace):
            program.wait_port(port, EDGE_IP if port == CONTROL else LOOPBACK)
    return program


def start_srrrs(link: Link, programs: Programs, local: list[int]) -> list[int]:
    launch = [sys.executable, *SRRRS_LAUNCH, *srrrs_reactor()]
    words: list[str | Path] = [*launch, "relay", "--log-level", "warn"]
    words += ["--listen", f"tcp:{CONTROL}:interface={EDGE_IP}"]
    words += ["--data-dir", programs.path / "relay", "--tcp-ports", f"{FIRST}-{FIRST + 8}"]
    words += ["--tcp-interface", LOOPBACK]
    _run(link, programs, link.edge, words, CONTROL)
    words = [*launch, "agent", "--json", "--log-level", "warn"]
    # The link is nobody else's; TLS would change nothing of what is measured.
    words += ["--insecure", "--edge-url", f"ws://{EDGE_IP}:{CONTROL}/tunnel"]
    words += ["--auth-token", f"file:{programs.path / 'relay' / 'first.token'}"]
    for number, port in enumerate(local):
        words += ["--local-tcp", f"p{number}={LOOPBACK}:{port}"]
    agent = _run(link, programs, link.site, words)
    names = [f"p{number}" for number in range(len(local))]
    endpoints = srrrs_endpoints(agent, names)
    return [int(endpoints[name].rpartition(":")[2]) for name in names]


def start_frp(link: Link, programs: Programs, local: list[int]) -> list[int]:
    server = programs.write(
        "frps.toml",
        f'bindAddr = "{EDGE_IP}"\nbindPort = {CONTROL}\nproxyBindAddr = "{LOOPBACK}"\n'
        f'auth.token = "{_SECRET}"\nlog.level = "error"\n',
    )
    text = (
        f'serverAddr = "{EDGE_IP}"\nserverPort = {CONTROL}\nauth.token = "{_SECRET}"\n'
        'log.level = "error"\n'
    )
    for number, port in enumerate(local):
        text += (
            f'[[proxies]]\nname = "p{number}"\ntype = "tcp"\nlocalIP = "{LOOPBACK}"\n'
            f"localPort = {port}\nremotePort = {FIRST + number}\n"
        )
    _run(link, programs, link.edge, [need("frps"), "-c", server], CONTROL)
    client = programs.write("frpc.toml", text)
    _run(link, programs, link.site, [need("frpc"), "-c", client])
    return _published(link, programs, len(local))


def start_chisel(link: Link, programs: Programs, local: list[int]) -> list[int]:
    program = need("chisel")
    words: list[str | Path] = [program, "server", "--reverse", "--host", EDGE_IP]
    _run(link, programs, link.edge, [*words, "--port", str(CONTROL)], CONTROL)
    words = [program, "client", f"http://{EDGE_IP}:{CONTROL}"]
    for number, port in enumerate(local):
        words.append(f"R:{LOOPBACK}:{FIRST + number}:{LOOPBACK}:{port}")
    _run(link, programs, link.site, words)
    return _published(link, programs, len(local))


def start_rathole(link: Link, programs: Programs, local: list[int]) -> list[int]:
    server = f'[server]\nbind_addr = "{EDGE_IP}:{CONTROL}"\ndefault_token = "{_SECRET}"\n'
    client = f'[client]\nremote_addr = "{EDGE_IP}:{CONTROL}"\ndefault_token = "{_SECRET}"\n'
    for number, port in enumerate(local):
        server += f'[server.services.p{number}]\nbind_addr = "{LOOPBACK}:{FIRST + number}"\n'
        client += f'[client.services.p{number}]\nlocal_addr = "{LOOPBACK}:{port}"\n'
    program = need("rathole")
    one = programs.write("server.toml", server)
    two = programs.write("client.toml", client)
    _run(link, programs, link.edge, [program, "--server", one], CONTROL)
    _run(link, programs, link.site, [program, "--client", two])
    return _published(link, programs, len(local))


def _published(link: Link, programs: Programs, count: int) -> list[int]:
    ports = [FIRST + number for number in range(count)]
    with inside(link.edge):
        for port in ports:
            programs.running[-1].wait_port(port)
    return ports


PEERS: Final = (
    LinkPeer("srrrs", (), start_srrrs),
    LinkPeer("frp", ("frps", "frpc"), start_frp),
    LinkPeer("chisel", ("chisel",), start_chisel),
    LinkPeer("rathole", ("rathole",), start_rathole),
)


def choose(names: list[str] | None) -> list[LinkPeer]:
    """Those of ``names``, or all whose programs are here. :raises BenchError: one is not."""
    if names is None:
        return [peer for peer in PEERS if all(find(each) for each in peer.needs)]
    chosen = []
    for name in names:
        found = [peer for peer in PEERS if peer.name == name]
        if not found or not all(find(each) for each in found[0].needs):
            raise BenchError(f"no peer {name!r} here: one of {', '.join(p.name for p in PEERS)}")
        chosen += found
    return chosen
