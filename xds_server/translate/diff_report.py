"""The difference of two gateways for people, for programs, and for the page of a merge request (Markdown)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.language import printable
from xds_server.translate import diff
from xds_server.translate.diff import Change, Difference
from xds_server.translate.readable_gateway import ReadableGateway

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_LONGEST = 72
"""Characters of a value."""
_MOST = 50
"""Changes in Markdown. A longer page is not read, and a comment has at most 65,536 characters (GitHub)."""
_MARKED = frozenset("\\`*_[]<>|~&#$@")
"""Characters that Markdown or HTML may take for their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The changes of the objects and of Envoy's resources."""

    objects: tuple[Change, ...]
    resources: tuple[Change, ...]

    @classmethod
    def of(cls, old: ReadableGateway, new: ReadableGateway) -> Report:
        """Compare two gateways."""
        return cls(objects=diff.readable_objects(old, new), resources=diff.resources(old, new))

    def __bool__(self) -> bool:
        return bool(self.objects or self.resources)


def as_json(report: Report) -> dict[str, Any]:
    """Return the changes for programs."""
    return {
        "gateway": [
            {
                "kind": one.kind,
                "name": one.name,
                "what": one.what,
                "keys": list(one.keys),
                "summary": summary(one),
                "differences": [dataclasses.asdict(value) for value in _shown(one)],
            }
            for one in report.objects
        ],
        "resources": [{"kind": one.kind, "name": one.name, "what": one.what} for one in report.resources],
    }


def as_text(report: Report, *, resources: bool) -> Iterator[str]:
    """Yield lines for people. Without `resources`, Envoy's are counted only."""
    yield f"gateway: {_count(report.objects)}"
    for change in report.objects:
        keys = f"  ({', '.join(change.keys)})" if change.keys else ""
        yield printable(f"  {_SIGNS[change.what]} {change.kind} {change.name}{keys}")
        words = summary(change)
        if words:
            yield printable(f"      {words}")
        for one in _shown(change):
            yield printable(f"      {one.key}: {_step(one)}" if one.key else f"      {_step(one)}")
    hint = "" if resources or not report.resources else "; --resources names them"
    yield f"Envoy: {_count(report.resources)}{hint}"
    if resources:
        for change in report.resources:
            yield printable(f"  {_SIGNS[change.what]} {change.kind} {change.name}")


def as_markdown(report: Report, *, resources: bool) -> Iterator[str]:
    """Yield lines of a page for a merge request. They depend on the changes only, and no value is taken for markup."""
    yield f"**Gateway: {_count(report.objects)}**"
    if report.objects:
        yield from ("", "| | object | what changes |", "|---|---|---|")
        for change in report.objects[:_MOST]:
            named = ((f"{_code(one.key)}: " if one.key else "", one) for one in _shown(change))
            details = [f"{name}{_step(one, code=True)}" for name, one in named]
            words = summary(change)
            cell = "<br>".join([*([escaped(words)] if words else []), *details])
            yield f"| {change.what} | {escaped(change.kind)} {_code(change.name)} | {cell} |"
        yield from _more(report.objects)
    yield from ("", f"Envoy: {_count(report.resources)} of resources")
    if resources and report.resources:
        yield from ("", "| | resource |", "|---|---|")
        for change in report.resources[:_MOST]:
            yield f"| {change.what} | {escaped(change.kind)} {_code(change.name)} |"
        yield from _more(report.resources)


def summary(change: Change) -> str:
    """Return a route in words: the requests that it takes, and what happens to them. "" for another object."""
    route = change.after if change.after is not None else change.before
    if change.kind != "routes" or not isinstance(route, Mapping):
        return ""
    methods = ", ".join(map(str, route.get("methods", ())))
    hosts = ", ".join(map(str, route.get("hosts", ())))
    requests = f"{methods or 'any method'} {route.get('path', '/*')}{f' of {hosts}' if hosts else ''}"
    return f"{requests}: {_action(route)}"


def _action(route: Mapping[str, Any]) -> str:
    if "upstream" in route:
        return f"to the upstream {route['upstream']}"
    split = route.get("split")
    if isinstance(split, Mapping):
        return "split over " + ", ".join(f"{name} ({weight})" for name, weight in split.items())
    if split is not None:
        return "split"
    if "redirect" in route:
        return f"redirect {_value(route['redirect'])}"
    if "respond" in route:
        return f"responds {_value(route['respond'])}"
    if "aggregate" in route:
        return f"{len(route['aggregate'].get('calls', ()))} calls, one response"
    return "a policy responds"


def _shown(change: Change) -> Iterator[Difference]:
    """Yield the values that differ. An added or removed object has them in its summary only, if it has one."""
    if change.what == "changed":
        yield from change.differences()


def _step(difference: Difference, *, code: bool = False) -> str:
    before, after = _value(difference.before), _value(difference.after)
    if before == after:  # they differ after the longest part that is shown
        return "changes within"
    show = _code if code else str
    return " → ".join(
        "unset" if value is None else show(text)
        for value, text in ((difference.before, before), (difference.after, after))
    )


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(text.replace("\n", " "))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _count(changes: Sequence[Change]) -> str:
    return f"{len(changes)} change" + ("" if len(changes) == 1 else "s")


def _more(changes: Sequence[Change]) -> Iterator[str]:
    if len(changes) > _MOST:
        yield from ("", f"and {len(changes) - _MOST} more")


def _code(text: str) -> str:
    return f"<code>{escaped(text)}</code>"


def escaped(text: str) -> str:
    """Return a text for a line of Markdown, in which nothing is taken for markup."""
    return "".join(f"&#{ord(one)};" if one in _MARKED else one for one in printable(text))
