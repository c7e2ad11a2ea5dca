"""The gateway that an importer writes: objects of the language, files beside them, and what has no equal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from filters.language import Path, Place, Problem
from filters.language.problems import short_repr
from xds_server.imports.coverage import Source
from xds_server.imports.nginx_directives import Directive
from xds_server.imports.source import Field

SECTIONS = (
    "listeners",
    "secrets",
    "upstreams",
    "identity",
    "plans",
    "consumers",
    "policies",
    "policy_sets",
    "routes",
    "stream_routes",
    "catalog",
    "telemetry",
)
"""The sections in the order in which they are written."""
CLOSED: Mapping[str, Any] = {"ip_access": {"deny": ["0.0.0.0/0", "::/0"]}}
"""The policies of a route with a rule that could not be imported: nobody may call it until somebody writes the rule."""
NEVER: Mapping[str, Any] = {"hosts": ["not-imported.invalid"]}
"""The conditions of a route whose own could not be imported (RFC 6761: no host has a name in .invalid)."""
COUNTED = frozenset({"rate_limit", "quota", "concurrency"})
"""Policies that count. In a policy set, they count all routes that use it together."""
RANK = "_rank"
"""The key by which an importer notes the `Rank` of a route, until `precedence.keep` takes it away."""
UNKNOWN = "_unknown"
"""The key by which an importer notes which conditions of a route that never matches are known."""
BELOW = "_below_only"
"""The key by which an importer notes that `/x/*` has in its source the paths below `/x`, and not `/x` itself."""
_LONGEST = 100


class Written(Protocol):
    """A part of a source, with its place."""

    @property
    def value(self) -> Any:
        """What is written there."""

    @property
    def path(self) -> Path:
        """Its keys from the top of the document."""

    @property
    def place(self) -> Place:
        """Where it is written."""


@dataclass(frozen=True, slots=True)
class Rank:
    """What decides in the source which of two routes gets a request that both match: the greater `value`.

    Only routes of one `scope` are compared. If both have a `prefix`, its length decides whatever the `value`. `by_host` says that
    the source looks at the host before it looks at the value, as the language does. `field` is the route in the source.
    """

    value: tuple[float, ...]
    field: Written
    scope: str = ""
    prefix: float | None = None
    by_host: bool = False

    def __deepcopy__(self, _memo: object) -> Rank:
        return self


class Draft:
    """The gateway so far."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.problems: list[Problem] = []
        self.sources: list[Source] = []
        """What was imported."""

    def add(self, section: str, wanted: str, value: Mapping[str, Any]) -> str:
        """Add an object under a name that is like the wanted one, and return the name."""
        name = self.name(section, wanted)
        self.sections.setdefault(section, {})[name] = deepcopy(dict(value))  # no two objects share a part
        return name

    def add_routes(self, wanted: str, routes: Sequence[Mapping[str, Any]]) -> None:
        """Add the routes that one object of the source becomes. Its limits count them together, so they go to a policy set."""
        policies = routes[0].get("policies", {}) if routes else {}
        counted = {key: value for key, value in policies.items() if key in COUNTED}
        use = [self.add("policy_sets", f"{wanted}-limits", counted)] if counted and len(routes) > 1 else []
        for one in routes:
            route = dict(one)
            if use:
                route["use"] = [*route.get("use", ()), *use]
                route["policies"] = {key: value for key, value in policies.items() if key not in COUNTED}
                if not route["policies"]:
                    del route["policies"]
            self.add("routes", wanted, route)

    def share_limits(self, name: str) -> None:
        """Move the limits of a route to a policy set, so that a copy of it counts with it."""
        route = self.sections["routes"][name]
        policies = route.get("policies", {})
        counted = {key: policies.pop(key) for key in COUNTED & policies.keys()}
        if counted:
            route["use"] = [*route.get("use", ()), self.add("policy_sets", f"{name}-limits", counted)]
            if not policies:
                del route["policies"]

    def drop_unused(self) -> None:
        """Remove policy sets that no route uses any more."""
        used = {name for one in self.sections.get("routes", {}).values() for name in one.get("use", ())}
        sets = self.sections.get("policy_sets", {})
        for name in sets.keys() - used:
            del sets[name]

    def name(self, section: str, wanted: str) -> str:
        """Return a free name of a section that is like the wanted one."""
        base = usable(wanted)
        known = self.sections.get(section, {})
        name, number = base, 2
        while name in known:
            name, number = f"{base}-{number}", number + 1
        return name

    def warn(self, field: Written, message: str, remedy: str = "") -> None:
        """Report something that is not as before."""
        self._report(field, message, remedy, "warning")

    def insecure(self, field: Written, message: str, remedy: str = "") -> None:
        """Report that a rule of security is lost. The importer must close what it protects."""
        self._report(field, message, remedy, "error")

    def rest(self, roots: Iterable[Field | Directive]) -> None:
        """Report what nobody has read."""
        for root in roots:
            self.sources.append(root)
            self.unread(root)

    def unread(self, root: Field | Directive) -> None:
        """Report what nobody has read of a part of a source."""
        for one in root.unread():
            if not one.path:
                if not any(known.place == one.place and not known.path for known in self.problems):
                    self.insecure(
                        one, "nothing of this file is of this kind", "name the kind that the file has"
                    )
                continue
            self.warn(one, "has no equal and is left out", "see whether you need it")

    def _report(self, field: Written, message: str, remedy: str, severity: Any) -> None:
        value = None if isinstance(field.value, dict | list) else short_repr(field.value)
        self.problems.append(
            Problem(
                path=field.path,
                message=message,
                remedy=remedy,
                value=value,
                severity=severity,
                place=field.place,
            )
        )


def usable(text: str) -> str:
    """Return a name of the language that is like a text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:_LONGEST] or "unnamed"


def duration(milliseconds: float) -> str:
    """Return a duration of the language."""
    whole = round(milliseconds)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}ms"


def url(text: str) -> SplitResult:
    """Return the parts of a URL; those of a text that is none are empty."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return urlsplit("")
    return parts


def network(host: str, port: int | str) -> str:
    """Return the address of an endpoint."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
