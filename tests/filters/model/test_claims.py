"""How claims are named: dots, dots within names, and where each is looked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.model.claims import MOST_PARTS, check, paths


@pytest.mark.parametrize(
    ("written", "places"),
    [
        ("sub", [("sub",)]),
        ("realm.roles", [("realm.roles",), ("realm", "roles")]),
        (
            "kubernetes.io.namespace",
            [("kubernetes.io.namespace",), ("kubernetes.io", "namespace"), ("kubernetes", "io", "namespace")],
        ),
        (r"kubernetes\.io.namespace", [("kubernetes.io.namespace",), ("kubernetes.io", "namespace")]),
        (r"access.shop\.web.roles", [
            ("access.shop.web.roles",), ("access.shop.web", "roles"), ("access", "shop.web", "roles"),
        ]),
        (r"a\\.b", [("a\\.b",), ("a\\", "b")]),
        (r"https://shop\.test/role", [("https://shop.test/role",)]),
    ],
)  # fmt: skip
def test_the_longest_name_at_the_top_is_looked_for_first(written: str, places: list[tuple[str, ...]]) -> None:
    assert list(paths(written)) == places
    assert check(written) is None


@pytest.mark.parametrize("written", ["", ".", "a.", ".a", "a..b", "a\\", r"a\b", r"a\\\b", "." * 20])
def test_what_names_no_claim_is_a_mistake(written: str) -> None:
    assert check(written) is not None


def test_a_path_has_an_end() -> None:
    assert check(".".join("a" * MOST_PARTS)) is None
    assert check(".".join("a" * (MOST_PARTS + 1))) is not None


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_every_path_can_be_written(names: list[str]) -> None:
    written = ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in names)
    assert check(written) is None
    assert paths(written)[-1] == tuple(names)
