"""A gateway as a person would write it: YAML with one line for what fits into one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from xds_server.imports.draft import SECTIONS

_ORDER = ("hosts", "listeners", "path", "methods", "headers", "query", "order", "upstream", "split", "redirect", "respond", "rewrite", "timeout", "retry",
          "websocket", "max_body", "use", "policies")  # fmt: skip
_WIDTH = 110
_INDENT = "  "


def written(sections: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the file of a gateway."""
    known = [one for one in SECTIONS if sections.get(one)]
    ordered = {
        **sections,
        "routes": {name: _ordered(one) for name, one in sections.get("routes", {}).items()},
    }
    return "\n".join("\n".join(_lines(one, ordered[one], 0)) + "\n" for one in known).encode()


def _ordered(route: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route with its conditions first, then where it goes, then its policies."""
    known = {key: route[key] for key in _ORDER if key in route}
    return {**known, **{key: value for key, value in route.items() if key not in known}}


def _lines(key: str, value: Any, depth: int) -> Iterator[str]:
    """Yield the lines of a key. Sections and their objects have lines of their own if they are long."""
    flow = f"{_INDENT * depth}{_scalar(key)}: {_flow(value)}"
    if not isinstance(value, Mapping | list) or not value or (depth > 0 and len(flow) <= _WIDTH):
        yield flow
        return
    yield f"{_INDENT * depth}{_scalar(key)}:"
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _lines(str(name), one, depth + 1)
        return
    for one in value:
        yield from _element(one, depth + 1)


def _element(value: Any, depth: int) -> Iterator[str]:
    flow = f"{_INDENT * depth}- {_flow(value)}"
    if not isinstance(value, Mapping) or len(flow) <= _WIDTH:
        yield flow
        return
    begin = f"{_INDENT * depth}- "
    for name, one in value.items():
        lines = list(_lines(str(name), one, depth + 1))
        yield begin + lines[0].lstrip(" ")
        yield from lines[1:]
        begin = _INDENT * (depth + 1)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key))}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Return a scalar. A dollar with a brace is no variable: the file had it as text."""
    if isinstance(value, str):
        value = value.replace("${", "$${")
        if value.lower() in ("yes", "no", "on", "off", "y", "n"):
            return f'"{value}"'
    text: str = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9)
    return text.strip()[1:-1]
