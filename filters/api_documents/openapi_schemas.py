"""Schemas of OpenAPI 3.0, 3.1 and 3.2 as people read them. References stay references, so no schema is endless."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from filters.api_documents.reference import ABSENT, ANY, Property, Schema
from filters.language import Path
from filters.language.problems import did_you_mean

Report = Callable[[Path, str, str], None]
"""Reports a fault: its path, its message and its remedy."""
DEEPEST = 60
"""Levels of schemas within schemas that are read."""
_LIMITS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "contentEncoding",
    "contentMediaType",
)
_NAMED = ("components", "schemas")
BUNDLE = "put everything into one document, for example with: redocly bundle"


def target(reference: object) -> Path | None:
    """Return the path that a reference within the document leads to, or None for any other reference."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    parts = unquote(reference[2:]).split("/") if reference != "#" else []
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def is_remote(reference: object) -> bool:
    """True if a reference leads to another document."""
    return isinstance(reference, str) and not reference.startswith("#")


class Schemas:
    """Converts schemas, and collects the named ones that they refer to."""

    def __init__(self, root: Mapping[str, Any], *, old: bool, report: Report) -> None:
        self.named: dict[str, Schema] = {}
        self._root, self._old, self._report = root, old, report
        self._waiting: list[tuple[str, Any, Path]] = []
        self._known: set[str] = set()

    def all_named(self) -> Mapping[str, Schema]:
        """Return all named schemas: those of `components`, and those that a schema refers to elsewhere."""
        for name in self._components():
            self._want((*_NAMED, name))
        while self._waiting:
            name, value, path = self._waiting.pop()
            self.named[name] = self.convert(value, path)
        return dict(sorted(self.named.items()))

    def _components(self) -> Mapping[str, Any]:
        components = self._root.get("components")
        some = components.get("schemas") if isinstance(components, dict) else None
        return some if isinstance(some, dict) else {}

    def convert(self, value: Any, path: Path, depth: int = 0) -> Schema:
        """Return a schema. Faults are reported."""
        if value is True or value == {} or depth > DEEPEST:
            return ANY
        if value is False:
            return Schema(types=("never",))
        if not isinstance(value, dict):
            self._report(path, "a schema is a mapping", "write {type: string}, for example")
            return ANY
        if "$ref" in value:
            return self._referring(value, path)
        return Schema(
            types=self._types(value, path),
            format=_text(value, "format"),
            title=_text(value, "title"),
            description=_text(value, "description"),
            enum=self._enum(value, path),
            default=value.get("default", ABSENT),
            examples=_examples(value),
            properties=self._properties(value, path, depth),
            additional=self._additional(value, path, depth),
            items=self._part(value, "items", path, depth),
            prefix_items=self._parts(value, "prefixItems", path, depth),
            all_of=self._parts(value, "allOf", path, depth),
            any_of=self._parts(value, "anyOf", path, depth),
            one_of=self._parts(value, "oneOf", path, depth),
            limits=self._limits(value),
            deprecated=value.get("deprecated") is True,
            read_only=value.get("readOnly") is True,
            write_only=value.get("writeOnly") is True,
        )

    def _referring(self, value: Mapping[str, Any], path: Path) -> Schema:
        reference = value["$ref"]
        where = target(reference)
        if is_remote(reference):
            message = f"the reference {reference!r} leaves the document, and no other document is read"
            self._report((*path, "$ref"), message, BUNDLE)
        elif where is None and not isinstance(reference, str):
            self._report((*path, "$ref"), "a reference is a text", "write '#/components/schemas/NAME'")
        if where is None:
            return ANY  # an anchor, which pages cannot show
        name = self._want(where)
        if not name:
            remedy = did_you_mean(str(where[-1]), self._components()) if where else ""
            self._report((*path, "$ref"), f"{reference} does not exist", remedy or "correct the reference")
            return ANY
        if self._old:  # OpenAPI 3.0 ignores all other keys
            return Schema(ref=name)
        return Schema(
            ref=name,
            description=_text(value, "description"),
            deprecated=value.get("deprecated") is True,
            read_only=value.get("readOnly") is True,
            write_only=value.get("writeOnly") is True,
            default=value.get("default", ABSENT),
            examples=_examples(value),
        )

    def _want(self, where: Path) -> str:
        """Return the name of the schema at a path, or "" if there is none. It will be among the named ones."""
        name = str(where[2]) if len(where) == 3 and where[:2] == _NAMED else "/".join(map(str, where))
        if name in self._known:
            return name
        value: Any = self._root
        for part in where:
            if isinstance(value, dict):
                value = value.get(part, ABSENT)
            elif isinstance(value, list) and str(part).isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = ABSENT
            if value is ABSENT:
                return ""
        self._known.add(name)
        self._waiting.append((name, value, where))
        return name

    def _types(self, value: Mapping[str, Any], path: Path) -> tuple[str, ...]:
        written = value.get("type", [])
        types = [written] if isinstance(written, str) else written
        if not isinstance(types, list) or not all(isinstance(one, str) for one in types):
            self._report((*path, "type"), "a type is a text or a list of texts", "write type: string")
            return ()
        if self._old and value.get("nullable") is True and types:
            types = [*types, "null"]
        return tuple(types)

    def _enum(self, value: Mapping[str, Any], path: Path) -> tuple[Any, ...]:
        if "const" in value:
            return (value["const"],)
        written = value.get("enum", [])
        if not isinstance(written, list):
            self._report((*path, "enum"), "an enum is a list of values", "write enum: [a, b]")
            return ()
        return tuple(written)

    def _properties(self, value: Mapping[str, Any], path: Path, depth: int) -> tuple[Property, ...]:
        written, required = value.get("properties", {}), value.get("required", [])
        if not isinstance(written, dict):
            self._report((*path, "properties"), "properties are a mapping", "write NAME: {type: string}")
            return ()
        if not isinstance(required, list):
            message, remedy = "the names of required properties are a list", "write required: [id]"
            self._report((*path, "required"), message, remedy)
            required = []
        return tuple(
            Property(
                name=name,
                schema=self.convert(one, (*path, "properties", name), depth + 1),
                required=name in required,
            )
            for name, one in written.items()
        )

    def _additional(self, value: Mapping[str, Any], path: Path, depth: int) -> Schema | None:
        written = value.get("additionalProperties")
        if written is None or isinstance(written, bool):
            return None
        return self.convert(written, (*path, "additionalProperties"), depth + 1)

    def _part(self, value: Mapping[str, Any], key: str, path: Path, depth: int) -> Schema | None:
        return self.convert(value[key], (*path, key), depth + 1) if key in value else None

    def _parts(self, value: Mapping[str, Any], key: str, path: Path, depth: int) -> tuple[Schema, ...]:
        written = value.get(key, [])
        if not isinstance(written, list):
            self._report((*path, key), f"{key} is a list of schemas", f"write {key}: [{{…}}]")
            return ()
        return tuple(self.convert(one, (*path, key, number), depth + 1) for number, one in enumerate(written))

    def _limits(self, value: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        found = {key: value[key] for key in _LIMITS if key in value}
        for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if not isinstance(found.get(exclusive), bool):
                continue
            if found.pop(exclusive) and limit in found:  # OpenAPI 3.0
                found[exclusive] = found.pop(limit)
        return tuple(found.items())


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key, "")
    return found if isinstance(found, str) else ""


def _examples(value: Mapping[str, Any]) -> tuple[Any, ...]:
    some = value.get("examples")
    own = (value["example"],) if "example" in value else ()
    return (*own, *(some if isinstance(some, list) else ()))
