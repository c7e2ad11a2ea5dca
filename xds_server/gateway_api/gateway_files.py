"""The files of one Gateway in the gateway language: their values, their text, and what is left if a part is rejected."""

from __future__ import annotations

import json
import re
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
_ESCAPED = re.compile("[^\\x20-\\x7e\\xa0-\\u1fff\\u2030-\\ud7ff\\ue000-\\ufdff\\U00010000-\\U0010ffff]")
"""Characters that YAML rejects, reads as something else, or that nobody can see (section 5.1 of YAML 1.2)."""
_BASIC = 0xFFFF
_LONGEST_KEY = 1000
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
    """Return plain values as YAML that is nearly JSON: one line for each object, so that a person can read and compare it."""
    lines = ["{"]
    for section_number, (section, objects) in enumerate(values.items(), 1):
        lines.append(f" {_key(section)}: {{")
        for number, (name, value) in enumerate(objects.items(), 1):
            comma = "," if number < len(objects) else ""
            lines.append(f"  {_key(name)}: {_flow(value)}{comma}")
        lines.append(" }" + ("," if section_number < len(values) else ""))
    return "\n".join([*lines, "}", ""]).encode()


def _flow(value: Any) -> str:
    """Return a plain value as YAML in one line. Texts are no variables: whoever writes an object sees no environment."""
    if isinstance(value, str):
        return _scalar(value.replace("${", "$${"))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)


def _key(text: str) -> str:
    """Return a key. A long one is marked, because YAML looks for its colon in the next 1024 characters only."""
    written = _scalar(text)
    return written if len(written) < _LONGEST_KEY else f"? {written} "


def _scalar(text: str) -> str:
    """Return a text in quotes as JSON has it, with what YAML does not read as it stands there as escapes."""
    return _ESCAPED.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= _BASIC else f"\\U{code:08x}"
