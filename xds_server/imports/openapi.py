"""OpenAPI documents (3.0, 3.1, 3.2 and Swagger 2.0) with the extensions of Google, AWS and Kong: one route for each operation.

Sources: the OpenAPI Specification; Google Cloud Endpoints and API Gateway (x-google-*); AWS API Gateway (x-amazon-apigateway-*).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import SplitResult

from xds_server.gateway.document import Part
from xds_server.gateway.model.routes import METHODS
from xds_server.imports import openapi_amazon, placeholders
from xds_server.imports.draft import CLOSED, Draft, duration, network, usable
from xds_server.imports.draft import url as split_url
from xds_server.imports.kong_plugins import Plugins, Policies
from xds_server.imports.kong_tokens import Tokens
from xds_server.imports.openapi_security import Security, referred
from xds_server.imports.source import Field

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
_ANY = "x-amazon-apigateway-any-method"
_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
_SILENT = re.compile(
    r"x-(google-(api-name|management)|amazon-apigateway-(importexport-version|request-validators?|binary-media-types|documentation)"
    r"|logo|tagGroups|codeSamples|kong-tags|internal|speakeasy.*)"
)
"""Extensions that change nothing of what a gateway does, or that are part of another one."""
_DOCUMENTATION = frozenset(
    ("info", "tags", "externalDocs", "components", "definitions", "parameters", "responses", "requestBody", "summary",
     "description", "operationId", "callbacks", "consumes", "produces", "jsonSchemaDialect", "webhooks", "$self")
)  # fmt: skip


def imported(parts: Sequence[Part], files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of some documents."""
    draft = Draft()
    draft.add("listeners", "http", {"port": 8080})
    for part in parts:
        _Document(Field.of(part), part.file, files[part.file], draft).write()
    placeholders.add(draft)
    return draft


class _Document:
    def __init__(self, root: Field, file: str, content: bytes, draft: Draft) -> None:
        self._root, self._content, self._draft = root, content, draft
        self._old = bool(root.text("swagger"))
        self._name = usable(root.text("info", "title").lower() or PurePosixPath(file).stem)
        self._file = _free(f"specs/{PurePosixPath(file).name}", draft)
        self._security = Security(root, draft, self._name)
        self._plugins = Plugins(draft, {}, Tokens(draft))
        self._upstreams: dict[tuple[str, str], str] = {}
        self._routes: list[str] = []
        self._whole = not self._old and not any(_remote(root.value))

    def write(self) -> None:
        """Add everything to the draft."""
        if not self._old and not self._root.text("openapi").startswith("3."):
            self._draft.insecure(
                self._root, "not an OpenAPI document of version 2.0 or 3", "write openapi: 3.1.0"
            )
            return
        self._closed = openapi_amazon.protects_api(self._root, self._draft)
        self._other_servers(self._root)
        paths = self._root.get("paths")
        for path, item in paths.items() if paths is not None else ():
            self._item(path, item)
        if (found := self._root.get("x-google-endpoints")) is not None:
            if any(one.true("allowCors") for one in found.elements()):
                self._draft.warn(
                    found, "preflight requests do not reach the service (allowCors)", "write cors"
                )
            found.read()
        if self._routes and self._whole:
            self._draft.files[self._file] = self._content
            self._draft.add("catalog", self._name, {"openapi": self._file, "routes": self._routes})
        elif not self._old and not self._whole:
            self._draft.warn(
                self._root,
                "the document refers to other files, so requests are not compared with it",
                "bundle the document, and import it again",
            )
        elif self._old:
            self._draft.warn(
                self._root.get("swagger") or self._root,
                "requests are compared with documents of version 3 only",
                "convert the document, and write validate: {openapi: FILE}",
            )
        self._draft.sources.append(self._root)
        for one in _extensions(self._root):
            self._draft.unread(one)

    def _item(self, path: str, item: Field) -> None:
        """Add the operations of a path. What has no equal here gets no other route either."""
        reference = item.get("$ref")
        if reference is not None:
            target = referred(self._root, reference.text())
            if target is None:
                self._draft.insecure(
                    reference, "it is not in this document, so the path answers 501", "bundle the document"
                )
                self._draft.add(
                    "routes", path, {"path": self._path(path, item, item), "respond": {"status": 501}}
                )
                return
            item = target
        operations = [(name, one) for name, one in item.items() if name in _METHODS or name == _ANY]
        others = item.get("additionalOperations")
        operations += others.items() if others is not None else ()
        for method, operation in operations:
            if method == _ANY or method.upper() in METHODS:
                self._operation(path, item, method, operation)
            else:
                self._draft.insecure(
                    operation, f"Envoy knows no method {method.upper()}, so other methods of this path answer 501",
                    "let clients send POST",
                )  # fmt: skip
                operation.read()
                self._draft.add(
                    "routes",
                    f"{method}-{path.strip('/')}",
                    {"path": self._path(path, item, operation), "respond": {"status": 501}},
                )
        self._other_servers(item, *(one for _, one in operations))

    def _other_servers(self, *owners: Field) -> None:
        for owner in owners:
            for one in owner.elements("servers")[1:]:
                one.read()
                self._draft.warn(
                    one, "only the first server is the upstream", "write another upstream if you need it"
                )

    def _operation(self, path: str, item: Field, method: str, operation: Field) -> None:
        own = self._kong(operation, item)
        route: dict[str, Any] = {"path": self._path(path, item, operation)}
        if method != _ANY:
            route["methods"] = [method.upper()]
        route |= self._action(path, item, operation, method)
        route |= own.keys
        if own.respond is not None:
            route = {key: value for key, value in route.items() if key in ("path", "methods")} | {
                "respond": own.respond
            }
        policies = {**own.rules, **self._security.of(operation), **self._limits(operation)}
        unsafe = openapi_amazon.protects_operation((operation, item), self._draft)
        if own.closed or self._closed or unsafe:
            policies |= CLOSED
        if self._whole and method in _METHODS and "respond" not in route:
            policies["validate"] = {"openapi": self._file}
        if cors := self._root.get("x-amazon-apigateway-cors"):
            policies["cors"] = _cors(cors)
        headers = self._lifecycle(operation)
        if headers:
            policies["response_headers"] = {"set": headers}
        if policies:
            route["policies"] = policies
        fallback = f"{method if method != _ANY else 'any'}-{path.strip('/')}"
        name = operation.text("x-kong-name") or operation.text("operationId") or fallback
        self._routes.append(self._draft.add("routes", name, route))

    def _path(self, path: str, item: Field, operation: Field) -> str:
        """Return the path with that of the server. Parameters get names that the language allows."""
        base = self._server(item, operation).path.rstrip("/")
        whole = f"{base}{path}"
        # the greedy parameters of AWS and of Google
        if match := re.fullmatch(r"(.*)/\{(?:[^{}/]+\+|[^{}/=]+=\*\*)\}", whole):
            return f"{match[1]}/*"
        if re.search(r"[^/]\{|\}[^/]", whole):
            pattern = "".join(
                "[^/]+" if part.startswith("{") else re.escape(part)
                for part in re.split(r"(\{[^{}]*\})", whole)
            )
            return f"~^{pattern}$"
        return re.sub(r"\{([^{}]*)\}", lambda found: "{" + _parameter(found[1]) + "}", whole)

    def _server(self, item: Field, operation: Field) -> SplitResult:
        """Return the first server of the operation, of its path or of the document."""
        if self._old:
            scheme = (self._root.texts("schemes") or ["https"])[-1]
            host, base = self._root.text("host"), self._root.text("basePath")
            return split_url(f"{scheme}://{host}{base}" if host else base)
        for one in (operation, item, self._root):
            for server in one.elements("servers"):
                url = server.text("url")
                server.read()
                variables = server.get("variables")
                for name, variable in variables.items() if variables is not None else ():
                    url = url.replace("{" + name + "}", variable.text("default"))
                return split_url(url)
        return split_url("")

    def _action(self, path: str, item: Field, operation: Field, method: str) -> dict[str, Any]:
        backend = (
            operation.get("x-google-backend")
            or item.get("x-google-backend")
            or self._root.get("x-google-backend")
        )
        if backend is not None:
            return self._google(backend, constant=backend.path != ("x-google-backend",), path=path)
        amazon = operation.get("x-amazon-apigateway-integration")
        if amazon is not None:
            return self._amazon(amazon, method)
        server = self._server(item, operation)
        if not server.hostname:
            self._draft.warn(
                self._root, "no server names a host, so the upstream has no endpoints", "write endpoints"
            )
            return {"upstream": self._upstream(self._name, None, {"endpoints": []})}
        return {"upstream": self._of_url(server)}

    def _google(self, backend: Field, *, constant: bool, path: str) -> dict[str, Any]:
        url = split_url(backend.text("address"))
        constant = backend.text("path_translation", default="CONSTANT_ADDRESS" if constant else "APPEND_PATH_TO_ADDRESS") == "CONSTANT_ADDRESS"  # fmt: skip
        action: dict[str, Any] = {"upstream": self._of_url(url, backend.text("protocol"))}
        base = url.path.rstrip("/")
        rewrite: dict[str, Any] = {"host": url.hostname} if url.hostname else {}
        if constant:
            rewrite["path"] = url.path or "/"
        elif base:
            names = re.sub(r"\{([^{}]*)\}", lambda found: "{" + _parameter(found[1]) + "}", path)
            rewrite["path"] = base + names
        if rewrite:
            action["rewrite"] = rewrite
        if seconds := backend.number("deadline"):
            action["timeout"] = duration(seconds * 1000)
        backend.read("disable_auth")
        if audience := backend.get("jwt_audience"):
            self._draft.warn(
                audience, "the gateway makes no tokens of Google for services", "let the service accept mTLS"
            )
            audience.read()
        return action

    def _amazon(self, amazon: Field, method: str) -> dict[str, Any]:
        kind = amazon.text("type").lower()
        url = split_url(amazon.text("uri"))
        if kind in ("http", "http_proxy") and url.hostname and "$" not in url.hostname:
            action: dict[str, Any] = {"upstream": self._of_url(url), "rewrite": {"host": url.hostname}}
            if path := url.path.replace("{proxy}", "*"):
                action["rewrite"]["path"] = re.sub(
                    r"\{([^{}]*)\}", lambda found: "{" + _parameter(found[1]) + "}", path
                )
            if milliseconds := amazon.number("timeoutInMillis"):
                action["timeout"] = duration(milliseconds)
            if method != _ANY:
                openapi_amazon.warn_of_method(amazon, method, self._draft)
            for name in (
                "httpMethod",
                "connectionType",
                "connectionId",
                "passthroughBehavior",
                "payloadFormatVersion",
                "responses",
            ):
                amazon.read(name)
            return action
        amazon.read()
        if kind == "mock":
            return openapi_amazon.mock(amazon)
        self._draft.warn(
            amazon,
            f"an integration of type {kind or 'none'} has no equal, so the route answers 501",
            "write an upstream",
        )
        return {"respond": {"status": 501}}

    def _of_url(self, url: SplitResult, protocol: str = "") -> str:
        tls = url.scheme in ("https", "grpcs")
        value: dict[str, Any] = {
            "endpoints": [network(url.hostname or "", url.port or _PORTS.get(url.scheme, 443))]
        }
        if tls:
            value["tls"] = {"sni": url.hostname}
        if url.scheme.startswith("grpc") or protocol in ("h2", "grpc"):
            value["protocol"] = "grpc" if url.scheme.startswith("grpc") else "http2"
        return self._upstream(url.hostname or self._name, protocol, value)

    def _upstream(self, wanted: str, protocol: str | None, value: Mapping[str, Any]) -> str:
        key = str(value["endpoints"]), str(protocol)
        if key not in self._upstreams:
            self._upstreams[key] = self._draft.add("upstreams", wanted, value)
        return self._upstreams[key]

    def _limits(self, operation: Field) -> dict[str, Any]:
        """Quotas of Google: the standard value of each metric that the operation costs."""
        costs = operation.get("x-google-quota", "metricCosts")
        limits = []
        for metric, cost in costs.items() if costs is not None else ():
            for one in self._root.elements("x-google-management") and self._root.get(
                "x-google-management"
            ).elements("quota", "limits"):  # type: ignore[union-attr]
                if one.text("metric") == metric and (number := one.get("values")) is not None:
                    limit: dict[str, Any] = {"requests": int(number.number("STANDARD") or 0), "per": "minute"}
                    if (costs_ := int(cost.number() or 1)) != 1:
                        limit["cost"] = costs_
                    limits.append(limit)
        return {"rate_limit": limits} if limits else {}

    def _lifecycle(self, operation: Field) -> dict[str, str]:
        """Return the headers of an operation that ends (RFC 9745, RFC 8594), if its document has dates."""
        headers = {}
        if sunset := operation.text("x-sunset"):
            headers["sunset"] = sunset
        deprecated = operation.get("deprecated")
        if deprecated is not None and deprecated.true():
            self._draft.warn(
                deprecated, "OpenAPI does not say since when, and the header Deprecation (RFC 9745) needs a date",
                "write response_headers: {set: {deprecation: '@SECONDS'}} at the route, or deprecated under catalog",
            )  # fmt: skip
        return headers

    def _kong(self, operation: Field, item: Field) -> Policies:
        """Return what plugins of Kong that are written as extensions become. Those of the operation win."""
        found = Policies()
        for owner in (self._root, item, operation):
            plugins = [one for name, one in owner.items() if name.startswith("x-kong-plugin-")]
            for one in plugins:
                one.value.setdefault("name", one.path[-1].removeprefix("x-kong-plugin-"))  # type: ignore[union-attr]
            more = self._plugins.policies(plugins)
            found.rules |= more.rules
            found.keys |= more.keys
            found.respond = more.respond or found.respond
            found.closed |= more.closed
        return found


def _remote(value: Any) -> Iterator[str]:
    """Yield the references that leave the document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in parts:
        if key == "$ref" and isinstance(one, str) and not one.startswith("#"):
            yield one
        yield from _remote(one)


def _free(wanted: str, draft: Draft) -> str:
    """Return the name of a file that no other document has."""
    path = PurePosixPath(wanted)
    name, number = path, 2
    while str(name) in draft.files:
        name, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return str(name)


def _parameter(name: str) -> str:
    """Return a name of a path's segment that the language allows."""
    name = name.removesuffix("=*")
    found = re.sub(r"\W+", "_", name)
    return found if not found[:1].isdigit() else f"_{found}"


def _cors(field: Field) -> dict[str, Any]:
    settings: dict[str, Any] = {"allow_origins": field.texts("allowOrigins") or ["*"]}
    for theirs, ours in (
        ("allowMethods", "allow_methods"),
        ("allowHeaders", "allow_headers"),
        ("exposeHeaders", "expose_headers"),
    ):
        if values := [one for one in field.texts(theirs) if one != "*"]:
            settings[ours] = values
    if field.true("allowCredentials"):
        settings["allow_credentials"] = True
    if seconds := field.number("maxAge"):
        settings["max_age"] = duration(seconds * 1000)
    return settings


def _extensions(root: Field) -> Iterator[Field]:
    """Yield the extensions that may change what a gateway does. The document itself is kept as a file."""
    owners = [root]
    paths = root.get("paths")
    for _, item in paths.items() if paths is not None else ():
        item = referred(root, item.text("$ref")) or item
        owners += [item, *(one for name, one in item.items() if name in _METHODS or name == _ANY)]
    for owner in owners:
        yield from (
            one
            for name, one in owner.items()
            if name.startswith("x-") and name != _ANY and not _SILENT.fullmatch(name)
        )
