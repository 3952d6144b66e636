"""Tokens while a relay runs: what the ``token`` commands change counts at once."""

from __future__ import annotations

import re
import socket

import pytest

from tests.integration.harness import (
    DEADLINE,
    Lab,
    echo,
    exchange,
    get,
    hash_of_all,
    http_answer,
    status_of,
    tcp_server,
)

pytestmark = pytest.mark.integration

NOT_ACCEPTED = "does not accept the token (401)"


def test_revocation_ends_tunnel_and_streams_without_a_restart(lab: Lab) -> None:
    """``token revoke`` beside a running relay ends the tunnels of that token and the streams in
    them, leaves other tokens' alone, and the agent then says that its token is not accepted."""
    silent = lab.keep(tcp_server(echo))
    page = lab.keep(tcp_server(http_answer(b"still here")))
    relay = lab.relay()
    token = lab.token(relay, "field")
    agent = lab.agent(relay, "--local-tcp", f"silent={silent}", token=token)
    other = lab.agent(relay, "--local-http", f"site={page}")
    port = int(agent.event("ready")["endpoint"].rpartition(":")[2])
    site = other.event("ready")["endpoint"]
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as visitor:
        relay.line(r"silent is at")
        lab.run_token(relay, "revoke", "field")
        try:
            assert visitor.recv(1) == b"", "the stream ends with the tunnel"
        except ConnectionResetError:
            pass
    lost = agent.event("disconnected")
    assert "revoked" in lost["reason"]
    told = agent.event("retrying")
    assert NOT_ACCEPTED in told["reason"]
    assert told["heals"] is False
    assert agent.running
    assert relay.running
    assert not other.events("disconnected")
    assert get(site) == (200, b"still here")


def test_expiry_ends_a_live_tunnel(lab: Lab) -> None:
    """A token made with ``--expires`` lets an agent in until then and no longer."""
    relay = lab.relay()
    token = lab.token(relay, "short", "--expires", "4s")
    agent = lab.agent(relay, "--local-http", "1", token=token)
    agent.event("connected")
    assert "expired" in agent.event("disconnected")["reason"]
    assert NOT_ACCEPTED in agent.event("retrying")["reason"]


def test_a_rotated_token_keeps_its_addresses_and_its_old_secret_for_a_while(lab: Lab) -> None:
    """After ``token rotate`` old and new secret both let in, to the same addresses, and the tunnel
    that stands is left alone; an old secret whose grace is over is refused."""
    echo_port = lab.keep(tcp_server(hash_of_all))
    relay = lab.relay()
    old = lab.token(relay, "field")
    first = lab.agent(relay, "--local-tcp", f"hash={echo_port}", token=old)
    endpoint = first.event("ready")["endpoint"]
    new = lab.token(relay, "field", action="rotate")
    assert old.read_text() != new.read_text()
    assert len(exchange(endpoint, b"x")) == 64
    assert not first.events("disconnected")
    first.stop()

    for token in (old, new):
        agent = lab.agent(relay, "--local-tcp", f"hash={echo_port}", token=token)
        assert agent.event("ready")["endpoint"] == endpoint
        agent.stop()

    newest = lab.token(relay, "field", "--grace", "0s", action="rotate")
    late = lab.agent(relay, "--local-tcp", f"hash={echo_port}", token=new)
    assert NOT_ACCEPTED in late.event("retrying")["reason"]
    agent = lab.agent(relay, "--local-tcp", f"hash={echo_port}", token=newest)
    assert agent.event("ready")["endpoint"] == endpoint


def test_a_token_file_that_is_mended_later_is_taken_up_by_itself(lab: Lab) -> None:
    """``file:`` is read again at every dial: a missing file, then a wrong token, then the right
    one; the agent runs on through all three and connects in the end."""
    page = lab.keep(tcp_server(http_answer(b"at last")))
    relay = lab.relay()
    path = lab.path / "agent.token"
    missing = lab.agent(relay, "--local-http", f"site={page}", token=path)
    told = missing.event("retrying")
    assert str(path) in told["reason"]
    assert "No such file" in told["reason"]
    path.write_text("srrrs_" + "a" * 10 + "_" + "b" * 52 + "\n")
    wrong = lab.agent(relay, "--local-http", f"site={page}", token=path)
    assert NOT_ACCEPTED in wrong.event("retrying")["reason"]
    wrong.stop()

    path.write_text(relay.first_token.read_text())
    endpoint = missing.event("ready", service="site")["endpoint"]
    assert get(endpoint) == (200, b"at last")


def test_tokens_are_listed_without_their_secrets(lab: Lab) -> None:
    """``token list`` shows names, public ids and states; a created secret stands alone on
    standard output, and with ``--out`` in a file of mode 0600."""
    relay = lab.relay()
    printed = lab.run_token(relay, "create", "printed")
    assert re.fullmatch(r"srrrs_[a-z2-7]{10}_[a-z2-7]{52}\n", printed)
    lab.secrets.add(printed.strip())
    written = lab.token(relay, "written")
    assert written.stat().st_mode & 0o777 == 0o600
    lab.run_token(relay, "revoke", "written")

    agent = lab.agent(
        relay, "--local-http", "1", token="env:TUNNEL", env={"TUNNEL": printed.strip()}
    )
    endpoint = agent.event("ready")["endpoint"]
    assert status_of(endpoint) == 502
    listed = lab.run_token(relay, "list")
    assert "printed" in listed
    assert "default" in listed
    assert "written" not in listed
    assert "revoked" in lab.run_token(relay, "list", "--all")
    assert not lab.leaks(listed)
