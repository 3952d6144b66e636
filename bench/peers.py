"""The tunnels that are compared: how each publishes two local ports.

A peer is used where its programs are on ``PATH``. All are left at their defaults but for what
makes the work the same: no compression, no limits of rate, no logging of connections.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.measure import LOOPBACK, BenchError, Program, Programs, certificate, free_port

PATH: Final = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/peers/bin"]
)
PLAIN, TLS = "plain", "TLS"
_SECRET: Final = "bench-of-tunnels"


@dataclass
class Published:
    """A tunnel that stands.

    :ivar ports: on loopback, where visitors reach the local ports, in their order.
    :ivar programs: the tunnel's own processes: all of its two ends.
    :ivar host: the port at which HTTP visitors reach the second local port by host name, and the
        name; ``None``: the tunnel was not asked to, or cannot.
    """

    ports: list[int]
    programs: list[Program] = field(default_factory=list)
    host: tuple[int, str] | None = None


Start = Callable[[Programs, list[int], bool], Published]


@dataclass(frozen=True)
class Peer:
    """A tunnel that can be compared.

    :ivar needs: programs that it consists of.
    :ivar modes: in which tables it stands.
    :ivar start: publishes local ports; its last argument is whether over TLS.
    :ivar limit: it is no tunnel but what stands for the most that is possible, so that no ratio
        counts it as the best peer.
    """

    name: str
    needs: tuple[str, ...]
    modes: tuple[str, ...]
    start: Start
    limit: bool = False

    @property
    def found(self) -> bool:
        """Whether its programs are here."""
        return all(find(each) for each in self.needs)


def find(program: str) -> str | None:
    """The path of a program."""
    return shutil.which(program, path=PATH)


def need(program: str) -> str:
    """The path of a program that must be here. :raises BenchError: it is not."""
    found = find(program)
    if found is None:
        raise BenchError(f"{program} is not installed")
    return found


# --- srrrs ------------------------------------------------------------------------------

SRRRS_LAUNCH: Final = ("-m", "srrrs.cli")


def srrrs_relay(
    programs: Programs,
    port: int,
    tls: bool,
    *options: str,
    launch: tuple[str, ...] = SRRRS_LAUNCH,
    tcp_ports: int = 8,
) -> Program:
    """A relay that listens on ``port``; its data lies in ``relay`` of the programs' folder."""
    listen = f"tcp:{port}:interface={LOOPBACK}"
    if tls:
        cert, key = certificate(programs.path)
        listen = f"ssl:{port}:interface={LOOPBACK}:privateKey={key}:certKey={cert}"
    low = free_port(tcp_ports)
    words = [sys.executable, *launch, *srrrs_reactor(), "relay", "--listen", listen]
    words += ["--data-dir", str(programs.path / "relay"), "--log-level", "warn"]
    words += ["--tcp-ports", f"{low}-{low + tcp_ports - 1}", *options]
    relay = programs.start(words)
    relay.wait_port(port)
    return relay


def srrrs_reactor() -> list[str]:
    """The option that picks the reactor which ``BENCH_REACTOR`` names, if it names one."""
    name = os.environ.get("BENCH_REACTOR")
    return ["--reactor", name] if name else []


def srrrs_agent(
    programs: Programs,
    port: int,
    tls: bool,
    *options: str,
    launch: tuple[str, ...] = SRRRS_LAUNCH,
) -> Program:
    """An agent of the relay that listens on ``port``, with the relay's first token."""
    words = [sys.executable, *launch, *srrrs_reactor(), "agent", "--json", *options]
    words += ["--edge-url", f"{'wss' if tls else 'ws'}://localhost:{port}/tunnel"]
    words += ["--auth-token", f"file:{programs.path / 'relay' / 'first.token'}"]
    words += ["--log-level", "warn"]
    if tls:
        words += ["--ca-file", str(certificate(programs.path)[0])]
    return programs.start(words)


def srrrs_endpoints(agent: Program, names: list[str]) -> dict[str, str]:
    """Where the agent's services are reached, by their names."""
    import json

    for name in names:
        agent.wait_text(f'"service": "{name}"')
    found: dict[str, str] = {}
    for line in agent.output.splitlines():
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("event") == "ready":
                found[event["service"]] = event["endpoint"]
    missing = [name for name in names if name not in found]
    if missing:
        raise BenchError(f"the relay does not publish {missing}: {agent.output[-500:]}")
    return found


def start_srrrs(
    programs: Programs, local: list[int], tls: bool, launch: tuple[str, ...] = SRRRS_LAUNCH
) -> Published:
    """A relay and an agent; the second local port is published by name, too."""
    port = free_port()
    relay = srrrs_relay(programs, port, tls, launch=launch)
    options: list[str] = []
    for number, each in enumerate(local):
        options += ["--local-tcp", f"p{number}={LOOPBACK}:{each}"]
    options += ["--local-http", f"page={LOOPBACK}:{local[1]}"]
    agent = srrrs_agent(programs, port, tls, *options, launch=launch)
    names = [f"p{number}" for number in range(len(local))]
    endpoints = srrrs_endpoints(agent, [*names, "page"])
    host = endpoints["page"].split("//")[1]
    ports = [int(endpoints[name].rpartition(":")[2]) for name in names]
    return Published(ports, [relay, agent], None if tls else (port, host))


# --- others -----------------------------------------------------------------------------


def start_frp(programs: Programs, local: list[int], tls: bool) -> Published:
    control, by_name, first = free_port(), free_port(), free_port(len(local))
    server = programs.write(
        "frps.toml",
        f'bindAddr = "{LOOPBACK}"\nbindPort = {control}\nvhostHTTPPort = {by_name}\n'
        f'proxyBindAddr = "{LOOPBACK}"\nauth.token = "{_SECRET}"\nlog.level = "error"\n',
    )
    text = (
        f'serverAddr = "{LOOPBACK}"\nserverPort = {control}\nauth.token = "{_SECRET}"\n'
        f'log.level = "error"\ntransport.tls.enable = {str(tls).lower()}\n'
    )
    for number, port in enumerate(local):
        text += (
            f'[[proxies]]\nname = "p{number}"\ntype = "tcp"\nlocalIP = "{LOOPBACK}"\n'
            f"localPort = {port}\nremotePort = {first + number}\n"
        )
    text += (
        f'[[proxies]]\nname = "page"\ntype = "http"\nlocalIP = "{LOOPBACK}"\n'
        f'localPort = {local[1]}\ncustomDomains = ["page.localhost"]\n'
    )
    frps = programs.start([need("frps"), "-c", server])
    frps.wait_port(control)
    frpc = programs.start([need("frpc"), "-c", programs.write("frpc.toml", text)])
    frpc.wait_port(first)
    host = None if tls else (by_name, "page.localhost")
    return Published([first + n for n in range(len(local))], [frps, frpc], host)


def start_rathole(programs: Programs, local: list[int], tls: bool) -> Published:
    control, first = free_port(), free_port(len(local))
    server_tls = client_tls = ""
    if tls:
        cert, key = certificate(programs.path)
        store = programs.path / "identity.p12"
        words = ["openssl", "pkcs12", "-export", "-out", str(store)]
        words += ["-inkey", str(key), "-in", str(cert)]
        subprocess.run([*words, "-passout", f"pass:{_SECRET}"], check=True, capture_output=True)
        server_tls = (
            '[server.transport]\ntype = "tls"\n[server.transport.tls]\n'
            f'pkcs12 = "{store}"\npkcs12_password = "{_SECRET}"\n'
        )
        client_tls = (
            '[client.transport]\ntype = "tls"\n[client.transport.tls]\n'
            f'trusted_root = "{cert}"\nhostname = "localhost"\n'
        )
    server = f'[server]\nbind_addr = "{LOOPBACK}:{control}"\ndefault_token = "{_SECRET}"\n'
    client = f'[client]\nremote_addr = "{LOOPBACK}:{control}"\ndefault_token = "{_SECRET}"\n'
    server, client = server + server_tls, client + client_tls
    for number, port in enumerate(local):
        server += f'[server.services.p{number}]\nbind_addr = "{LOOPBACK}:{first + number}"\n'
        client += f'[client.services.p{number}]\nlocal_addr = "{LOOPBACK}:{port}"\n'
    quiet = {"RUST_LOG": "error"}
    program = need("rathole")
    one = programs.start([program, "--server", programs.write("server.toml", server)], quiet)
    one.wait_port(control)
    two = programs.start([program, "--client", programs.write("client.toml", client)], quiet)
    one.wait_port(first)
    return Published([first + n for n in range(len(local))], [one, two])


BORE_PORT: Final = 7835
"""Where bore's server listens for clients; it cannot be told otherwise."""


def start_bore(programs: Programs, local: list[int], tls: bool) -> Published:
    first = free_port(len(local))
    quiet = {"RUST_LOG": "error"}
    server = programs.start([need("bore"), "server", "--bind-addr", LOOPBACK], quiet)
    server.wait_port(BORE_PORT)
    started = [server]
    for number, port in enumerate(local):
        words = [need("bore"), "local", str(port), "--local-host", LOOPBACK, "--to", LOOPBACK]
        started.append(programs.start([*words, "--port", str(first + number)], quiet))
        server.wait_port(first + number)
    return Published([first + n for n in range(len(local))], started)


def start_chisel(programs: Programs, local: list[int], tls: bool) -> Published:
    control, first = free_port(), free_port(len(local))
    words = [need("chisel"), "server", "--host", LOOPBACK, "--port", str(control), "--reverse"]
    client = [need("chisel"), "client"]
    if tls:
        cert, key = certificate(programs.path)
        words += ["--tls-cert", str(cert), "--tls-key", str(key)]
        client += ["--tls-ca", str(cert)]
    server = programs.start(words)
    server.wait_port(control)
    client.append(f"{'https' if tls else 'http'}://localhost:{control}")
    for number, port in enumerate(local):
        client.append(f"R:{LOOPBACK}:{first + number}:{LOOPBACK}:{port}")
    agent = programs.start(client)
    agent.wait_port(first)
    return Published([first + n for n in range(len(local))], [server, agent])


def start_wstunnel(programs: Programs, local: list[int], tls: bool) -> Published:
    control, first = free_port(), free_port(len(local))
    url = f"{'wss' if tls else 'ws'}://{LOOPBACK}:{control}"
    program = need("wstunnel")
    server = programs.start([program, "--log-lvl", "error", "server", url])
    server.wait_port(control)
    words = [program, "--log-lvl", "error", "client"]
    for number, port in enumerate(local):
        words += ["-R", f"tcp://{LOOPBACK}:{first + number}:{LOOPBACK}:{port}"]
    client = programs.start([*words, url])
    client.wait_port(first)
    return Published([first + n for n in range(len(local))], [server, client])


def start_ssh(programs: Programs, local: list[int], tls: bool) -> Published:
    control, first = free_port(), free_port(len(local))
    key, host_key = programs.path / "user", programs.path / "host"
    for path in (key, host_key):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(words, check=True, capture_output=True)
    config = programs.write(
        "sshd_config",
        f"Port {control}\nListenAddress {LOOPBACK}\nHostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin yes\nAllowTcpForwarding yes\nLogLevel ERROR\n",
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", 0o755, exist_ok=True)
    server = programs.start([need("sshd"), "-D", "-e", "-f", config])
    server.wait_port(control)
    words = [need("ssh"), "-N", "-F", "none", "-p", str(control), "-i", str(key)]
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"):
        words += ["-o", option]
    words += ["-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=ERROR"]
    for number, port in enumerate(local):
        words += ["-R", f"{LOOPBACK}:{first + number}:{LOOPBACK}:{port}"]
    client = programs.start([*words, f"{getpass.getuser()}@{LOOPBACK}"])
    client.wait_port(first)
    return Published([first + n for n in range(len(local))], [server, client])


NGINX_STREAM: Final = "/usr/lib/nginx/modules/ngx_stream_module.so"


def start_nginx(programs: Programs, local: list[int], tls: bool) -> Published:
    """nginx as a plain TCP proxy, one process."""
    first = free_port(len(local))
    text = f"load_module {NGINX_STREAM};\n{nginx_head(programs)}stream {{\n"
    for number, port in enumerate(local):
        text += (
            f"  server {{ listen {LOOPBACK}:{first + number}; proxy_pass {LOOPBACK}:{port}; }}\n"
        )
    program = start_nginx_with(programs, "proxy.conf", text + "}\n")
    program.wait_port(first)
    return Published([first + n for n in range(len(local))], [program])


def nginx_head(programs: Programs) -> str:
    """What every nginx of ours has in its configuration."""
    return (
        "daemon off;\nmaster_process off;\nworker_processes 1;\n"
        f"pid {programs.path}/nginx-{free_port()}.pid;\nerror_log stderr error;\n"
        "events { worker_connections 16384; }\n"
    )


def start_nginx_with(programs: Programs, name: str, text: str) -> Program:
    """nginx with that configuration."""
    words = [need("nginx"), "-e", "stderr", "-p", str(programs.path)]
    return programs.start([*words, "-c", str(programs.write(name, text))])


def start_haproxy(programs: Programs, local: list[int], tls: bool) -> Published:
    """haproxy as a plain TCP proxy, one thread."""
    first = free_port(len(local))
    text = (
        "global\n  nbthread 1\n  maxconn 4096\n"
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
    )
    for number, port in enumerate(local):
        text += (
            f"listen p{number}\n  bind {LOOPBACK}:{first + number}\n  server s {LOOPBACK}:{port}\n"
        )
    program = programs.start([need("haproxy"), "-db", "-f", programs.write("haproxy.cfg", text)])
    program.wait_port(first)
    return Published([first + n for n in range(len(local))], [program])


def start_direct(programs: Programs, local: list[int], tls: bool) -> Published:
    """No tunnel at all."""
    return Published(list(local))


BOTH: Final = (PLAIN, TLS)
PEERS: Final[tuple[Peer, ...]] = (
    Peer("srrrs", (), BOTH, start_srrrs),
    Peer("frp", ("frps", "frpc"), BOTH, start_frp),
    Peer("rathole", ("rathole",), BOTH, start_rathole),
    Peer("bore", ("bore",), (PLAIN,), start_bore),
    # Encrypts by SSH in any case: with TLS it does so twice.
    Peer("chisel", ("chisel",), BOTH, start_chisel),
    Peer("wstunnel", ("wstunnel",), BOTH, start_wstunnel),
    # Always encrypted.
    Peer("ssh -R", ("ssh", "sshd", "ssh-keygen"), (TLS,), start_ssh),
    Peer("nginx", ("nginx", NGINX_STREAM), (PLAIN,), start_nginx, limit=True),
    Peer("haproxy", ("haproxy",), (PLAIN,), start_haproxy, limit=True),
    Peer("direct", (), (PLAIN,), start_direct, limit=True),
)


def choose(names: list[str] | None, mode: str) -> list[Peer]:
    """The peers of a mode that are here, or those of ``names``.

    :raises BenchError: a name is unknown, or its programs are not here.
    """
    by_name = {peer.name.replace(" ", ""): peer for peer in PEERS}
    if names is None:
        return [peer for peer in PEERS if mode in peer.modes and peer.found]
    chosen = []
    for name in names:
        peer = by_name.get(name.replace(" ", ""))
        if peer is None:
            raise BenchError(f"no peer {name!r}: one of {', '.join(by_name)}")
        if not peer.found:
            raise BenchError(f"{name} is not installed: {', '.join(peer.needs)}")
        if mode in peer.modes:
            chosen.append(peer)
    return chosen
