"""validate: what is read."""

from __future__ import annotations

import pytest

from filters.language import Problems, decoder_for
from filters.validation.settings import ValidateSettings


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"required_headers": ["a b"]},
        {"content_types": ["json"]},
        {"content_types": ["a/b; c"]},
        {"max_body": 0},
    ],
)
def test_what_makes_no_sense_is_a_problem(value: object) -> None:
    problems = Problems()
    decoder_for(ValidateSettings)(value, ("validate",), problems)
    assert len(problems) == 1
