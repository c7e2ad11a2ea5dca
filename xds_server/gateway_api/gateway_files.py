"""The files of one Gateway in the gateway language: their values, their text, and what is left if a part is rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from filters.language import Problem
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.upstreams import NO_BACKEND, ServiceUpstream

UPSTREAMS_FILE = "upstreams.yaml"
CLOSES: Mapping[str, Any] = {NO_BACKEND: {"endpoints": []}}
"""The upstream of connections that are closed."""
_CONDITIONS = {
    "routes": ("listeners", "hosts", "path", "methods", "headers", "query", "order", "wrong_method"),
    "stream_routes": ("listeners", "server_names"),
}
_FAILS: Mapping[str, Mapping[str, Any]] = {
    "routes": {"respond": {"status": 500}},
    "stream_routes": {"upstream": NO_BACKEND},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFiles:
    """A Gateway in the gateway language. `files` are plain values by file, `contents` what the files refer to.

    `origins` has the object of each file, and `upstreams` the Service of each upstream. `texts` are files that somebody wrote,
    and `problems` what these must not refer to.
    """

    files: Mapping[str, Mapping[str, Any]]
    contents: Mapping[str, bytes]
    origins: Mapping[str, Object[Any]]
    upstreams: Mapping[str, ServiceUpstream]
    ports: frozenset[tuple[int, str]] = frozenset()
    """The ports of the listeners, each with TCP or UDP."""
    headless: tuple[Key, ...] = ()
    """Services of a mesh whose clients connect to the addresses of their pods."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Address and port of Services of a mesh, with the names by which clients of gRPC look for them (`xds:///NAME`)."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def origin(self, route: str) -> Object[Any] | None:
        """Return the object that a route of the language was made from."""
        found = (
            name
            for name, values in self.files.items()
            if route in values.get("routes", values.get("stream_routes", {}))
        )
        return next((self.origins.get(name) for name in found), None)

    def rejecting(self, routes: AbstractSet[str]) -> GatewayFiles:
        """Return the files with some routes of the language that do nothing but fail.

        Requests get 500, and connections of stream routes are closed.
        """
        files = {name: _rejecting(values, routes) for name, values in self.files.items()}
        if any(routes & values.get("stream_routes", {}).keys() for values in self.files.values()):
            files[UPSTREAMS_FILE] = {"upstreams": {**files[UPSTREAMS_FILE]["upstreams"], **CLOSES}}
        return replace(self, files=files)

    def failing_routes(self) -> AbstractSet[str]:
        """Return the routes that do nothing but fail."""
        return {
            name
            for values in self.files.values()
            for section in _FAILS
            for name, route in values.get(section, {}).items()
            if route == failing(route, section)
        }

    def leaving_out(self, routes: AbstractSet[str]) -> GatewayFiles:
        """Return the files without some routes."""
        files = {
            name: {
                section: {
                    key: one for key, one in found.items() if section not in _FAILS or key not in routes
                }
                for section, found in values.items()
            }
            for name, values in self.files.items()
        }
        return replace(self, files=files) if routes else self

    def rendered(self) -> dict[str, bytes]:
        """Return the files as YAML, in its form that is also JSON, with one line for each object."""
        return Renderer().rendered(self)


class Renderer:
    """Renders successive files of one Gateway. A file with the same values is not rendered again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Mapping[str, Any], bytes]] = {}

    def rendered(self, files: GatewayFiles) -> dict[str, bytes]:
        """Return the files as YAML."""
        now = {}
        for name, values in files.files.items():
            known = self._known.get(name)
            same = known is not None and (known[0] is values or known[0] == values)
            now[name] = known if known is not None and same else (values, _rendered(values))
        self._known = now
        return {**{name: content for name, (_, content) in now.items()}, **files.texts}


def _rejecting(values: Mapping[str, Any], routes: AbstractSet[str]) -> Mapping[str, Any]:
    changed = {
        section: {name: failing(one, section) if name in routes else one for name, one in found.items()}
        for section, found in values.items()
        if section in _FAILS and routes & found.keys()
    }
    return {**values, **changed}


def failing(route: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """Return a route of a section for the same requests or connections, which fail whatever it would do."""
    return {**{key: route[key] for key in _CONDITIONS[section] if key in route}, **_FAILS[section]}


def _rendered(values: Mapping[str, Any]) -> bytes:
    """Return plain values as YAML that is also JSON: one line for each object, so that a person can read and compare it."""
    lines = ["{"]
    for section_number, (section, objects) in enumerate(values.items(), 1):
        lines.append(f" {json.dumps(section)}: {{")
        for number, (name, value) in enumerate(objects.items(), 1):
            comma = "," if number < len(objects) else ""
            text = json.dumps(_without_variables(value), ensure_ascii=False)
            lines.append(f"  {json.dumps(name)}: {text}{comma}")
        lines.append(" }" + ("," if section_number < len(values) else ""))
    return "\n".join([*lines, "}", ""]).encode()


def _without_variables(value: Any) -> Any:
    """Return plain values in which no text is read as a variable: whoever writes an object sees no environment."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: _without_variables(one) for key, one in value.items()}
    return list(map(_without_variables, value)) if isinstance(value, list | tuple) else value
