"""Whatever stands in a gateway's files: either a gateway comes of it, or problems that say where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.language import Problem
from tests.support.reading import load
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.reader import Reader, Reading
from xds_server.translate.translator import Translator, Untranslatable

CASES = Path(__file__).parents[1] / "translate" / "cases"
TEXTS = [file.read_text() for file in sorted(CASES.glob("*/in.yaml"))]

BYTES = st.one_of(
    st.sampled_from([b"\t", b":", b"-", b"[", b"{", b"'", b"&a ", b"*a", b"!!", b"${", b"\xff", b"\n", b"\x00", b"%"]),
    st.binary(min_size=1, max_size=4),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["off", "5s", "10KB", "10%", "1/hour", "/x/*", "~(", "${", "*", "a.b", "-1", "1e999", "127.0.0.1:1"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=6), st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)


def _holds(files: dict[str, bytes]) -> Reading:
    reading = Reader().read(files, load, {})
    assert (reading.gateway is None) == bool(reading.errors)
    for problem in reading.problems:
        assert problem.place is not None, problem
        assert problem.place.file in files
        assert problem.place.line >= 1
        assert problem.place.column >= 1
        assert problem.message
    if reading.gateway is not None:
        assert all(reading.gateway.place(problem.path) for problem in _untranslatable(reading.gateway))
    return reading


def _untranslatable(gateway: Gateway) -> tuple[Problem, ...]:
    try:
        Translator().translate(gateway)
    except Untranslatable as error:
        return error.problems
    return ()


@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_bytes_in_the_wrong_place_are_survived(data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(TEXTS)).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 20)))
        put = data.draw(st.one_of(BYTES, st.just(b""), st.just(content[start:end] * 2)))
        content = content[:start] + put + content[end:]
    _holds({"gateway.yaml": content})


@given(data=st.data())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_values_in_the_wrong_place_are_survived(data: st.DataObject) -> None:
    value = yaml.safe_load(data.draw(st.sampled_from(TEXTS)))
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(value, data)
    _holds({"gateway.yaml": yaml.safe_dump(value, allow_unicode=True).encode()})


def _mutate(value: Any, data: st.DataObject) -> None:
    """Put something else at a random place below."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        below = value[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.integers(0, 3)) == 0:
            break
        value = below
    what = data.draw(st.sampled_from(["replace", "remove", "rename"]))
    if what == "replace" or isinstance(value, list):
        value[key] = data.draw(VALUES)
    elif what == "remove":
        del value[key]
    else:
        value[data.draw(st.text(max_size=8))] = value.pop(key)


@given(
    content=st.one_of(
        st.binary(max_size=64),
        st.text(alphabet=" \t\n:-[]{}&*!|>'\"%@`,?#ab1.~$", max_size=64).map(str.encode),
    )
)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_anything_at_all_is_survived(content: bytes) -> None:
    _holds({"gateway.yaml": content})
