"""Values that nobody foresees are mistakes with a place, and never an exception that ends the control plane."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import read
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.sources.folder import Folder

BASE = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: ["127.0.0.1:1"]}}
"""
GOOGLE = "type.googleapis.com/google.protobuf"


def compile_route(route: dict[str, Any]) -> None:
    """Compile a gateway with one more route. Raises InvalidGateway."""
    text = BASE + yaml.safe_dump({"routes": {"odd": {"path": "/odd", "upstream": "users", **route}}})
    Compiler({}).compile(Folder(Path(), {"gateway.yaml": text.encode()}))


@pytest.mark.parametrize(
    "extension",
    [
        {"@type": f"{GOOGLE}.{name}"}
        for name in ("Struct", "Duration", "Any", "StringValue", "ListValue", "FieldMask", "Value")
    ]
    + [
        {"@type": url}
        for url in (
            5,
            None,
            "",
            "x",
            "type.googleapis.com/",
            "type.googleapis.com/os.path.X",
            "type.googleapis.com/antigravity.X",
            "type.googleapis.com/.a..b",
            "type.googleapis.com/envoy.config.route.v3.Nothing",
            "type.googleapis.com/envoy.nowhere.v3.Nothing",
        )
    ]
    + [{"@type": f"{GOOGLE}.Struct", "value": 5}, {"@type": f"{GOOGLE}.Duration", "value": {}}],
    ids=str,
)
def test_an_extension_of_a_type_that_is_none_is_a_mistake(extension: dict[str, Any]) -> None:
    with pytest.raises(InvalidGateway) as raised:
        compile_route({"envoy": {"typed_per_filter_config": {"odd": extension}}})
    (problem,) = [one for one in raised.value.problems if one.severity == "error"]
    assert problem.where.startswith("routes.odd.envoy")
    assert problem.place is not None


def test_only_modules_of_envoys_api_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    with pytest.raises(InvalidGateway):
        compile_route({"envoy": {"metadata": {"typed_filter_metadata": {"x": {"@type": "a/antigravity.X"}}}}})
    assert "antigravity" not in sys.modules


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["route", "match", "metadata", "typed_per_filter_config", "timeout", "@type", "value", "x"]
)


@settings(max_examples=150)
@given(st.dictionaries(_KEYS, _JSON | st.dictionaries(_KEYS, _JSON, max_size=3), max_size=3))
def test_raw_fields_are_taken_or_are_mistakes(raw: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidGateway):
        compile_route({"envoy": raw})


@pytest.mark.parametrize(
    "when",
    [
        "request.size > 9223372036854775808",
        "request.size == 0xFFFFFFFFFFFFFFFF",
        "1u == 99999999999999999999u",
        f"1 == {'9' * 5000}",
        r"request.path == '\ud800'",
    ],
)
def test_a_constant_that_cel_does_not_have_is_a_mistake(when: str) -> None:
    with pytest.raises(InvalidGateway, match=r"routes\.odd\.policies\.authorize"):
        compile_route({"policies": {"authorize": {"when": when}}})


@pytest.mark.parametrize("key", ["max_body", "timeout"])
def test_a_number_of_very_many_digits_is_a_mistake(key: str) -> None:
    for text in ("9" * 401, "9" * 401 + "s", "9" * 401 + "KB"):
        with pytest.raises(InvalidGateway, match=rf"routes\.odd\.{key}"):
            compile_route({key: text})


def test_defaults_within_defaults_have_an_end() -> None:
    reading = read(BASE + f"x-deep: '{'${A:-' * 3000}{'}' * 3000}'\n")
    assert [one.message for one in reading.errors] == ["too many variables within each other"]


def test_a_variable_of_bytes_that_are_no_text_is_a_mistake() -> None:
    text = BASE + "routes: {odd: {path: /odd, upstream: users, request_headers: {set: {x-a: '${ODD}'}}}}\n"
    reading = read(text, {"ODD": b"a\xff".decode("utf-8", "surrogateescape")})
    assert "the environment variable ODD is not UTF-8" in [one.message for one in reading.errors]
