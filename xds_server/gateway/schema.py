"""The JSON Schema (2020-12) of the language, generated from the fields that the decoder uses.

It is for completion in editors. A file that it rejects is wrong. A file that it accepts may still have errors between
keys.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, Union, get_args, get_origin

from filters.language import Percent, Rate, Raw, Size
from filters.language.datasource import SecretSource
from filters.language.decode import field_key
from filters.language.options import About, Off, Shorthand
from filters.pipeline import POLICIES
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.policies import Policies

Schema = dict[str, Any]
ID = "https://json-schema.org/draft/2020-12/schema"
VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
"""A value may come from the environment, and it is known only when the gateway is read."""

DURATION = r"^(\d+(\.\d+)?(us|ms|s|m|h|d))+$"
SIZE = r"^\d+(\.\d+)?\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"
PERCENT = r"^\d+(\.\d+)?%$"
RATE = r"^\d[\d_]*\s*/\s*(second|minute|hour|day|month)$"
_SCALARS: dict[Any, Callable[[], Schema]] = {
    str: lambda: {"type": ["string", "number"]},
    bool: lambda: {"type": "boolean"},
    float: lambda: {"type": "number"},
    int: lambda: {"type": "integer"},
    Any: dict,
    Raw: lambda: {"type": "object"},
    Off: lambda: {"enum": ["off", False]},
    timedelta: lambda: {"anyOf": [{"type": "string", "pattern": DURATION}, {"const": 0}]},
    Size: lambda: {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE}]},
    Percent: lambda: {"type": "string", "pattern": PERCENT},
    Rate: lambda: {"type": "string", "pattern": RATE},
}


def schema() -> Schema:
    """Return the schema of one file of a gateway."""
    definitions: dict[str, Schema] = {}
    root = _fields(Sections, definitions)
    root["properties"]["policies"] = {"$ref": "#/$defs/policies", "description": "Policies of every route."}
    definitions["policies"] = _policies(definitions)
    return _document(
        "gateway",
        "A gateway as a folder of YAML: every top-level key maps names to objects.",
        root,
        definitions,
    )


def schema_of(cls: Any, title: str, description: str) -> Schema:
    """Return the schema of another document of the same kind, whose top-level keys are the fields of a class."""
    definitions: dict[str, Schema] = {}
    return _document(title, description, _fields(cls, definitions), definitions)


def _document(title: str, description: str, root: Schema, definitions: dict[str, Schema]) -> Schema:
    return {
        "$schema": ID,
        "title": title,
        "description": description,
        **root,
        "patternProperties": {"^x-": {"description": "For anchors; its content is ignored."}},
        "$defs": dict(sorted(definitions.items())),
    }


def _policies(definitions: dict[str, Schema]) -> Schema:
    keys = {}
    for policy in POLICIES:
        schema = _type(policy.settings, About(""), definitions)
        keys[policy.key] = {"anyOf": [schema, {"enum": ["off", False]}]}
    return {"type": "object", "properties": keys, "additionalProperties": False}


def _fields(cls: Any, definitions: dict[str, Schema]) -> Schema:
    hints = typing.get_type_hints(cls)
    properties: dict[str, Schema] = {}
    required = []
    others: Schema | bool = False
    for field in dataclasses.fields(cls):
        about: About | None = field.metadata.get("about")
        if about is None:
            continue
        if about.others:
            others = _type(get_args(hints[field.name])[1], About(""), definitions) | {
                "description": about.doc
            }
            continue
        key = field_key(field)
        schema = _type(hints[field.name], about, definitions)
        properties[key] = _described(_some(schema) if about.narrows else schema, about, field)
        if field.default is dataclasses.MISSING is field.default_factory:
            required.append(key)
    result: Schema = {"type": "object", "properties": properties, "additionalProperties": others}
    return result | ({"required": required} if required else {})


def _some(schema: Schema) -> Schema:
    """Return the schema without empty values."""
    if "anyOf" in schema:
        return schema | {"anyOf": [_some(member) for member in schema["anyOf"]]}
    bounds = {"array": {"minItems": 1}, "object": {"minProperties": 1}, "string": {"minLength": 1}}
    kind = schema.get("type")
    if kind == "array" and schema.get("items", {}).get("type") == "string":
        schema = schema | {"items": {"minLength": 1, **schema["items"]}}
    return schema | (bounds.get(kind, {}) if isinstance(kind, str) else {})


def _described(schema: Schema, about: About, field: dataclasses.Field[Any]) -> Schema:
    result: Schema = {"description": about.doc}
    default = _plain(field.default)
    if default is not None:
        result["default"] = default
    return {**result, **schema}


def _plain(value: Any) -> Any:
    """Return a default as a user would write it, or None if there is none or it has no short form."""
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, str | bool | int | float) and value != "":
        return value
    if isinstance(value, tuple) and value and all(isinstance(item, str | int) for item in value):
        return list(value)
    return None


def duration(value: timedelta) -> str:
    """Return a duration as a user would write it."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _type(annotation: Any, about: About, definitions: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not types.NoneType]
        found = [_type(member, about, definitions) for member in members]
        return found[0] if len(found) == 1 else {"anyOf": found}
    if annotation in _SCALARS:
        return _bounded(_SCALARS[annotation](), annotation, about)
    if origin is Literal:
        return {"anyOf": [{"enum": list(arguments)}, VARIABLE]}
    if origin is tuple:
        items = _type(arguments[0], dataclasses.replace(about, minimum_items=0), definitions)
        return {"type": "array", "items": items} | (
            {"minItems": about.minimum_items} if about.minimum_items else {}
        )
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type(arguments[1], About(""), definitions)}
    if annotation is Policies:
        return {"$ref": "#/$defs/policies"}
    return _reference(annotation, definitions)


def _bounded(schema: Schema, annotation: Any, about: About) -> Schema:
    if annotation is str and about.pattern:
        return {"type": ["string", "number"], "anyOf": [{"pattern": f"^(?:{about.pattern})$"}, VARIABLE]}
    if annotation in (int, float):
        low = {"minimum": about.minimum} if about.minimum is not None else {}
        high = {"maximum": about.maximum} if about.maximum is not None else {}
        return {"anyOf": [schema | low | high, VARIABLE]}
    return schema if annotation in (str, Raw, Any, Off) else {"anyOf": [schema, VARIABLE]}


def _reference(cls: Any, definitions: dict[str, Schema]) -> Schema:
    name = cls.__name__
    if name not in definitions:
        definitions[name] = {}
        definitions[name] = _object(cls, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _object(cls: Any, definitions: dict[str, Schema]) -> Schema:
    long = _fields(cls, definitions) | {"description": (cls.__doc__ or "").strip()}
    if issubclass(cls, SecretSource):
        long["properties"].pop("inline", None)
    short: Shorthand | None = getattr(cls, "SHORTHAND", None)
    if short is None or "not" in short.schema:
        return long
    brief = dict(short.schema) | {"description": short.what}
    return {"anyOf": [brief, VARIABLE, long] if brief.get("type") != "string" else [brief, long]}
