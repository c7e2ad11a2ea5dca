"""Example values: they fit their schema, end, and are those of the document if it has some."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.api_documents import openapi
from filters.api_documents.example_values import of_parameter, of_schema
from filters.api_documents.matching_texts import matching
from filters.api_documents.reference import ABSENT, ApiReference, Parameter, Schema

NAMES = ("A", "B")


def _document(schemas: dict[str, Any]) -> ApiReference:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "a", "version": "1"},
        "components": {"schemas": schemas},
    }
    return openapi.read(json.dumps(document).encode())


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_LEAVES = st.one_of(
    st.just({}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low: {"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 1},
        st.integers(-9, 9),
    ),
    st.builds(lambda step: {"type": "integer", "multipleOf": step, "minimum": 5}, st.integers(1, 9)),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    st.sampled_from([{"type": "string", "pattern": "^[A-Z]{3}-\\d+$"}, {"type": "string", "format": "uuid"}]),
    st.just({"type": "boolean"}),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers(), min_size=1, max_size=3)),
    st.just({"type": ["null", "string"]}),
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 2)),
        st.builds(
            lambda some, required: {"type": "object", "properties": some, "required": [one for one in required if one in some]},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.lists(st.sampled_from("abc"), unique=True),
        ),
        st.builds(lambda one: {"type": "object", "additionalProperties": one}, inner),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2)),
        st.builds(
            lambda one, name: {"type": "object", "properties": {"x": one, "again": _ref(name)}},
            inner,
            st.sampled_from(NAMES),
        ),
        st.builds(lambda name: {"type": "array", "items": _ref(name)}, st.sampled_from(NAMES)),
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, _SCHEMAS)), st.booleans())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_values_fit_their_schema(schemas: dict[str, Any], at_random: bool) -> None:
    reference = _document(schemas)
    for name in NAMES:
        chosen = random.Random(1) if at_random else None
        value = of_schema(Schema(ref=name), reference, random=chosen)
        json.dumps(value)
        whole = {**_ref(name), "components": {"schemas": schemas}}
        assert jsonschema_rs.Draft202012Validator(whole).is_valid(value), value


def test_the_document_knows_best() -> None:
    reference = _document(
        {
            "A": {
                "type": "object",
                "properties": {
                    "example": {"type": "string", "example": "mine"},
                    "default": {"type": "integer", "default": 7},
                    "const": {"const": "x"},
                    "read": {"type": "string", "readOnly": True},
                    "write": {"type": "string", "writeOnly": True},
                },
            }
        }
    )
    common = {"example": "mine", "default": 7, "const": "x"}
    assert of_schema(Schema(ref="A"), reference) == common | {"read": "text"}
    assert of_schema(Schema(ref="A"), reference, "request") == common | {"write": "text"}


def test_all_of_has_the_members_of_all_parts() -> None:
    reference = _document(
        {
            "Base": {"type": "object", "properties": {"id": {"type": "integer"}}},
            "A": {
                "allOf": [_ref("Base"), {"properties": {"a": {"type": "string"}}}],
                "properties": {"b": {"const": 1}},
            },
        }
    )
    assert of_schema(Schema(ref="A"), reference) == {"id": 0, "a": "text", "b": 1}


def test_a_value_that_would_have_no_end_ends() -> None:
    node = {
        "type": "object",
        "required": ["next"],
        "properties": {"next": _ref("A"), "some": {"type": "array", "items": _ref("A")}},
    }
    reference = _document({"A": node, "B": {"anyOf": [_ref("B"), {"type": "string"}]}, "C": _ref("C")})
    assert json.dumps(of_schema(Schema(ref="A"), reference))
    assert of_schema(Schema(ref="B"), reference) == "text"
    assert of_schema(Schema(ref="C"), reference) is ABSENT


def test_a_wide_schema_has_a_bounded_value() -> None:
    schemas = {
        f"S{number}": {
            "type": "object",
            "properties": {f"p{one}": _ref(f"S{number + 1}") for one in range(20)},
        }
        for number in range(9)
    }
    reference = _document({**schemas, "S9": {"type": "string"}})
    assert len(json.dumps(of_schema(Schema(ref="S0"), reference))) < 1_000_000


def test_a_parameter_has_its_example() -> None:
    parameter = Parameter(name="a", where="query", schema=Schema(types=("integer",)))
    assert of_parameter(parameter, _document({})) == 0


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^[A-Z]{3}-\d{4}$", "AAA-0000"),
        (r"^(foo|bar)+$", "foo"),
        (r"^v\d+(\.\d+)*$", "v0"),
        (r"^[\w.+-]+@[a-z]+\.(com|net)$", "a@a.com"),
        (r"a{2,5}b?c", "aac"),
        (r"^.{3}$", "xxx"),
        ("^[^a]$", None),
        ("(?=a)a", None),
        ("a{9999}", None),
        ("(", None),
        ("[", None),
        (r"\p{L}", None),
    ],
)
def test_simple_patterns_have_a_text(pattern: str, text: str | None) -> None:
    assert matching(pattern) == text


@given(st.text("ab[]{}()|\\d+*?^$.-,12:", max_size=12))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_a_text_matches_its_pattern(pattern: str) -> None:
    text = matching(pattern)
    assert text is None or re2.search(pattern, text)
