"""Tokens: made, checked, rotated, revoked and expired; secrets kept nowhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srrrs.relay.scope import UNSCOPED, Scope
from srrrs.relay.store import Store
from srrrs.relay.tokens import DEFAULT_GRACE, MAX_SECRETS, Identity, TokenError, Tokens

NOW = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data") as store:
        yield store


@pytest.fixture
def tokens(store: Store) -> Tokens:
    return Tokens(store)


def flip(text: str, index: int) -> str:
    """The text with one character replaced by another of base32."""
    other = "a" if text[index] != "a" else "b"
    return text[:index] + other + text[index + 1 :]


def test_a_new_token_lets_in_its_holder(tokens: Tokens) -> None:
    token, text = tokens.create("laptop", NOW)
    assert re.fullmatch(r"srrrs_[a-z2-7]{10}_[a-z2-7]{52}", text)
    assert text.split("_")[1] == token.id
    assert tokens.check(text, NOW) == Identity(token.id, "laptop")
    assert tokens.valid(token.id, NOW)
    assert tokens.list() == (token,)


def test_any_other_text_lets_nobody_in(tokens: Tokens) -> None:
    token, text = tokens.create("laptop", NOW)
    secret = text.split("_")[2]
    wrong = [
        flip(text, 10),  # an unknown id
        *(flip(text, index) for index in range(17, len(text))),
        text.upper(),
        text + "\n",
        " " + text,
        text[:-1],
        secret,
        f"{token.id}_{secret}",
        f"srrrs_{token.id}_",
        "",
        "srrrs__",
        "\x00",
        "é" * 69,
        "x" * 1_000_000,
    ]
    for guess in wrong:
        assert tokens.check(guess, NOW) is None, guess[:80]


def test_reasons_for_the_log_never_hold_the_secret(tokens: Tokens) -> None:
    _, text = tokens.create("laptop", NOW, expires=HOUR)
    secret = text.split("_")[2]
    wrong = flip(text, 20)
    reasons = {
        "good": tokens.why(text, NOW),
        "has expired": tokens.why(text, NOW + HOUR),
        "wrong secret": tokens.why(wrong, NOW),
        "no token has the id": tokens.why(flip(text, 10), NOW),
        "not of the form": tokens.why(text + "x", NOW),
    }
    tokens.rotate("laptop", NOW, grace=0)
    reasons["grace is over"] = tokens.why(text, NOW)
    tokens.revoke("laptop", NOW)
    reasons["was revoked"] = tokens.why(text, NOW)
    for part, reason in reasons.items():
        assert part in reason
        assert secret not in reason
        assert wrong.split("_")[2] not in reason


def test_no_secret_is_in_the_database_or_in_what_is_listed(tokens: Tokens, store: Store) -> None:
    token, text = tokens.create("laptop", NOW)
    texts = [text, tokens.rotate("laptop", NOW)]
    tokens.check(text, NOW)
    tokens.flush()
    stored = b"".join(file.read_bytes() for file in store.path.parent.iterdir())
    for text in texts:
        secret = text.split("_")[2]
        assert secret.encode() not in stored
        assert secret not in repr(tokens.list()) + repr(token)


def test_a_name_is_unique_among_tokens_that_are_not_revoked(tokens: Tokens) -> None:
    first, _ = tokens.create("laptop", NOW)
    with pytest.raises(TokenError, match="there is a token named 'laptop' already"):
        tokens.create("laptop", NOW)
    tokens.revoke("laptop", NOW)
    second, text = tokens.create("laptop", NOW + 1)
    assert second.id != first.id
    assert tokens.check(text, NOW) == Identity(second.id, "laptop")
    assert [token.id for token in tokens.list()] == [second.id]
    assert [token.id for token in tokens.list(revoked=True)] == [first.id, second.id]


def test_an_expired_token_makes_room_for_a_new_one_of_its_name(tokens: Tokens) -> None:
    old, old_text = tokens.create("laptop", NOW, expires=HOUR)
    new, new_text = tokens.create("laptop", NOW + HOUR)
    assert old.id != new.id
    assert tokens.check(old_text, NOW) is None
    assert tokens.check(new_text, NOW + HOUR) == Identity(new.id, "laptop")


@pytest.mark.parametrize("name", ["", "-x", "--out", "a b", "a\n", "x" * 65, "é", ".x", "a/b"])
def test_a_bad_name_is_refused_in_one_line(tokens: Tokens, name: str) -> None:
    with pytest.raises(TokenError, match="is no name for a token") as caught:
        tokens.create(name, NOW)
    assert "\n" not in str(caught.value)
    assert tokens.list(revoked=True) == ()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_an_expiry_must_lie_ahead(tokens: Tokens, seconds: float) -> None:
    with pytest.raises(TokenError, match="expiry"):
        tokens.create("laptop", NOW, expires=seconds)
    tokens.create("laptop", NOW)
    with pytest.raises(TokenError, match="expiry"):
        tokens.rotate("laptop", NOW, expires=seconds)


def test_expiry_ends_a_token_at_its_second(tokens: Tokens) -> None:
    token, text = tokens.create("laptop", NOW, expires=HOUR)
    assert token.expires == NOW + HOUR
    assert tokens.check(text, NOW + HOUR - 0.001) is not None
    assert tokens.valid(token.id, NOW + HOUR - 0.001)
    assert tokens.check(text, NOW + HOUR) is None
    assert not tokens.valid(token.id, NOW + HOUR)
    assert tokens.ended([token.id], NOW + HOUR) == {token.id}


def test_next_expiry_is_the_first_that_is_still_ahead(tokens: Tokens) -> None:
    assert tokens.next_expiry(NOW) is None
    tokens.create("never", NOW)
    assert tokens.next_expiry(NOW) is None
    tokens.create("later", NOW, expires=2 * HOUR)
    tokens.create("soon", NOW, expires=HOUR)
    tokens.create("revoked", NOW, expires=1)
    tokens.revoke("revoked", NOW)
    assert tokens.next_expiry(NOW) == NOW + HOUR
    assert tokens.next_expiry(NOW + HOUR) == NOW + 2 * HOUR
    assert tokens.next_expiry(NOW + 2 * HOUR) is None


def test_rotation_keeps_the_id_and_both_secrets_work_until_the_grace_ends(tokens: Tokens) -> None:
    token, old = tokens.create("laptop", NOW)
    new = tokens.rotate("laptop", NOW)
    assert new != old
    identity = Identity(token.id, "laptop")
    ends = NOW + DEFAULT_GRACE
    assert tokens.list()[0].grace_until == ends
    assert tokens.check(old, ends - 1) == tokens.check(new, ends - 1) == identity
    assert tokens.check(old, ends) is None
    assert tokens.check(new, ends) == identity
    assert tokens.valid(token.id, ends), "tunnels opened with the old secret go on"


def test_rotation_without_grace_ends_every_older_secret_at_once(tokens: Tokens) -> None:
    _, first = tokens.create("laptop", NOW)
    second = tokens.rotate("laptop", NOW)
    third = tokens.rotate("laptop", NOW, grace=0)
    assert tokens.check(first, NOW) is None
    assert tokens.check(second, NOW) is None
    assert tokens.check(third, NOW) is not None


def test_a_second_rotation_never_lengthens_the_first_ones_grace(tokens: Tokens) -> None:
    _, first = tokens.create("laptop", NOW)
    second = tokens.rotate("laptop", NOW, grace=10)
    tokens.rotate("laptop", NOW + 5, grace=100)
    assert tokens.check(first, NOW + 9) is not None
    assert tokens.check(first, NOW + 10) is None
    assert tokens.check(second, NOW + 104) is not None
    assert tokens.check(second, NOW + 105) is None


def test_the_number_of_good_secrets_is_bounded(tokens: Tokens, store: Store) -> None:
    texts = [tokens.create("laptop", NOW)[1]]
    texts += [tokens.rotate("laptop", NOW) for _ in range(3 * MAX_SECRETS)]
    good = [tokens.check(text, NOW) is not None for text in texts]
    assert good == [False] * (len(texts) - MAX_SECRETS) + [True] * MAX_SECRETS
    assert store.row("SELECT count(*) FROM secrets") == (MAX_SECRETS,)


def test_an_expired_token_is_renewed_by_a_rotation_with_a_new_expiry_only(tokens: Tokens) -> None:
    token, old = tokens.create("laptop", NOW, expires=HOUR)
    late = NOW + 2 * HOUR
    with pytest.raises(TokenError, match="has expired"):
        tokens.rotate("laptop", late)
    new = tokens.rotate("laptop", late, expires=HOUR)
    assert tokens.check(new, late) == Identity(token.id, "laptop")
    assert tokens.check(old, late) is not None
    assert tokens.check(new, late + HOUR) is None


@pytest.mark.parametrize("grace", [-1.0, math.inf, math.nan])
def test_a_grace_is_a_time(tokens: Tokens, grace: float) -> None:
    tokens.create("laptop", NOW)
    with pytest.raises(TokenError, match="grace"):
        tokens.rotate("laptop", NOW, grace=grace)


def test_revocation_ends_a_token_and_all_its_secrets(tokens: Tokens) -> None:
    token, old = tokens.create("laptop", NOW)
    other, other_text = tokens.create("server", NOW)
    new = tokens.rotate("laptop", NOW)
    assert tokens.revoke("laptop", NOW).id == token.id
    assert tokens.check(old, NOW) is None
    assert tokens.check(new, NOW) is None
    assert not tokens.valid(token.id, NOW)
    assert tokens.ended([token.id, other.id, "unknown"], NOW) == {token.id, "unknown"}
    assert tokens.check(other_text, NOW) is not None


def test_what_is_not_there_is_said_so(tokens: Tokens) -> None:
    tokens.create("gone", NOW)
    tokens.revoke("gone", NOW)
    for name in ("never", "gone"):
        with pytest.raises(TokenError, match=f"there is no token named '{name}'"):
            tokens.revoke(name, NOW)
        with pytest.raises(TokenError, match=f"there is no token named '{name}'"):
            tokens.rotate(name, NOW)
    assert not tokens.valid("unknown", NOW)


def test_first_run_is_when_no_token_is_usable(tokens: Tokens) -> None:
    assert not tokens.any_usable(NOW)
    tokens.create("short", NOW, expires=HOUR)
    assert tokens.any_usable(NOW)
    assert not tokens.any_usable(NOW + HOUR)
    tokens.create("long", NOW)
    assert tokens.any_usable(NOW + HOUR)
    tokens.revoke("long", NOW)
    assert not tokens.any_usable(NOW + HOUR)


def test_last_use_is_written_by_flush_alone_and_never_goes_back(
    tokens: Tokens, store: Store
) -> None:
    with Store(store.path.parent) as other:
        token, text = tokens.create("laptop", NOW)
        assert other.changed()
        tokens.check(text, NOW + 5)
        assert not other.changed(), "a check writes nothing"
        assert tokens.list()[0].used is None
        tokens.flush()
        assert other.changed()
        assert tokens.list()[0].used == NOW + 5
        tokens.flush()
        assert not other.changed(), "nothing new to write"
        assert tokens.check(text, NOW) == Identity(token.id, "laptop"), "the clock went back"
        tokens.flush()
        assert tokens.list()[0].used == NOW + 5


def test_another_process_is_honoured_at_once(tokens: Tokens, store: Store) -> None:
    with Store(store.path.parent) as beside:
        command = Tokens(beside)
        token, text = command.create("laptop", NOW)
        assert tokens.check(text, NOW) == Identity(token.id, "laptop")
        assert store.changed()
        assert not store.changed()
        command.revoke("laptop", NOW)
        assert tokens.check(text, NOW) is None
        assert store.changed()


def test_tokens_survive_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        token, text = Tokens(store).create("laptop", NOW)
    with Store(tmp_path) as store:
        assert Tokens(store).check(text, NOW) == Identity(token.id, "laptop")


def test_no_guess_raises_or_gets_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Store(tmp_path_factory.mktemp("guess")) as store:
        tokens = Tokens(store)
        token, _ = tokens.create("laptop", NOW)
        base32 = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=52, max_size=52)

        @settings(deadline=None)
        @given(st.one_of(st.text(), base32.map(lambda secret: f"srrrs_{token.id}_{secret}")))
        def guess(text: str) -> None:
            assert tokens.check(text, NOW) is None
            tokens.why(text, NOW)

        guess()


def test_whoever_shows_a_token_has_its_scope(store: Store) -> None:
    """For good: rotating it leaves it as it is."""
    tokens = Tokens(store)
    scope = Scope.parse(["*.dev.example.com"], ["20000-20100"])
    token, text = tokens.create("scoped", NOW, scope=scope)
    assert token.scope == scope
    for shown in (text, tokens.rotate("scoped", NOW)):
        identity = tokens.check(shown, NOW)
        assert identity is not None
        assert identity.scope == scope
    _, plain = tokens.create("plain", NOW)
    free = tokens.check(plain, NOW)
    assert free is not None
    assert free.scope == UNSCOPED
