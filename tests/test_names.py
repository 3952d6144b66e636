"""Generated public names: readable, always valid, drawn from the given source."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srrrs.relay.names import ADJECTIVES, NOUNS, SUFFIX_ALPHABET, Names


@pytest.mark.parametrize("words", [ADJECTIVES, NOUNS])
def test_word_lists_are_long_distinct_and_short_words(words: tuple[str, ...]) -> None:
    assert len(words) >= 200
    assert len(set(words)) == len(words)
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in words)


def test_suffix_has_no_characters_that_are_taken_for_each_other_and_spells_nothing() -> None:
    assert not set(SUFFIX_ALPHABET) & set("01ilo" + "aeiouy")
    assert len(set(SUFFIX_ALPHABET)) == len(SUFFIX_ALPHABET)


@given(st.randoms(use_true_random=False))
def test_every_name_is_two_words_and_a_suffix_and_a_dns_label(rng: random.Random) -> None:
    name = Names(rng).make()
    adjective, noun, suffix = name.split("-")
    assert adjective in ADJECTIVES
    assert noun in NOUNS
    assert re.fullmatch(f"[{SUFFIX_ALPHABET}]{{4}}", suffix)
    assert len(name) <= 63
    assert name[2:4] != "--"


def test_choices_come_from_the_source_given() -> None:
    assert Names(random.Random(7)).make() == Names(random.Random(7)).make()
    rng = random.Random(7)
    names = Names(rng)
    assert len({names.make() for _ in range(1000)}) == 1000
