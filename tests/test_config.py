"""Options, environment, file and defaults become one checked configuration."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.config import (
    AgentConfig,
    AgentLimits,
    ConfigError,
    Kind,
    RelayConfig,
    RelayLimits,
    TokenSource,
    TokenUnavailable,
    agent_config,
    default_data_dir,
    relay_config,
    values,
)
from srrrs.config.sample import render
from srrrs.config.services import client_endpoint, service, split_name
from srrrs.config.table import AGENT_OPTIONS, RELAY_OPTIONS

AGENT = {
    "edge-url": ["wss://relay.example"],
    "auth-token": ["file:/etc/token"],
    "local-http": ["8080"],
}


def agent(environ: dict[str, str] | None = None, **given: Any) -> AgentConfig:
    """An agent's configuration; keyword arguments add to a complete command line."""
    more = {name.replace("_", "-"): value for name, value in given.items()}
    return agent_config({**AGENT, **more}, environ or {})


# --- values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15.0), ("250ms", 0.25), ("2m", 120.0), ("2min", 120.0), ("1h", 3600.0),
        ("30d", 2_592_000.0), ("7", 7.0), ("0.5", 0.5), ("1.5h", 5400.0), (" 3 s ", 3.0),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    """Durations carry a unit; without one they are seconds."""
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1", "1e3", "1 fortnight", "1s2", "nan", "inf", "１s"])
def test_no_durations(text: str) -> None:
    """Whatever is no duration is refused."""
    with pytest.raises(ConfigError, match="duration"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536), ("256MiB", 268_435_456), ("1GiB", 2**30), ("1024", 1024),
        ("10B", 10), ("1K", 1024), ("5MB", 5_000_000), ("2 kB", 2000),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    """Sizes carry a unit; without one they are bytes."""
    assert values.size(text) == size


@pytest.mark.parametrize("text", ["", "1.5MiB", "-1", "1TiB", "MiB", "0x10"])
def test_no_sizes(text: str) -> None:
    """Whatever is no size is refused."""
    with pytest.raises(ConfigError, match="size"):
        values.size(text)


@given(st.text())
def test_parsers_raise_nothing_else(text: str) -> None:
    """Any text is a value or a ConfigError."""
    for option in (*RELAY_OPTIONS, *AGENT_OPTIONS):
        try:
            option.value(text)
        except ConfigError:
            pass
    kinds: tuple[Kind, ...] = ("http", "tcp", "ssh")
    for kind in kinds:
        try:
            service(kind, text)
        except ConfigError:
            pass


def test_port_ranges() -> None:
    """A range is LOW-HIGH or one port, within what ports can be."""
    assert values.port_range("20000-29999") == (20000, 29999)
    assert values.port_range("8022") == (8022, 8022)
    for wrong in ("", "5-4", "0-10", "1-65536", "a-b", "1-2-3", "-5"):
        with pytest.raises(ConfigError):
            values.port_range(wrong)


def test_pins_in_base64_and_hex_are_the_same() -> None:
    """A pin is 32 bytes, however it is spelt."""
    digest = bytes(range(32))
    expected = digest.hex()
    encoded = base64.b64encode(digest).decode()
    for text in (expected, expected.upper(), encoded, encoded.rstrip("=")):
        assert values.pin(f"sha256:{text}") == expected
    for wrong in (expected, "sha256:", "sha1:" + expected, "sha256:" + expected[2:], "sha256:%%"):
        with pytest.raises(ConfigError):
            values.pin(wrong)


# --- where services are


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("8080", "tcp:localhost:8080"),
        ("localhost:22", "tcp:localhost:22"),
        ("10.0.0.7:80", "tcp:10.0.0.7:80"),
        ("[::1]:80", r"tcp:\:\:1:80"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("tls:host:443", "tls:host:443"),
        ("tcp:host=h:port=1", "tcp:host=h:port=1"),
    ],
)
def test_addresses_become_client_endpoints(address: str, endpoint: str) -> None:
    """Ports, hosts and ports, and endpoint strings are all understood."""
    assert client_endpoint(address) == endpoint


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("", "empty"),
        ("0", "no port"),
        ("65536", "no port"),
        ("host:99999", "no port"),
        ("localhost", "has no port"),
        ("::1", r"\[ADDRESS\]:PORT"),
        ("[::1", "no address"),
        ("[zz]:80", "no address"),
        ("http://localhost:3000/", "write HOST:PORT, such as localhost:3000"),
        ("https://localhost:3000", "tls:localhost:3000"),
        ("/run/app.sock", "unix:/run/app.sock"),
    ],
)
def test_no_addresses(address: str, hint: str) -> None:
    """What is no address is refused, with what to write instead."""
    with pytest.raises(ConfigError, match=hint):
        client_endpoint(address)


def test_names_stand_before_the_first_equals_sign_only() -> None:
    """Endpoint strings hold equals signs too; they are no names."""
    assert split_name("blog=8080") == ("blog", "8080")
    assert split_name("tcp:host=h:port=1") == (None, "tcp:host=h:port=1")
    assert split_name("blog=tcp:host=h:port=1") == ("blog", "tcp:host=h:port=1")
    for wrong in ("Blog=1", "=1", "-a=1", "a_b=1", "x" * 64 + "=1"):
        with pytest.raises(ConfigError, match="service name"):
            split_name(wrong)


def test_services_get_names() -> None:
    """Only a name that was given is asked for as a subdomain."""
    config = agent(local_http=["blog=8080", "9090"], local_ssh=["22"], local_tcp=["db=5432", "81"])
    found = [(each.name, each.kind, each.asked) for each in config.services]
    assert found == [
        ("blog", "http", "blog"),
        ("http", "http", None),
        ("ssh", "ssh", None),
        ("db", "tcp", None),
        ("tcp-81", "tcp", None),
    ]


def test_paths_belong_to_a_name() -> None:
    """Each is a service of its own, named after both."""
    config = agent(local_http=["blog=8080", "blog/api=8081", "blog/api/v2/=unix:/run/x=y"])
    found = [(each.name, each.asked, each.path) for each in config.services]
    assert found == [
        ("blog", "blog", None),
        ("blog/api", "blog", "/api"),
        ("blog/api/v2", "blog", "/api/v2"),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("/api=8080", "service name"),
        ("blog/a/../b=8080", "no path that a service can have"),
        ("blog/a b=8080", "no path that a service can have"),
        ("blog/%61=8080", "no path that a service can have"),
        ("blog//a=8080", "no path that a service can have"),
        ("blog/" + "x" * 128 + "=8080", "no path that a service can have"),
        ("app.example.com=8080", "write NAME=ADDR and --hostname NAME=app.example.com"),
    ],
)
def test_what_is_no_name_with_a_path(text: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        agent(local_http=[text])


@pytest.mark.parametrize("option", ["local_tcp", "local_tls"])
def test_only_http_services_have_paths(option: str) -> None:
    with pytest.raises(ConfigError, match="only HTTP services have a path"):
        agent(None, **{option: ["db/x=5432"]})


def test_hosts_go_to_the_services_that_they_name() -> None:
    """With all their paths; a subdomain is not asked for then."""
    config = agent(
        local_http=["blog=8080", "blog/api=8081", "wiki=8082"],
        local_tls=["8443"],
        hostname=["blog=WWW.Example.com.", "tls=vault.example.com"],
    )
    found = {each.name: (each.asked, each.hostname) for each in config.services}
    assert found == {
        "blog": (None, "www.example.com"),
        "blog/api": (None, "www.example.com"),
        "wiki": ("wiki", None),
        "tls": (None, "vault.example.com"),
    }


def test_a_host_needs_no_name_where_there_is_one_service() -> None:
    config = agent(local_http=["8080"], local_ssh=["22"], hostname=["www.example.com"])
    assert config.services[0].hostname == "www.example.com"
    assert agent(local_http=["a=1", "a/b=2"], hostname=["w.e"]).services[1].hostname == "w.e"


@pytest.mark.parametrize(
    ("hosts", "hint"),
    [
        (["www.example.com"], r"--hostname: www.example.com: say of which service \(.*blog, wiki"),
        (["shop=www.example.com"], "no HTTP or TLS service is named 'shop'"),
        (["ssh=www.example.com"], "no HTTP or TLS service is named 'ssh'"),
        (["blog=localhost"], "'localhost' is no host name"),
        (["blog=*.example.com"], "is no host name"),
        (["blog=10.0.0.1"], "is no host name"),
        (["blog=a.example", "blog=b.example"], "two hosts, a.example and b.example"),
    ],
)
def test_hosts_that_cannot_be(hosts: list[str], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        agent(local_http=["blog=1", "wiki=2"], local_ssh=["22"], hostname=hosts)


def test_what_has_a_name_is_shared() -> None:
    """Of TCP services nothing is; what has no name cannot be."""
    config = agent(local_http=["blog=1", "web=2"], local_tcp=["5"], share=["true"],
                   hostname=["web=w.example"])  # fmt: skip
    assert [each.share for each in config.services] == [True, True, False]
    with pytest.raises(ConfigError, match="--share: 8080 has no name to share"):
        agent(local_http=["8080"], share=["true"])


def test_a_tcp_service_without_a_port_needs_a_name() -> None:
    """A socket's path gives no name."""
    with pytest.raises(ConfigError, match="write NAME=ADDR"):
        agent(local_tcp=["unix:/run/app.sock"])
    assert agent(local_tcp=["app=unix:/run/app.sock"]).services[1].name == "app"
    assert agent(local_tcp=["tls:db.example:5432"]).services[1].name == "tcp-5432"


def test_two_services_of_one_name_are_both_named() -> None:
    """The line says which two clash."""
    with pytest.raises(ConfigError) as raised:
        agent(local_ssh=["localhost:22"], local_tcp=["ssh=10.0.0.1:22"])
    assert "--local-ssh localhost:22" in str(raised.value)
    assert "--local-tcp 10.0.0.1:22" in str(raised.value)


# --- the agent


def test_edge_urls() -> None:
    """The path is /tunnel unless given; hosts are lower case."""
    for text, expected in {
        "wss://Relay.Example": "wss://relay.example/tunnel",
        "wss://relay.example:444/": "wss://relay.example:444/tunnel",
        "wss://relay.example/t": "wss://relay.example/t",
        "ws://localhost:8000": "ws://localhost:8000/tunnel",
        "ws://[::1]:8000/tunnel": "ws://[::1]:8000/tunnel",
        "ws://a.localhost": "ws://a.localhost/tunnel",
    }.items():
        assert agent(edge_url=[text]).edge_urls == (expected,)


@pytest.mark.parametrize(
    "url",
    [
        "http://relay.example", "relay.example", "wss://", "wss:///tunnel", "wss://x:0/",
        "wss://x:99999/", "wss://user:pass1@x/", "wss://x/#f", "wss://x/?q", "wss://x y/",
        "wss://a_b/", "ws://relay.example/tunnel", "ws://10.0.0.1/", "wss://[::1/",
    ],
)  # fmt: skip
def test_no_edge_urls(url: str) -> None:
    """What is no edge URL is refused, without what might be a password in it."""
    with pytest.raises(ConfigError, match="--edge-url: ") as raised:
        agent(edge_url=[url])
    assert "pass1" not in str(raised.value)


def test_several_edge_urls(tmp_path: Path) -> None:
    """In their order, from anywhere; one that is given twice is one."""
    wanted = ("wss://a.example/tunnel", "wss://b.example/tunnel")
    given = ["wss://a.example", "wss://b.example", "wss://A.example/"]
    assert agent(edge_url=given).edge_urls == wanted
    rest = {"auth-token": ["secret"], "local-http": ["80"]}
    environ = {"SRRRS_EDGE_URL": "wss://a.example, wss://b.example"}
    assert agent_config(rest, environ).edge_urls == wanted
    file = tmp_path / "srrrs.toml"
    file.write_text('[agent]\nedge-url = ["wss://a.example", "wss://b.example"]\n')
    assert agent_config({**rest, "config": [str(file)]}, {}).edge_urls == wanted
    with pytest.raises(ConfigError, match="--edge-url: "):
        agent(edge_url=["wss://a.example", "ws://b.example"])


def test_insecure_allows_ws_anywhere() -> None:
    """It is about ws:// and nothing else."""
    config = agent(edge_url=["ws://relay.example/"], insecure=["true"])
    assert config.edge_urls == ("ws://relay.example/tunnel",)


@pytest.mark.parametrize("missing", ["edge-url", "auth-token"])
def test_what_must_be_given(missing: str) -> None:
    """The line names what is missing."""
    given = {name: texts for name, texts in AGENT.items() if name != missing}
    with pytest.raises(ConfigError, match=f"--{missing}"):
        agent_config(given, {})


def test_an_agent_publishes_something() -> None:
    """An agent with no service is a mistake."""
    with pytest.raises(ConfigError, match="no service"):
        agent_config({**AGENT, "local-http": []}, {})


# --- tokens


def test_tokens_are_read_again_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated token is taken up without a restart; white space around it does not count."""
    file = tmp_path / "token"
    file.write_text("one\n")
    source = TokenSource.parse(f"file:{file}")
    assert source.read() == "one"
    file.write_text("  two\r\n")
    assert source.read() == "two"
    source = TokenSource.parse("env:SOME_TOKEN")
    for value in ("three", "four"):
        monkeypatch.setenv("SOME_TOKEN", value)
        assert source.read() == value
    assert TokenSource.parse("srrrs_abc_def").read() == "srrrs_abc_def"


def test_missing_tokens_say_where_they_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the file or the variable, and shows nothing that they hold."""
    file = tmp_path / "token"
    source = TokenSource.parse(f"file:{file}")
    for content in (None, b"", b" \n", b"two words", b"\xff\xfe", b"x" * 5000, b"a\nb\n"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(TokenUnavailable) as raised:
            source.read()
        assert str(file) in str(raised.value)
        assert "words" not in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(TokenUnavailable, match=str(tmp_path)):
        TokenSource.parse(f"file:{tmp_path}").read()
    monkeypatch.delenv("SOME_TOKEN", raising=False)
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("SOME_TOKEN", value)
        with pytest.raises(TokenUnavailable, match="SOME_TOKEN"):
            TokenSource.parse("env:SOME_TOKEN").read()


def test_secrets_are_not_shown() -> None:
    """Neither repr, nor str, nor an error shows a token."""
    source = TokenSource.parse("srrrs_id_secret")
    config = agent(auth_token=["srrrs_id_secret"])
    assert "secret" not in f"{source} {source!r} {config!r}"
    with pytest.raises(ConfigError) as raised:
        agent(auth_token=["my secret words"])
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


# --- precedence


def test_option_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """The first source that says something counts, for that option alone."""
    file = tmp_path / "srrrs.toml"
    file.write_text('[relay]\ndomain = "file.example"\ntcp-ports = "1-2"\nmax-head = 2048\n')
    environ = {"SRRRS_CONFIG": str(file), "SRRRS_DOMAIN": "env.example", "SRRRS_TCP_PORTS": "3-4"}
    config = relay_config({"domain": ["option.example"]}, environ)
    assert config.domain == "option.example"
    assert config.tcp_ports == (3, 4)
    assert config.limits.head_bytes == 2048
    assert config.limits.streams == RelayLimits().streams


def test_empty_variables_do_not_count() -> None:
    """Unit files and container tools often set variables to nothing."""
    assert relay_config({}, {"SRRRS_DOMAIN": "", "SRRRS_MAX_HEAD": " "}).domain == "localhost"


def test_repeatable_variables_hold_lists() -> None:
    """Commas or white space stand between the values."""
    for text in ("tcp:1,tcp:2", "tcp:1 tcp:2", " tcp:1,\n tcp:2, "):
        assert relay_config({}, {"SRRRS_LISTEN": text}).listen == ("tcp:1", "tcp:2")


def test_a_list_replaces_the_whole_list_below_it(tmp_path: Path) -> None:
    """Lists do not add up."""
    file = tmp_path / "srrrs.toml"
    file.write_text('[relay]\nlisten = ["tcp:1", "tcp:2"]\n')
    given = {"config": [str(file)]}
    assert relay_config(given, {}).listen == ("tcp:1", "tcp:2")
    assert relay_config({**given, "listen": ["tcp:3"]}, {}).listen == ("tcp:3",)


def test_files_hold_the_agent_too(tmp_path: Path) -> None:
    """Every kind of key is understood: lists, numbers, switches."""
    file = tmp_path / "srrrs.toml"
    file.write_text(
        "[agent]\n"
        'edge-url = "wss://relay.example"\nauth-token = "env:T"\n'
        'local-http = ["blog=8080", 9090]\nlocal-tcp = 5432\njson = true\n'
        'heartbeat-interval = 7.5\nconnect-timeout = "500ms"\n[relay]\n'
    )
    config = agent_config({"config": [str(file)]}, {})
    assert [each.name for each in config.services] == ["blog", "http", "tcp-5432"]
    assert config.json is True
    assert config.heartbeat_interval == 7.5
    assert config.limits.connect_timeout == 0.5


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[relay]\ndomian = 'x'", r"unknown key 'domian' in \[relay\].*did you mean 'domain'"),
        ("[relay]\ntcp_ports = '1-2'", "did you mean 'tcp-ports'"),
        ("[agent]\nnonsense = 1", r"unknown key 'nonsense' in \[agent\]"),
        ("[relay]\nconfig = 'x'", "unknown key 'config'"),
        ("domain = 'x'", "unknown key 'domain'"),
        ("[other]", "unknown key 'other'"),
        ("relay = 1", r"must be a table: \[relay\]"),
        ("[relay]\ndomain = ['x']", "domain in .*must be a string or a number"),
        ("[relay]\ndomain = true", "must be a string or a number"),
        ("[relay]\nlisten = [[]]", "listen in .*must hold strings"),
        ("[relay]\nlisten = []", "the list is empty"),
        ("[relay]\nmax-head = '3'", "max-head in .*too little: 1024 bytes or more"),
        ("[relay\n", "line 1"),
        ("[relay]\n\xff", "line 2|UTF-8"),
    ],
)
def test_wrong_files_say_what_and_where(tmp_path: Path, content: str, complaint: str) -> None:
    """The line names the key and the file."""
    file = tmp_path / "srrrs.toml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=complaint) as raised:
        relay_config({"config": [str(file)]}, {})
    assert str(file) in str(raised.value)


def test_switches_in_files_are_booleans(tmp_path: Path) -> None:
    """The string "false" must not switch anything on."""
    file = tmp_path / "srrrs.toml"
    file.write_text("[agent]\ninsecure = 'false'\n")
    with pytest.raises(ConfigError, match=r"insecure in .*must be true or false"):
        agent(config=[str(file)])


def test_missing_file() -> None:
    """A file that was named must be there."""
    with pytest.raises(ConfigError, match="--config: there is no file /nonexistent/x"):
        relay_config({"config": ["/nonexistent/x"]}, {})


@pytest.mark.parametrize(
    ("given", "environ", "origin"),
    [
        ({"domain": ["10.0.0.1"]}, {}, "--domain: "),
        ({}, {"SRRRS_DOMAIN": "a b"}, "SRRRS_DOMAIN: "),
        ({"public-url": ["ftp://x"]}, {}, "--public-url: "),
        ({"public-url": ["https://x/path"]}, {}, "--public-url: "),
        ({"tcp-interface": ["eth0"]}, {}, "--tcp-interface: "),
        ({"log-level": ["loud"]}, {}, "--log-level: "),
        ({"max-streams": ["0"]}, {}, "--max-streams: "),
        ({"heartbeat-min": ["2m"], "heartbeat-max": ["1m"]}, {}, "--heartbeat-min: "),
        ({"max-buffer": ["2MiB"], "max-tunnel-buffer": ["3MiB"]}, {}, "--max-tunnel-buffer: "),
    ],
)
def test_wrong_values_say_where_they_stand(
    given: dict[str, list[str]], environ: dict[str, str], origin: str
) -> None:
    """The line begins with the option or the variable."""
    with pytest.raises(ConfigError) as raised:
        relay_config(given, environ)
    assert str(raised.value).startswith(origin)


# --- defaults


def test_the_tables_defaults_are_those_of_the_dataclasses() -> None:
    """A configuration made in Python has the defaults that the help promises."""
    relay = relay_config({}, {"STATE_DIRECTORY": "/state"})
    assert relay == RelayConfig(data_dir=Path("/state"))
    given = agent()
    plain = AgentConfig(edge_urls=given.edge_urls, token=given.token, services=given.services)
    assert given == plain


def test_every_limit_is_an_option() -> None:
    """No cap is out of the operator's reach."""
    for table, limits in ((RELAY_OPTIONS, RelayLimits), (AGENT_OPTIONS, AgentLimits)):
        fields = {field.name for field in dataclasses.fields(limits)}
        assert {option.limit for option in table if option.limit} == fields


def test_who_is_told_of_visitors() -> None:
    """All services, or those that are named; never inside of TLS that the agent makes."""
    services = {"local_http": ["blog=8080", "blog/api=8081"], "local_tcp": ["db=5432"]}

    def versions(*texts: str) -> list[str | None]:
        return [
            spec.send_proxy for spec in agent(None, **services, send_proxy=list(texts)).services
        ]

    assert versions() == [None, None, None]
    assert versions("v2") == ["v2", "v2", "v2"]
    assert versions("db=v1") == [None, None, "v1"]
    assert versions("blog=v2", "blog/api=V1") == ["v2", "v1", None]
    for text, hint in (("v3", "v1 or v2"), ("x=v1", "no service is named 'x'")):
        with pytest.raises(ConfigError, match=hint):
            versions(text)
    with pytest.raises(ConfigError, match="inside of the TLS"):
        agent(None, local_http=["tls:localhost:8443"], send_proxy=["v2"])


def test_what_visitors_meet_first(tmp_path: Path) -> None:
    """Folders that are there, proxies as networks, and a time for browsers."""
    given = {
        "tls": [str(tmp_path)],
        "hsts": ["180d"],
        "acme-webroot": ["/a"],
        "https-redirect": ["true"],
        "trusted-proxy": ["192.0.2.7", "2001:db8::/32", "unix"],
    }
    config = relay_config(given, {})
    assert config.tls == tmp_path
    assert (config.hsts, config.acme_webroot) == (180 * 86400, Path("/a"))
    assert config.https_redirect
    assert [str(each) for each in config.trusted_proxies] == ["192.0.2.7/32", "2001:db8::/32"]
    assert config.trust_local
    assert not relay_config({}, {}).trust_local
    for name, bad in (("tls", "/nowhere"), ("hsts", "900d"), ("trusted-proxy", "proxy.example")):
        with pytest.raises(ConfigError, match=name):
            relay_config({name: [bad]}, {})


def test_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's folder, else root's, else the user's; a relative XDG folder is ignored."""
    assert default_data_dir({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir({}) == Path("/var/lib/srrrs")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    assert default_data_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/srrrs")
    assert default_data_dir({"XDG_STATE_HOME": "x"}) == Path("/home/u/.local/state/srrrs")


@pytest.mark.parametrize(("section", "table"), [("relay", RELAY_OPTIONS), ("agent", AGENT_OPTIONS)])
def test_sample_files_show_every_key(section: str, table: Any) -> None:
    """``conf/`` is what ``python -m srrrs.config.sample`` writes."""
    conf = Path(__file__).parent.parent / "conf"
    assert (conf / f"{section}.toml").read_text() == render(section, table)


def test_sample_files_are_good_without_their_comment_signs(tmp_path: Path) -> None:
    """Every line that is a comment in a sample may be made a setting."""
    conf = Path(__file__).parent.parent / "conf"
    file = tmp_path / "srrrs.toml"
    authority = tmp_path / "ca.pem"
    authority.touch()
    users = tmp_path / "wiki.users"
    users.write_text("alice:secret")
    for section in ("relay", "agent"):
        lines = (conf / f"{section}.toml").read_text().splitlines()
        plain = [line[1:] if re.match("#[a-z]", line) else line for line in lines]
        text = "\n".join(plain).replace("/etc/srrrs/ca.pem", str(authority))
        text = text.replace("/etc/srrrs/wiki.users", str(users))
        text = text.replace("/etc/srrrs/pages", str(tmp_path))
        text = text.replace("/etc/letsencrypt/live", str(tmp_path))
        file.write_text(text)
        if section == "relay":
            assert relay_config({"config": [str(file)]}, {}).domain == "localhost"
        else:
            assert len(agent_config({"config": [str(file)]}, {}).services) == 6
