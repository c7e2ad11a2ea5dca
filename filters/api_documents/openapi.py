"""OpenAPI 3.0, 3.1 and 3.2 documents as references of APIs. https://spec.openapis.org/oas/v3.2.0.html"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from filters.api_documents.anchors import Anchors
from filters.api_documents.faults import MOST_FAULTS, DocumentFaults, Fault
from filters.api_documents.openapi_schemas import BUNDLE, Schemas, is_remote, target
from filters.api_documents.openapi_versions import opened
from filters.api_documents.reference import (
    ABSENT,
    ANY,
    ApiReference,
    Body,
    Example,
    MediaType,
    Operation,
    Parameter,
    Response,
    Schema,
    SecurityNeed,
    SecurityScheme,
    Server,
    Tag,
)
from filters.language import Path
from filters.language.problems import did_you_mean

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
_STYLES = {"path": "simple", "query": "form", "querystring": "form", "header": "simple", "cookie": "form"}
_IGNORED = frozenset({"accept", "content-type", "authorization"})
"""Header parameters that OpenAPI says to ignore."""
_LONGEST_CHAIN = 64
"""References, one to the next."""
_NAMES = re.compile(r"\{([^{}/]+)\}")
_STATUS = re.compile(r"[1-5](?:\d\d|XX)|default")
Object = Mapping[str, Any]


def read(content: bytes, base_path: str | None = None) -> ApiReference:
    """Return the reference of a document. `base_path` replaces the path of its first server. Raises DocumentFaults."""
    value, version = opened(content)
    reader = _Reader(value, old=version.startswith("3.0."))
    reference = reader.reference(base_path)
    if reader.faults:
        raise DocumentFaults(*reader.faults)
    return reference


class _Faults:
    """The faults of a document. The reader and its schemas refer to it, and not to each other: a cycle would keep the
    document until the next collection, and a compilation of many documents runs without any.
    """

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def report(self, path: Path, message: str, remedy: str) -> None:
        fault = Fault(message=message, remedy=remedy, path=path)
        if len(self.found) < MOST_FAULTS and fault not in self.found:
            self.found.append(fault)


class _Reader:
    """Reads one document. It goes on after a fault, to report all of them."""

    def __init__(self, root: Object, *, old: bool) -> None:
        faults = _Faults()
        self.faults = faults.found
        self._root = root
        self._old = old
        self._report = faults.report
        self._schemas = Schemas(root, old=old, report=faults.report)

    def reference(self, base_path: str | None) -> ApiReference:
        """Return the reference. It means nothing if there are faults."""
        info = self._object(self._root, "info", ())
        for key in ("title", "version"):
            if not isinstance(info.get(key), str) and info.get(key) is None:
                self._report(("info",), f"'{key}' is missing", f"add {key}")
        servers = tuple(self._servers())
        base = base_path if base_path is not None else urlsplit(servers[0].url).path if servers else ""
        operations = tuple(self._operations())
        return ApiReference(
            kind="openapi",
            title=_text(info, "title"),
            version=_text(info, "version"),
            summary=_text(info, "summary"),
            description=_text(info, "description"),
            base_path=base.rstrip("/"),
            servers=servers,
            tags=tuple(
                Tag(name=_text(one, "name"), description=_text(one, "description"))
                for one, _ in self._objects(self._root, "tags", ())
            ),
            operations=operations,
            schemas=self._schemas.all_named(),
            security=dict(self._security_schemes()),
        )

    # Values of a kind --------------------------------------------------------------------------------------------

    def _object(self, owner: Object, key: str, path: Path) -> Object:
        """Return the mapping below a key, or an empty one."""
        value = owner.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._report((*path, key), f"'{key}' is a mapping", "correct the document")
            return {}
        return value

    def _objects(self, owner: Object, key: str, path: Path) -> Iterator[tuple[Object, Path]]:
        """Yield the mappings of a list, with their paths."""
        value = owner.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self._report((*path, key), f"'{key}' is a list", "write a dash before each item")
            return
        for number, one in enumerate(value):
            if isinstance(one, dict):
                yield one, (*path, key, number)
            else:
                self._report((*path, key, number), f"an item of '{key}' is a mapping", "correct the document")

    def _resolved(self, value: Any, path: Path) -> tuple[Object, Path]:
        """Return an object, or the one that it refers to, and the path of that. An empty one after a fault."""
        start = path
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(value, dict):
                self._report(path, "expected a mapping", "correct the document")
                return {}, path
            reference = value.get("$ref")
            if reference is None:
                return value, path
            where = target(reference)
            if where is None:
                remote = is_remote(reference)
                message = f"the reference {reference!r} leaves the document, and no other document is read"
                message = (
                    message if remote else "a reference is a text such as '#/components/parameters/NAME'"
                )
                self._report((*path, "$ref"), message, BUNDLE if remote else "correct the reference")
                return {}, path
            more = (
                {} if self._old else {key: value[key] for key in ("summary", "description") if key in value}
            )
            found = self._at(where)
            if found is ABSENT:
                self._report((*path, "$ref"), f"{reference} does not exist", self._near(where))
                return {}, path
            value, path = ({**found, **more} if isinstance(found, dict) and more else found), where
        self._report((*start, "$ref"), "the reference leads in a circle", "correct the reference")
        return {}, path

    def _at(self, where: Path) -> Any:
        value: Any = self._root
        for part in where:
            if isinstance(value, dict) and part in value:
                value = value[str(part)]
            elif isinstance(value, list) and str(part).isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return ABSENT
        return value

    def _near(self, where: Path) -> str:
        parent = self._at(where[:-1])
        near = did_you_mean(str(where[-1]), parent) if isinstance(parent, dict) and where else ""
        return near or "correct the reference"

    # Operations --------------------------------------------------------------------------------------------------

    def _operations(self) -> Iterator[Operation]:
        anchors = Anchors()
        paths = self._object(self._root, "paths", ())
        for template, written in paths.items():
            path: Path = ("paths", template)
            if template.startswith("x-"):
                continue
            if not template.startswith("/"):
                self._report(path, f"the path '{template}' does not begin with a slash", f"write /{template}")
                continue
            item, path = self._resolved(written, path)
            shared = tuple(self._parameters(item, path))
            found = [(one.upper(), (*path, one), item[one]) for one in item if one in METHODS]
            more = self._object(item, "additionalOperations", path)
            found += [(name, (*path, "additionalOperations", name), one) for name, one in more.items()]
            for method, where, one in found:
                if isinstance(one, dict):
                    yield self._operation(one, where, method, template, shared, anchors)
                else:
                    self._report(where, "an operation is a mapping", "correct the document")

    def _operation(
        self,
        value: Object,
        path: Path,
        method: str,
        template: str,
        shared: tuple[Parameter, ...],
        anchors: Anchors,
    ) -> Operation:
        parameters = {(one.where, one.name): one for one in (*shared, *self._parameters(value, path))}
        for name in _NAMES.findall(template):
            if ("path", name) not in parameters:
                message = f"the parameter '{name}' of the path is not described"
                self._report(
                    path, message, f"add {{name: {name}, in: path, required: true}} to its parameters"
                )
        tags = value.get("tags", [])
        if not isinstance(tags, list):
            self._report((*path, "tags"), "'tags' is a list of names", "write tags: [orders]")
            tags = []
        return Operation(
            id=anchors.new(_text(value, "operationId") or f"{method} {template}"),
            method=method,
            path=template,
            operation_id=_text(value, "operationId"),
            summary=_text(value, "summary"),
            description=_text(value, "description"),
            tags=tuple(map(str, tags)),
            deprecated=value.get("deprecated") is True,
            parameters=tuple(parameters.values()),
            body=self._body(value["requestBody"], (*path, "requestBody")) if "requestBody" in value else None,
            responses=tuple(self._responses(value, path)),
            security=tuple(self._needs(value, path)),
        )

    def _parameters(self, owner: Object, path: Path) -> Iterator[Parameter]:
        for written, written_at in self._objects(owner, "parameters", path):
            value, at = self._resolved(written, written_at)
            if not value:
                continue
            name, where = value.get("name"), value.get("in")
            if not isinstance(name, str) or not name:
                self._report(at, "a parameter has no name", "add name")
            elif not isinstance(where, str) or where not in _STYLES:
                message = f"expected one of {', '.join(_STYLES)}"
                self._report((*at, "in") if "in" in value else at, message, "write in: query")
            elif not (where == "header" and name.lower() in _IGNORED):
                yield self._parameter(value, at, name, where)

    def _parameter(self, value: Object, path: Path, name: str, where: Any) -> Parameter:
        """Return a parameter, or a header of a response, that has a `schema` or a `content`."""
        content = self._object(value, "content", path)
        style = _text(value, "style") or _STYLES[where]
        if content:
            kind = next(iter(content))
            media = self._media(content[kind], (*path, "content", kind), kind)
            schema, examples, json = media.schema, media.examples, "json" in kind
        else:
            schema = self._schema(value, path)
            examples, json = tuple(self._examples(value, path)), False
        return Parameter(
            name=name,
            where=where,
            schema=schema,
            required=value.get("required") is True or where == "path",
            deprecated=value.get("deprecated") is True,
            description=_text(value, "description"),
            examples=examples,
            style=style,
            explode=value.get("explode") is True
            if "explode" in value
            else style in ("form", "deepObject", "cookie"),
            json=json,
        )

    def _schema(self, owner: Object, path: Path) -> Schema:
        return self._schemas.convert(owner["schema"], (*path, "schema")) if "schema" in owner else ANY

    def _body(self, written: Any, written_at: Path) -> Body:
        value, path = self._resolved(written, written_at)
        return Body(
            content=tuple(self._content(value, path)),
            required=value.get("required") is True,
            description=_text(value, "description"),
        )

    def _content(self, owner: Object, path: Path) -> Iterator[MediaType]:
        for kind, written in self._object(owner, "content", path).items():
            yield self._media(written, (*path, "content", kind), kind)

    def _media(self, written: Any, written_at: Path, kind: str) -> MediaType:
        value, path = self._resolved(written if written is not None else {}, written_at)
        schema = self._schema(value, path)
        if "itemSchema" in value:  # OpenAPI 3.2: one of a sequence
            items = self._schemas.convert(value["itemSchema"], (*path, "itemSchema"))
            schema = Schema(types=("array",), items=items)
        return MediaType(name=kind.strip(), schema=schema, examples=tuple(self._examples(value, path)))

    def _examples(self, owner: Object, path: Path) -> Iterator[Example]:
        if "example" in owner:
            yield Example(value=owner["example"])
        for name, written in self._object(owner, "examples", path).items():
            value, _ = self._resolved(written, (*path, "examples", name))
            shown = value.get("dataValue", value.get("value", value.get("serializedValue", ABSENT)))
            yield Example(
                name=name,
                summary=_text(value, "summary"),
                description=_text(value, "description"),
                value=shown,
                url=_text(value, "externalValue"),
            )

    def _responses(self, owner: Object, path: Path) -> Iterator[Response]:
        for status, written in self._object(owner, "responses", path).items():
            if status.startswith("x-"):
                continue
            if not _STATUS.fullmatch(status):
                message = f"'{status}' is no status"
                self._report((*path, "responses", status), message, "write 200, 4XX or default")
                continue
            value, at = self._resolved(written, (*path, "responses", status))
            headers = self._object(value, "headers", at)
            described = {
                name: self._resolved(one, (*at, "headers", name))
                for name, one in headers.items()
                if name.lower() != "content-type"
            }
            yield Response(
                status=status,
                description=_text(value, "description") or _text(value, "summary"),
                content=tuple(self._content(value, at)),
                headers=tuple(
                    self._parameter(one, where, name, "header") for name, (one, where) in described.items()
                ),
            )

    # Servers and security ------------------------------------------------------------------------------------------

    def _servers(self) -> Iterator[Server]:
        for one, path in self._objects(self._root, "servers", ()):
            url = _text(one, "url") or "/"
            for name, variable in self._object(one, "variables", path).items():
                default = variable.get("default", "") if isinstance(variable, dict) else ""
                url = url.replace(f"{{{name}}}", str(default))
            try:
                urlsplit(url)
            except ValueError:
                self._report((*path, "url"), "not a URL", "write https://api.example.com/v1")
                continue
            yield Server(url=url, description=_text(one, "description") or _text(one, "name"))

    def _needs(self, owner: Object, path: Path) -> Iterator[tuple[SecurityNeed, ...]]:
        own = "security" in owner
        for one, _ in self._objects(owner if own else self._root, "security", path if own else ()):
            yield tuple(
                SecurityNeed(scheme=name, scopes=tuple(map(str, scopes)) if isinstance(scopes, list) else ())
                for name, scopes in one.items()
            )

    def _security_schemes(self) -> Iterator[tuple[str, SecurityScheme]]:
        components = self._object(self._root, "components", ())
        for name, written in self._object(components, "securitySchemes", ("components",)).items():
            value, path = self._resolved(written, ("components", "securitySchemes", name))
            kind = _text(value, "type")
            if value and not kind:
                self._report(
                    path, "'type' is missing", "write type: apiKey, http, oauth2, openIdConnect or mutualTLS"
                )
            yield (
                name,
                SecurityScheme(
                    name=name,
                    kind=kind,
                    description=_text(value, "description"),
                    scheme=_text(value, "scheme").lower(),
                    where=_text(value, "in"),
                    parameter=_text(value, "name"),
                    url=_text(value, "openIdConnectUrl"),
                ),
            )


def _text(value: Object, key: str) -> str:
    found = value.get(key, "")
    if isinstance(found, int | float) and not isinstance(found, bool):
        return str(found)  # a version without quotes
    return found if isinstance(found, str) else ""
