"""From settings to the configuration of a relay or an agent, with the checks that take more than
one value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from srrrs.config import values
from srrrs.config.errors import ConfigError
from srrrs.config.front import LOCAL
from srrrs.config.model import AgentConfig, AgentLimits, Kind, RelayConfig, RelayLimits, ServiceSpec
from srrrs.config.option import Option
from srrrs.config.policies import with_policies
from srrrs.config.services import check_names, service, shared, with_hostnames
from srrrs.config.sources import Setting, resolve
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS, STORE_OPTIONS

Given = Mapping[str, Sequence[str]]

ROOT_DATA_DIR: Final = Path("/var/lib/srrrs")
_KINDS: Final[tuple[Kind, ...]] = ("http", "tls", "ssh", "tcp")


def relay_config(given: Given, environ: Mapping[str, str]) -> RelayConfig:
    """The relay's configuration from the command line's texts, the environment and the file.

    :raises ConfigError: with a line that names what is wrong, and where it stands.
    """
    settings = resolve(RELAY_OPTIONS, "relay", given, environ)
    least, most = settings["heartbeat-min"], settings["heartbeat-max"]
    if least.value > most.value:
        raise ConfigError(f"{least.origin}: longer than the longest interval ({most.origin})")
    limits = RelayLimits(**_limits(RELAY_OPTIONS, settings))
    _check_buffers(settings, limits)
    return RelayConfig(
        data_dir=settings["data-dir"].value or default_data_dir(environ),
        listen=settings["listen"].value,
        domain=settings["domain"].value,
        public_url=settings["public-url"].value,
        tcp_ports=settings["tcp-ports"].value,
        tcp_interface=settings["tcp-interface"].value,
        heartbeat_min=least.value,
        heartbeat_max=most.value,
        session_grace=settings["session-grace"].value,
        hold=settings["hold"].value,
        drain=settings["drain"].value,
        drain_to=settings["drain-to"].value,
        tls=settings["tls"].value,
        https_redirect=settings["https-redirect"].value,
        hsts=settings["hsts"].value,
        acme_webroot=settings["acme-webroot"].value,
        trusted_proxies=tuple(each for each in settings["trusted-proxy"].value if each != LOCAL),
        trust_local=LOCAL in settings["trusted-proxy"].value,
        policies=settings["policies"].value,
        deny=tuple(each for some in settings["deny-visitors"].value for each in some),
        rate=settings["visitor-rate"].value,
        max_body=settings["max-request-body"].value,
        error_pages=settings["error-pages"].value,
        access_log=settings["access-log"].value,
        access_log_format=settings["access-log-format"].value,
        log_level=settings["log-level"].value,
        limits=limits,
    )


def agent_config(given: Given, environ: Mapping[str, str]) -> AgentConfig:
    """The agent's configuration, likewise.

    :raises ConfigError: with a line that names what is wrong, and where it stands.
    """
    settings = resolve(AGENT_OPTIONS, "agent", given, environ)
    for name in ("edge-url", "auth-token"):
        if not settings[name].given:
            raise ConfigError(f"--{name} must be given (or its variable, or its key in a file)")
    urls = settings["edge-url"]
    try:
        edge_urls = [
            values.edge_url(url, insecure=settings["insecure"].value) for url in urls.value
        ]
    except ConfigError as error:
        raise ConfigError(f"{urls.origin}: {error}") from None
    limits = AgentLimits(**_limits(AGENT_OPTIONS, settings))
    _check_buffers(settings, limits)
    return AgentConfig(
        # One that is given twice is one.
        edge_urls=tuple(dict.fromkeys(edge_urls)),
        token=settings["auth-token"].value,
        services=_services(settings),
        heartbeat_interval=settings["heartbeat-interval"].value,
        session_grace=settings["session-grace"].value,
        drain=settings["drain"].value,
        instance=settings["instance"].value,
        ca_file=settings["ca-file"].value,
        pin=settings["pin"].value,
        insecure=settings["insecure"].value,
        json=settings["json"].value,
        log_level=settings["log-level"].value,
        limits=limits,
    )


def data_dir(given: Given, environ: Mapping[str, str]) -> Path:
    """The data folder alone, found as the relay finds it.

    :raises ConfigError: with a line that names what is wrong, and where it stands.
    """
    settings = resolve(STORE_OPTIONS, "relay", given, environ)
    path: Path = settings["data-dir"].value or default_data_dir(environ)
    return path


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Where the data are unless somebody says otherwise: systemd's ``$STATE_DIRECTORY``, else
    ``/var/lib/srrrs`` as root, else ``srrrs`` in the XDG state folder."""
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:
        return Path(state)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return ROOT_DATA_DIR
    home = environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored (XDG Base Directory Specification, Basics).
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "srrrs"


def _limits(table: Sequence[Option], settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {option.limit: settings[option.name].value for option in table if option.limit}


def _check_buffers(settings: Mapping[str, Setting], limits: RelayLimits | AgentLimits) -> None:
    # A process's cap below the default of a tunnel's is no mistake: the lower one counts.
    tunnel = settings["max-tunnel-buffer"]
    if tunnel.given and limits.tunnel_buffer_bytes > limits.buffer_bytes:
        raise ConfigError(f"{tunnel.origin}: more than --max-buffer, the whole process's")


def _services(settings: Mapping[str, Setting]) -> tuple[ServiceSpec, ...]:
    found: list[tuple[str, ServiceSpec]] = []
    for kind in _KINDS:
        setting = settings[f"local-{kind}"]
        texts = setting.value if isinstance(setting.value, tuple) else (setting.value,)
        for text in texts:
            if text is None:
                continue
            try:
                found.append((setting.origin, service(kind, text)))
            except ConfigError as error:
                raise ConfigError(f"{setting.origin}: {error}") from None
    if not found:
        raise ConfigError(
            "no service to publish: give --local-http, --local-tls, --local-ssh or --local-tcp"
        )
    check_names(found)
    specs = [spec for _, spec in found]
    hosts, share = settings["hostname"], settings["share"]
    try:
        specs = with_hostnames(specs, hosts.value)
    except ConfigError as error:
        raise ConfigError(f"{hosts.origin}: {error}") from None
    if share.value:
        try:
            specs = shared(specs)
        except ConfigError as error:
            raise ConfigError(f"{share.origin}: {error}") from None
    return with_policies(specs, settings)
