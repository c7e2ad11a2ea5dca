"""Prefixes of text: in the sources `/x` also has `/xy`, and here `/x/*` has only `/x` and what is below it.

Where such a route decides who may call, a second route has the other paths. Otherwise a wider route would have them, and let
requests pass that the source rejects.
"""

from __future__ import annotations

import re
from typing import Any

from xds_server.imports.draft import Draft
from xds_server.imports.protections import decides

TEXT = "_text_prefix"
"""The key by which an importer notes the prefix of a route, until `protect` takes it away."""


def protect(draft: Draft) -> None:
    """Add the second routes."""
    for name, route in [*draft.sections.get("routes", {}).items()]:
        text = route.pop(TEXT, None)
        if text is not None and decides(draft, route):
            draft.share_limits(name)
            draft.add("routes", f"{name}-more", _with_other_paths(route, text))


def _with_other_paths(route: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the route for the paths that begin with the text, and are not below it."""
    more = {**route, "path": f"~^{re.escape(text)}[^/].*$"}
    rewrite = dict(more.pop("rewrite", {}))
    if path := rewrite.pop("path", ""):
        rewrite |= {"regex": f"^{re.escape(text)}", "substitution": path.removesuffix("/*") or "/"}
    if rewrite:
        more["rewrite"] = rewrite
    if "path" in more.get("redirect", {}):
        more["redirect"] = {key: one for key, one in more["redirect"].items() if key != "path"}
    return more
