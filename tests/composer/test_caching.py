"""Caching headers of a response that is made of several answers."""

from __future__ import annotations

import pytest

from xds_server.composer.caching import headers_of


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([{}, {}], {}),
        (
            [{"cache-control": "max-age=60"}, {"cache-control": "public, s-maxage=5, max-age=90"}],
            {"cache-control": "max-age=5"},
        ),
        ([{"cache-control": "max-age=60"}, {}], {}),
        (
            [{"cache-control": "max-age=60"}, {"cache-control": 'Private="x", max-age=1'}],
            {"cache-control": "private"},
        ),
        (
            [{"cache-control": "no-store"}, {"cache-control": "private, no-cache"}],
            {"cache-control": "no-store, private, no-cache"},
        ),
        ([{"cache-control": "max-age=many"}, {"cache-control": ",=,"}], {}),
        ([{"vary": "Accept, x-who"}, {"vary": "accept,x-tenant"}], {"vary": "accept, x-who, x-tenant"}),
        ([], {}),
    ],
)
def test_a_response_is_as_strict_as_each_of_its_answers(
    answers: list[dict[str, str]], expected: dict[str, str]
) -> None:
    assert dict(headers_of(answers)) == expected
