"""What an agent asks for its services' visitors, and the relay's owner says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from srrrs.config import AgentConfig, ConfigError, agent_config, relay_config
from srrrs.config.policies import MAX_USER_FILE, read_users
from srrrs.http.passwords import verify
from srrrs.http.policy import MAX_EDITS, MAX_NETWORKS, MAX_USERS, decode, parse_network, parse_rate

TOKEN = "srrrs_aaaaaaaaaa"


def agent(*services: str, environ: dict[str, str] | None = None, **said: Any) -> AgentConfig:
    """An agent's configuration: services as ``kind:text``, and options by name."""
    given: dict[str, list[str]] = {"edge-url": ["wss://relay.example"], "auth-token": [TOKEN]}
    for text in services:
        kind, _, rest = text.partition(":")
        given.setdefault(f"local-{kind}", []).append(rest)
    for name, values in said.items():
        option = name.replace("_", "-")
        given[option] = [values] if isinstance(values, str) else list(values)
    return agent_config(given, environ or {})


def policies(config: AgentConfig) -> dict[str, Any]:
    """What each service asks for."""
    return {spec.name: spec.policy for spec in config.services}


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A file of one user."""
    path = tmp_path / "users"
    path.write_text("# mine\n\nalice:correct horse\n")
    return path


def test_nothing_is_asked_for_by_default() -> None:
    assert policies(agent("http:blog=80", "tcp:db=5432")) == {"blog": None, "db": None}


def test_the_nearest_name_counts() -> None:
    """Of each option by itself: the service's own, that of the path above, that of all."""
    config = agent(
        "http:blog=80", "http:blog/api=81", "http:blog/api/v1=82", "http:wiki=83", "ssh:22",
        rate_limit=["1/s", "blog=2/s", "blog/api=3/s"],
        deny_ip=["192.0.2.1", "192.0.2.2", "ssh=192.0.2.3"],
        max_body=["blog=1KiB"],
    )  # fmt: skip
    found = {name: decode(members) for name, members in policies(config).items()}
    assert {name: policy.rate and policy.rate.count for name, policy in found.items()} == {
        "blog": 2,
        "blog/api": 3,
        "blog/api/v1": 3,
        "wiki": 1,
        "ssh": 1,
    }
    assert found["wiki"].deny == (parse_network("192.0.2.1"), parse_network("192.0.2.2"))
    assert found["ssh"].deny == (parse_network("192.0.2.3"),)
    assert found["blog/api/v1"].max_body == 1024
    # That which is for HTTP alone is not of a service that is none.
    assert found["wiki"].max_body is found["ssh"].max_body is None


def test_every_policy(users: Path) -> None:
    config = agent(
        "http:blog=80",
        basic_auth=f"blog=file:{users}",
        allow_ip="192.0.2.0/24, 2001:db8::/32",
        deny_ip="192.0.2.7",
        rate_limit="10/s:50",
        total_rate_limit="100/m",
        host_header="localhost:3000",
        request_header=["blog=X-A: b=c", "-Cookie"],
        response_header=["+X-B: d", "-Server"],
        max_body="1MiB",
    )
    policy = decode(policies(config)["blog"])
    assert verify(policy.users["alice"], b"correct horse")
    assert policy.allow == (parse_network("192.0.2.0/24"), parse_network("2001:db8::/32"))
    assert policy.total_rate == parse_rate("100/m")
    # What is said of the service replaces what is said of all.
    assert [str(each) for each in policy.request_fields] == ["x-a: b=c"]
    assert [str(each) for each in policy.response_fields] == ["+x-b: d", "-server"]
    assert policy.host == "localhost:3000"
    assert policy.max_body == 2**20


def test_no_secret_shows(users: Path) -> None:
    """Not in what a configuration looks like."""
    config = agent(
        "http:80", basic_auth=f"file:{users}", request_header="Authorization: Bearer hush"
    )
    assert "hush" not in repr(config)
    assert "scrypt" not in repr(config)


def test_values_of_variables_stand_in_lines() -> None:
    """For they hold blanks and commas."""
    environ = {"SRRRS_REQUEST_HEADER": "X-A: b, c\n\nX-B: d\n", "SRRRS_ALLOW_IP": "::1, 10.0.0.0/8"}
    policy = decode(policies(agent("http:80", environ=environ))["http"])
    assert [str(each) for each in policy.request_fields] == ["x-a: b, c", "x-b: d"]
    assert len(policy.allow) == 2


def test_tables_of_single_services(tmp_path: Path, users: Path) -> None:
    """Beside what the agent's table says of the same."""
    file = tmp_path / "srrrs.toml"
    file.write_text(
        f"""
        [agent]
        local-http = ["blog=80", "blog/api=81"]
        deny-ip = "192.0.2.1"
        max-body = ["blog=1KiB"]

        [agent.service.blog]
        basic-auth = "file:{users}"
        allow-ip = ["192.0.2.0/24", "2001:db8::/32"]

        [agent.service."blog/api"]
        max-body = 10
        """
    )
    found = policies(agent(config=str(file)))
    blog, api = decode(found["blog"]), decode(found["blog/api"])
    assert set(blog.users) == set(api.users) == {"alice"}
    assert (blog.max_body, api.max_body) == (1024, 10)
    assert len(blog.allow) == 2
    assert blog.deny == (parse_network("192.0.2.1"),)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("service = 1", r"'service' in \[agent\] of .* must hold tables"),
        ("[agent.service]\nblog = 1", r"must be a table: \[agent\.service\.blog\]"),
        ("[agent.service.blog]\nrate-limits = '1/s'", "unknown key 'rate-limits' in .*rate-limit"),
        ("[agent.service.blog]\nlocal-http = '80'", "unknown key 'local-http'"),
        ("[agent.service.B]\nrate-limit = '1/s'", "'B' is no service name"),
        ("[agent.service.wiki]\nrate-limit = '1/s'", "no service is named 'wiki'"),
        ("[agent.service.blog]\nrate-limit = '1/d'", "rate-limit in .*'1/d' is no rate"),
        ("[agent.service.blog]\nrate-limit = []", "the list is empty"),
        ("[agent.service.blog]\nrate-limit = true", "must be a string"),
    ],
)
def test_wrong_tables(tmp_path: Path, content: str, complaint: str) -> None:
    """A wrong key shows, and where it stands."""
    file = tmp_path / "srrrs.toml"
    file.write_text(f"[agent]\n{content}\n")
    with pytest.raises(ConfigError, match=complaint):
        agent("http:blog=80", config=str(file))


@pytest.mark.parametrize(
    ("services", "said", "complaint"),
    [
        (["tcp:db=1"], {"max_body": "1"}, "--max-body: only HTTP services .* there is none"),
        (["tcp:db=1"], {"max_body": "db=1"}, "--max-body: only HTTP services .* 'db' is none"),
        (["http:80"], {"rate_limit": "blog=1/s"}, "--rate-limit: no service is named 'blog'"),
        (["http:80"], {"rate_limit": "1"}, "--rate-limit: '1' is no rate"),
        (["http:80"], {"allow_ip": "10.0.0.1/8"}, "--allow-ip: .*bits behind its prefix"),
        (["http:80"], {"allow_ip": ","}, "--allow-ip: no network"),
        (["http:80"], {"basic_auth": "alice:hush"}, "--basic-auth: write file:PATH"),
        (["http:80"], {"basic_auth": "file:/nowhere"}, "--basic-auth: there is no file"),
        (["http:80"], {"request_header": "Host: x"}, "--request-header: .*relay's own"),
        (["http:80"], {"response_header": "Set-Cookie: hush"}, "--response-header: 'set-cookie'"),
        (["http:80"], {"host_header": "http://x"}, "--host-header: 'http://x' is no host"),
        (["http:80"], {"request_header": ["-X"] * (MAX_EDITS + 1)}, "32 at the most"),
        (["http:80"], {"deny_ip": ["::1"] * (MAX_NETWORKS + 1)}, "256 at the most"),
        (
            ["http:80"],
            {"request_header": [f"X-{n}: {'a' * 1000}" for n in range(9)]},
            "policies of http take .* bytes, 8192 at the most",
        ),
    ],
)
def test_what_cannot_be_had(services: list[str], said: dict[str, Any], complaint: str) -> None:
    """Is told at the start: an agent whose lock cannot be does not run without."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        agent(*services, **said)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no user"),
        (b"# nobody\n", "holds no user"),
        (b"alice\n", "line 1: is not USER:PASSWORD"),
        (b"alice:a\nbob:\n", "line 2: is not USER:PASSWORD"),
        (b":hush\n", "line 1: is not USER:PASSWORD"),
        (b"alice:a\nalice:b\n", "line 2: 'alice' is there twice"),
        (b"\xff:a\n", "is not UTF-8"),
        (b"#" * (MAX_USER_FILE + 1), "is longer than"),
        (b"".join(b"u%d:a\n" % n for n in range(MAX_USERS + 1)), "holds more than"),
    ],
)
def test_files_of_users_that_are_none(tmp_path: Path, content: bytes, complaint: str) -> None:
    """No line of it is repeated."""
    path = tmp_path / "users"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        read_users(path)
    assert "hush" not in str(caught.value)


def test_what_the_relays_owner_says(tmp_path: Path) -> None:
    config = relay_config(
        {
            "policies": ["ip, rate"],
            "deny-visitors": ["192.0.2.0/24,2001:db8::/32", "198.51.100.1"],
            "visitor-rate": ["100/s"],
            "max-request-body": ["1GiB"],
            "error-pages": [str(tmp_path)],
            "access-log": [str(tmp_path / "log")],
            "access-log-format": ["combined"],
        },
        {},
    )
    assert config.policies == {"ip", "rate"}
    assert len(config.deny) == 3
    assert config.rate == parse_rate("100/s")
    assert config.max_body == 2**30
    assert (config.error_pages, config.access_log) == (tmp_path, tmp_path / "log")
    assert config.access_log_format == "combined"
    assert relay_config({"access-log": ["-"], "policies": ["none"]}, {}).policies == frozenset()
    assert relay_config({"access-log": ["-"]}, {}).access_log == "-"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("policies", "ip,passwords"),
        ("policies", "ip,none"),
        ("policies", "all,ip"),
        ("error-pages", "/nowhere"),
        ("access-log-format", "common"),
        ("visitor-rate", "many"),
        ("deny-visitors", "everybody"),
    ],
)
def test_what_the_relays_owner_cannot_say(option: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option}: "):
        relay_config({option: [text]}, {})
