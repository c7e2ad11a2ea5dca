"""The levels of policies, as a person would choose them: what all routes have is written once, and what some share is a set."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from xds_server.imports.draft import COUNTED, Draft

_FEW = 2
"""Routes from which on policies are shared."""


def share(draft: Draft) -> None:
    """Move the policies that all routes have to `policies`, and equal groups of policies of some routes to a set.

    Limits stay where they are: those of each level apply together, and those of a set are counted together.
    """
    routes = list(draft.sections.get("routes", {}).values())
    if len(routes) < _FEW:
        return
    _to_all(draft, routes)
    _to_sets(draft)


def _to_all(draft: Draft, routes: list[dict[str, Any]]) -> None:
    counts = Counter((key, _form(value)) for one in routes for key, value in one.get("policies", {}).items())
    known = draft.sections.get("policies", {})
    for (key, form), count in counts.items():
        if count < len(routes) or key in known or key in COUNTED or any("use" in one for one in routes):
            continue
        draft.sections.setdefault("policies", {})[key] = json.loads(form)
        for one in routes:
            del one["policies"][key]
            if not one["policies"]:
                del one["policies"]


def _to_sets(draft: Draft) -> None:
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, one in draft.sections["routes"].items():
        shared = {key: value for key, value in one.get("policies", {}).items() if key not in COUNTED}
        if shared and "use" not in one:
            groups.setdefault(_form(shared), []).append((name, one))
    for form, members in groups.items():
        if len(members) <= _FEW:
            continue
        set_ = draft.add("policy_sets", "-".join(sorted(json.loads(form))), json.loads(form))
        for _, one in members:
            one["use"] = [set_]
            one["policies"] = {key: value for key, value in one["policies"].items() if key in COUNTED}
            if not one["policies"]:
                del one["policies"]


def _form(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
