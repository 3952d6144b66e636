"""Every option, once: the command line, the variables, the keys of the file, the help and the
sample files in ``conf/`` all come from these tables."""

from __future__ import annotations

from typing import Final

from srrrs.config import values
from srrrs.config.bounds import BOUND_OPTIONS
from srrrs.config.front import FRONT_OPTIONS
from srrrs.config.option import CONFIG_NAME, Option
from srrrs.config.option import count as _count
from srrrs.config.option import duration as _duration
from srrrs.config.option import size as _size
from srrrs.config.policies import POLICY_OPTIONS
from srrrs.config.token import TokenSource

CONFIG: Final = Option(
    name=CONFIG_NAME,
    parse=values.existing_file,
    metavar="FILE",
    help="Read what is not given as an option or variable from this TOML file.",
)
LOG_LEVEL: Final = Option(
    name="log-level",
    parse=values.log_level,
    metavar="LEVEL",
    help="What to log: debug, info, warn or error, and what is worse.",
    default="info",
)
DATA_DIR: Final = Option(
    name="data-dir",
    parse=values.path,
    metavar="DIR",
    help="Folder of the relay's database and certificate.",
    otherwise="$STATE_DIRECTORY, else /var/lib/srrrs as root, else srrrs in $XDG_STATE_HOME "
    "(~/.local/state)",
)

_MAX_STREAMS: Final = _count(
    "max-streams", "Streams (visitors' connections) open in one tunnel.", "10240", "streams",
    limit="streams",
)  # fmt: skip
_MAX_FRAME: Final = _size(
    "max-frame", "Payload of one frame from the other side.", "1MiB",
    limit="frame_bytes", least=16 * 1024, most=2**24 - 1,
)  # fmt: skip
_MAX_BUFFER: Final = _size(
    "max-buffer", "Memory for the streams' and replay buffers of the whole process.", "256MiB",
    limit="buffer_bytes", least=2**20,
)  # fmt: skip
_MAX_TUNNEL_BUFFER: Final = _size(
    "max-tunnel-buffer", "The part of --max-buffer that one tunnel may use.", "256MiB",
    limit="tunnel_buffer_bytes", least=2**20,
)  # fmt: skip
_MAX_WINDOW: Final = _size(
    "max-window", "Flow-control window that one stream may grow to.", "16MiB",
    limit="window_bytes", least=16 * 1024, most=2**31 - 1,
)  # fmt: skip

RELAY_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="listen",
        parse=values.text_line,
        metavar="ENDPOINT",
        help="Listen here, for agents and HTTP visitors alike: a Twisted server endpoint string "
        "(tcp:, ssl:, unix:, systemd:, ...). May be given more than once.",
        default="tcp:8000:interface=127.0.0.1",
        repeatable=True,
    ),
    Option(
        name="domain",
        parse=values.domain,
        metavar="NAME",
        help="HTTP services become subdomains of this name.",
        default="localhost",
    ),
    Option(
        name="public-url",
        parse=values.public_url,
        metavar="URL",
        help="http[s]://HOST[:PORT] by which the relay is reached when a proxy stands in front "
        "of it; printed and handed to agents, and its host belongs to the relay.",
        otherwise="made from --domain and the first --listen",
    ),
    Option(
        name="tcp-ports",
        parse=values.port_range,
        metavar="LOW-HIGH",
        help="Public ports for TCP and ssh services.",
        default="20000-29999",
    ),
    Option(
        name="tcp-interface",
        parse=values.interface,
        metavar="ADDRESS",
        help="IP address on which those ports listen.",
        otherwise="that of the first --listen",
    ),
    DATA_DIR,
    _duration("heartbeat-min", "Shortest interval between heartbeats that agents get.", "1s"),
    _duration("heartbeat-max", "Longest interval between heartbeats that agents get.", "2m"),
    _duration(
        "session-grace", "Longest time for which streams wait for an agent whose connection "
        "broke; 0s: they are reset at once.", "60s", least=0.0, most=3600.0,
    ),
    _duration(
        "hold", "For which new visitors wait for such an agent; 0s: they are turned away.",
        "30s", least=0.0, most=3600.0,
    ),
    _duration(
        "drain", "For running streams to finish when the relay is told to stop; 0s: they are "
        "reset at once.", "30s", least=0.0, most=3600.0,
    ),
    Option(
        name="drain-to",
        parse=values.destination_url,
        metavar="URL",
        help="Where agents are sent when the relay is told to stop: the edge URL of another. They "
        "go to a host of an --edge-url of theirs, or under one, and nowhere else.",
        otherwise="to the next of their own",
    ),
    *FRONT_OPTIONS,
    *BOUND_OPTIONS,
    _count(
        "max-held", "Visitors who wait for one service.", "1024", "visitors",
        limit="visitors_held",
    ),
    _size(
        "max-head", "Head of one HTTP request, of visitors and of agents.", "32KiB",
        limit="head_bytes", least=1024, most=2**24,
    ),
    _count(
        "max-head-fields", "Fields in one HTTP request's head.", "100", "fields",
        limit="head_fields",
    ),
    _size(
        "max-target", "Path and query of one HTTP request.", "8KiB",
        limit="target_bytes", least=256, most=2**24,
    ),
    _duration(
        "head-timeout", "For an HTTP request's head, from its first byte.", "10s",
        limit="head_timeout", most=3600.0,
    ),
    _duration(
        "idle-timeout", "That an HTTP visitor's connection may wait for another request.", "75s",
        limit="idle_timeout", most=86_400.0,
    ),
    _duration(
        "body-timeout", "For each KiB of an HTTP request's body, until it is answered; 0s: as long "
        "as it takes.", "60s", limit="body_timeout", least=0.0, most=86_400.0,
    ),
    _count(
        "max-requests", "HTTP requests under way in one tunnel.", "10240", "requests",
        limit="requests_per_tunnel",
    ),
    _MAX_FRAME,
    _MAX_STREAMS,
    _count(
        "max-services", "Services registered with one token.", "131072", "services",
        limit="services",
    ),
    _count(
        "max-tunnels", "Tunnels open with one token.", "65536", "tunnels", limit="tunnels",
    ),
    _duration(
        "handshake-timeout", "From the relay's turning to an agent until its tunnel stands.",
        "10s", limit="handshake_timeout", most=3600.0,
    ),
    _count(
        "max-handshakes", "Agents shaking hands at a time; others wait their turn.", "256",
        "agents", limit="handshakes",
    ),
    _count(
        "max-unauthenticated", "Connections from one address that have not shown a token or "
        "reached a service yet; others wait their turn.", "128", "connections",
        limit="unauthenticated_per_address",
    ),
    _count(
        "max-visitors", "Visitors' connections from one address; more are turned away.",
        "4096", "connections", limit="visitors_per_address",
    ),
    _MAX_BUFFER,
    _MAX_TUNNEL_BUFFER,
    _MAX_WINDOW,
    CONFIG,
    LOG_LEVEL,
)  # fmt: skip

AGENT_OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="edge-url",
        parse=values.text_line,
        metavar="URL",
        help="The relay: wss://HOST[:PORT][/tunnel]. May be given more than once: the nearest "
        "is used, and another where that fails or goes away.",
        otherwise="must be given",
        repeatable=True,
    ),
    Option(
        name="auth-token",
        parse=TokenSource.parse,
        metavar="TOKEN",
        help="file:PATH or env:NAME, read again at every dial; or the token itself, which then "
        "everybody on this machine can see in the list of processes: prefer file:.",
        otherwise="must be given",
    ),
    Option(
        name="local-http",
        parse=values.text_line,
        metavar="[NAME[/PATH]=]ADDR",
        help="Publish a web server as NAME.DOMAIN, or under a name that the relay chooses; with "
        "/PATH for requests below it alone. May be given more than once.",
        repeatable=True,
    ),
    Option(
        name="local-tls",
        parse=values.text_line,
        metavar="[NAME=]ADDR",
        help="Publish a server that speaks TLS by itself as NAME.DOMAIN: the relay passes it on "
        "as it is. May be given more than once.",
        repeatable=True,
    ),
    Option(
        name="hostname",
        parse=values.text_line,
        metavar="[NAME=]HOST",
        help="Publish HTTP or TLS service NAME as HOST instead of a subdomain; the token must be "
        "allowed to. NAME may be left out where there is one. May be given more than once.",
        repeatable=True,
    ),
    Option(
        name="share",
        parse=values.boolean,
        metavar="",
        help="Serve the HTTP and TLS services together with other agents of the same token that "
        "share theirs by the same name.",
        default="false",
    ),
    Option(
        name="local-ssh",
        parse=values.text_line,
        metavar="ADDR",
        help="Publish an ssh server on a TCP port of the relay.",
    ),
    Option(
        name="local-tcp",
        parse=values.text_line,
        metavar="[NAME=]ADDR",
        help="Publish any TCP service on a port of the relay. NAME is tcp-PORT unless given. "
        "May be given more than once.",
        repeatable=True,
    ),
    *POLICY_OPTIONS,
    _duration(
        "heartbeat-interval",
        "Interval between heartbeats, within the relay's bounds. After 2.5 intervals of silence "
        "the connection is given up.",
        "15s",
    ),
    _duration(
        "session-grace", "For which streams wait when the connection to the relay breaks, within "
        "the relay's bound; 0s: they are reset at once.", "60s", least=0.0, most=3600.0,
    ),
    _duration(
        "drain", "For running streams to finish when the agent is told to stop; 0s: they are "
        "reset at once.", "30s", least=0.0, most=3600.0,
    ),
    Option(
        name="instance",
        parse=values.instance,
        metavar="NAME",
        help="Which machine this is: public addresses belong to a token and an instance.",
        otherwise="derived from /etc/machine-id and the user",
    ),
    Option(
        name="ca-file",
        parse=values.existing_file,
        metavar="FILE",
        help="Trust the certificate authorities in this PEM file.",
        otherwise="the system's",
    ),
    Option(
        name="pin",
        parse=values.pin,
        metavar="sha256:DIGEST",
        help="Trust the relay's certificate by the SHA-256 (base64 or hex) of its public key "
        "(SubjectPublicKeyInfo) instead of by its chain; host name and dates are still checked.",
    ),
    Option(
        name="insecure",
        parse=values.boolean,
        metavar="",
        help="Allow an unencrypted ws:// relay on another machine. Checks of certificates stay "
        "as they are.",
        default="false",
    ),
    Option(
        name="json",
        parse=values.boolean,
        metavar="",
        help="Print events as JSON, one object a line.",
        default="false",
    ),
    _MAX_STREAMS,
    _MAX_FRAME,
    _MAX_BUFFER,
    _MAX_TUNNEL_BUFFER,
    _MAX_WINDOW,
    _duration(
        "connect-timeout", "For a local service to accept a connection.", "10s",
        limit="connect_timeout", most=3600.0,
    ),
    _duration(
        "handshake-timeout", "For the relay to be reached and to accept the tunnel.", "30s",
        limit="handshake_timeout", most=3600.0,
    ),
    CONFIG,
    LOG_LEVEL,
)  # fmt: skip

#: What the `token` commands share with the relay, and read from the same places.
STORE_OPTIONS: Final[tuple[Option, ...]] = (DATA_DIR, CONFIG)
