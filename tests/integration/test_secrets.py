"""Secrets never show: not at debug level, not in errors, not in the list of processes."""

from __future__ import annotations

import signal

import pytest

from tests.integration.harness import Lab, get, http_answer, tcp_server

pytestmark = pytest.mark.integration


def test_no_output_and_no_command_line_ever_holds_a_secret(lab: Lab) -> None:
    """Relay and agents at debug level through a connect, a refusal, a rotation, a revocation, a
    wrong token, a token in a broken file, a relay that dies and one that comes back: no output and
    no command line holds any of the secrets, whole or in part.

    Every other test of this folder is checked for that at its end, too.
    """
    page = lab.keep(tcp_server(http_answer(b"page")))
    relay = lab.relay()
    assert relay.first_token.stat().st_mode & 0o777 == 0o600
    field, spare = lab.token(relay, "field"), lab.token(relay, "spare")
    agent = lab.agent(relay, "--local-http", f"site={page}", token=field)
    endpoint = agent.event("ready")["endpoint"]
    twin = lab.agent(relay, "--local-http", f"site={page}", token=field)
    twin.event("refused")
    by_name = lab.agent(
        relay,
        *("--local-http", "1", "--instance", "by-name"),
        token="env:TUNNEL_TOKEN",
        env={"TUNNEL_TOKEN": spare.read_text().strip()},
    )
    by_name.event("ready")
    assert not lab.leaks(relay.command_line())
    assert not lab.leaks(agent.command_line())
    assert not lab.leaks(by_name.command_line())

    lab.token(relay, "field", "--grace", "0s", action="rotate")
    lapsed = lab.agent(relay, "--local-http", "1", token=field)
    lapsed.event("retrying")
    lab.run_token(relay, "revoke", "spare")
    by_name.event("disconnected")
    by_name.event("retrying")

    guess = lab.path / "guess"
    # A wrong secret is one too: somebody may have mistyped a right one.
    guess.write_text(field.read_text().strip()[:-1] + "q")
    lab.secrets.add(guess.read_text())
    lab.agent(relay, "--local-http", "1", token=guess).event("retrying")
    guess_twice = lab.path / "two-lines"
    guess_twice.write_text(f"{field.read_text()}{spare.read_text()}")
    lab.agent(relay, "--local-http", "1", token=guess_twice).event("retrying")

    assert get(endpoint)[0] == 200
    relay.send(signal.SIGTERM)
    assert relay.wait() == 0
    agent.event("disconnected")

    for program in lab.programs:
        assert program.count(r"\bdebug\b") or program is relay, f"{program.name} is not at debug"
    lab.check()


def test_the_check_itself_would_notice(lab: Lab) -> None:
    """A program that does print a secret fails the check that all others pass."""
    lab.secrets.add("srrrs_aaaaaaaaaa_" + "c" * 52)
    lab.spawn("teller", ["echo", "Authorization: Bearer srrrs_aaaaaaaaaa_" + "c" * 52]).wait()
    with pytest.raises(AssertionError, match="teller shows a secret"):
        lab.check()
    lab.programs.clear()
