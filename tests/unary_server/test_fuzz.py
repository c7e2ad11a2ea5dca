"""The fuzz target on its corpus, and on changes of it that are the same each time."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.unary_server import changed, corpus, play


def test_the_corpus_is_understood() -> None:
    assert any(not play(data).closed for data in corpus())
    assert any(play(data).closed for data in corpus())


@pytest.mark.parametrize("seed", range(4))
def test_changes_of_the_corpus_break_no_law(seed: int) -> None:
    chance, inputs = random.Random(seed), corpus()
    for _ in range(400):
        play(changed(chance.choice(inputs), chance))
