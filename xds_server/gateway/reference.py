"""The reference of the language as Markdown, generated from the fields that the decoder uses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, Union, get_args, get_origin

from filters.language import DataSource, Percent, Rate, Raw, Size
from filters.language.decode import field_key
from filters.language.options import About, Off
from filters.pipeline import POLICIES
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.policies import Policies
from xds_server.gateway.schema import duration

HEAD = """# Reference of the gateway language

Made by `make docs` from the fields that the decoder itself reads. Durations are written `250ms`, `5s`, `1h`; sizes
`10KB` (1000) or `10KiB` (1024); percentages `10%`; rates `1000/hour`. `${NAME}` and `${NAME:-default}` read the
environment of the control plane. A key in bold must be given.
"""
_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "number",
    float: "number",
    Any: "anything",
    Raw: "raw Envoy fields",
    Off: "off",
    timedelta: "duration",
    Size: "size",
    Percent: "percentage",
    Rate: "rate",
    Policies: "[policies](#policies)",
}


def reference() -> str:
    """Return the whole reference."""
    found: dict[str, Any] = {}
    parts = [HEAD, "## Sections\n", *_table(Sections, found)]
    parts.append("\n## Policies\n\nIn the order in which they run; `off` removes a policy.\n")
    parts.append("| policy | stage | enforced by | value |\n|---|---|---|---|")
    for policy in POLICIES:
        shown = _shown(policy.settings, found)
        parts.append(f"| `{policy.key}` | {policy.stage} | {policy.enforced_by} | {shown} |")
    return "\n".join([*parts, *_objects(found)]) + "\n"


def reference_of(cls: Any, head: str) -> str:
    """Return the reference of another document of the same kind, whose top-level keys are the fields of a class."""
    found: dict[str, Any] = {}
    parts = [head, *_table(cls, found)]
    return "\n".join([*parts, *_objects(found)]) + "\n"


def _objects(found: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of all classes that were found, and of those that they lead to."""
    written: set[str] = set()
    while more := [name for name in found if name not in written]:
        for name in more:
            written.add(name)
            yield from ("", *_object(found[name], found))


def _object(cls: Any, found: dict[str, Any]) -> Iterator[str]:
    yield f"### {cls.__name__}\n\n{' '.join((cls.__doc__ or '').split())}\n"
    short = getattr(cls, "SHORTHAND", None)
    if short is not None and "not" not in short.schema:
        yield f"Short form: {short.what}.\n"
    yield from _table(cls, found)


def _table(cls: Any, found: dict[str, Any]) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    yield "| key | value | default | |\n|---|---|---|---|"
    for field in dataclasses.fields(cls):
        about: About | None = field.metadata.get("about")
        if about is not None and not (
            issubclass(cls, DataSource) and field.name == "inline" and _secret(cls)
        ):
            required = field.default is dataclasses.MISSING is field.default_factory
            key = f"**`{field_key(field)}`**" if required else f"`{field_key(field)}`"
            hint = hints[field.name]
            if about.others:
                key, hint = "any other name", get_args(hint)[1]
            doc = about.doc.replace("|", "\\|")
            yield f"| {key} | {_shown(hint, found)}{_bounds(about)} | {_default(field)} | {doc} |"


def _secret(cls: Any) -> bool:
    return bool(cls.__name__ == "SecretSource")


def _bounds(about: About) -> str:
    if about.refers:
        return f" (a name in `{about.refers}`)"
    if about.minimum is not None and about.maximum is not None:
        return f", {about.minimum:.12g} to {about.maximum:.12g}"
    if about.minimum is not None:
        return f", at least {about.minimum:.12g}"
    return f", at most {about.maximum:.12g}" if about.maximum is not None else ""


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, timedelta):
        return f"`{duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str | int | float) and value != "":
        return f"`{value}`"
    if isinstance(value, tuple) and value:
        return "`" + ", ".join(map(str, value)) + "`"
    return ""


def _shown(annotation: Any, found: dict[str, Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [_shown(member, found) for member in arguments if member is not types.NoneType]
        return " or ".join(dict.fromkeys(members))
    if annotation in _NAMES:
        return _NAMES[annotation]
    if origin is Literal:
        return ", ".join(f"`{member}`" for member in arguments)
    if origin is tuple:
        return f"list of {_shown(arguments[0], found)}"
    if origin is Mapping:
        return f"name → {_shown(arguments[1], found)}"
    found.setdefault(annotation.__name__, annotation)
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
