"""The kinds of configurations that can be imported, apart from Kubernetes, whose objects the server itself reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from filters.language import Place, Problem
from xds_server.gateway.document import Part, parse_all
from xds_server.imports import (
    apisix,
    envoy,
    kong,
    levels,
    local_answers,
    nginx,
    openapi,
    precedence,
    text_prefixes,
    traefik,
    unidentified,
)
from xds_server.imports.coverage import Row, rows
from xds_server.imports.draft import CLOSED, Draft
from xds_server.imports.written import written

NGINX = "nginx"
"""Its files are no YAML: they are read as crossplane has parsed them, as JSON."""
KINDS: Mapping[str, tuple[str, Callable[[Sequence[Part], Mapping[str, bytes]], Draft]]] = {
    "apisix": ("apisix.yaml of the standalone mode, or files of ADC", apisix.imported),
    "envoy": ("static configuration of Envoy (a bootstrap)", envoy.imported),
    "kong": ("declarative files of decK", kong.imported),
    NGINX: ("configuration of nginx, with what it includes", nginx.imported),
    "openapi": ("documents of OpenAPI 3 and Swagger 2", openapi.imported),
    "traefik": ("dynamic configuration of Traefik 3, as the file provider reads it", traefik.imported),
}
"""What each kind is, and what imports the documents of some files with these contents."""
FILE = "gateway.yaml"


@dataclass(frozen=True, slots=True)
class Imported:
    """The files of the new gateway, problems, and how much of the source was imported.

    Errors are rules of security that are lost, or files that cannot be read.
    """

    files: Mapping[str, bytes]
    problems: tuple[Problem, ...]
    coverage: tuple[Row, ...] = ()


def import_files(kind: str, files: Mapping[str, bytes]) -> Imported:
    """Return the gateway that some files of a kind describe. There are no files if one of them cannot be read."""
    parts: list[Part] = []
    problems: list[Problem] = []
    for name, content in files.items():
        found, faults = parse_all(name, content)
        parts += found
        problems += faults or _empty(name, found)
    if any(one.severity == "error" for one in problems):
        return Imported({}, tuple(problems))
    draft = KINDS[kind][1](parts, files)
    if any(one.severity == "error" and not one.path for one in draft.problems):
        return Imported({}, (*problems, *_sorted(draft.problems)))
    local_answers.adjust(draft)
    text_prefixes.protect(draft)
    precedence.keep(draft)
    unidentified.close(draft)
    keep_closed(draft)
    levels.share(draft)
    return Imported(
        files={FILE: written(draft.sections), **draft.files},
        problems=(*problems, *_sorted(draft.problems)),
        coverage=tuple(rows(draft.sources, draft.problems)),
    )


def keep_closed(draft: Draft) -> None:
    """Close routes and sets whose own `ip_access` would take the place of the one that closes all routes."""
    if draft.sections.get("policies", {}).get("ip_access") != CLOSED["ip_access"]:
        return
    for section in ("policy_sets", "routes"):
        for one in draft.sections.get(section, {}).values():
            policies = one if section == "policy_sets" else one.get("policies", {})
            if "ip_access" in policies:
                policies |= CLOSED


def _empty(name: str, found: Sequence[Part]) -> list[Problem]:
    """Return the problem of a file without values."""
    if any(part.values for part in found):
        return []
    return [
        Problem(path=(), message="the file is empty", place=Place(name, 1, 1), remedy="name another file")
    ]


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    """Return problems in the order of their places."""
    return sorted(dict.fromkeys(problems), key=lambda one: (one.place is None, one.place or "", one.message))
