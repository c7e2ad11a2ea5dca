"""Whether one request can match two routes, and the conditions of the requests that do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from xds_server.gateway.model.paths import PathMatch, parse_path
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.precedence import host_rank

_NOTHING = "(?:)"
"""An empty group: a regular expression with more of them is longer, so it wins, and matches the same."""


def host_order(host: str) -> tuple[bool, bool, int]:
    """Return the sort key of a host without its name."""
    return host_rank(host)[:3]


def narrower(one: str, other: str) -> str:
    """Return the host of two, of which one covers the other, that has fewer hosts."""
    return min(one, other, key=host_order)


def _host_covers(one: str, other: str) -> bool:
    return one in ("*", other) or (one.startswith("*.") and other.endswith(one[1:]))


def common_hosts(mine: Iterable[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of hosts that have a host in common."""
    return [
        (one, other)
        for one in mine
        for other in theirs
        if _host_covers(one, other) or _host_covers(other, one)
    ]


def may_meet(one: Ranked, other: Ranked) -> bool:
    """Whether one request may match both routes. Hosts are not compared."""
    if not paths_meet(one.route.match, other.route.match):
        return False
    if one.methods and other.methods and not one.methods & other.methods:
        return False
    if not listeners_meet(one, other):
        return False
    for kind in ("headers", "query"):
        first, second = (
            {
                name.lower() if kind == "headers" else name: value
                for name, value in getattr(each.route, kind).items()
            }
            for each in (one, other)
        )
        for name in first.keys() & second.keys():
            a, b = first[name], second[name]
            if (
                a.exact is not None
                and b.exact is not None
                and not a.invert
                and not b.invert
                and a.exact != b.exact
            ):
                return False
    return True


def listeners_meet(one: Ranked, other: Ranked) -> bool:
    """Whether both are routes of one listener."""
    mine, theirs = one.route.listeners, other.route.listeners
    return not mine or not theirs or bool(set(mine) & set(theirs))


def paths_meet(one: PathMatch, other: PathMatch) -> bool:
    """Whether two paths may have a path in common. It is exact if one of them is exact, or if both are prefixes."""
    mine, theirs = beginning(one), beginning(other)
    if not mine.startswith(theirs) and not theirs.startswith(mine):
        return False
    for a, b in ((one, other), (other, one)):
        if b.kind == "exact":
            return path_covers(a, b)
    if one.kind == other.kind == "prefix":
        return path_covers(one, other) or path_covers(other, one)
    for first, text in ((one, theirs), (other, mine)):
        if first.kind == "prefix" and len(text) > len(first.value):
            return text.startswith(f"{first.value}/")
    return True


def path_covers(one: PathMatch, other: PathMatch) -> bool:
    """Whether every path of the other one is surely one of this one."""
    if one == other:
        return True
    if other.kind == "exact":
        if one.kind == "exact":
            return one.value == other.value
        try:
            return re.fullmatch(one.regex, other.value) is not None
        except re.error:
            return True  # nobody knows
    if one.kind != "prefix":
        return False
    if one.value == "":
        return True
    text = beginning(other) if other.kind != "prefix" else f"{other.value}/"
    return text.startswith(f"{one.value}/")


@lru_cache(maxsize=65536)
def beginning(path: PathMatch) -> str:
    """Return the text with which every path surely begins."""
    if path.kind == "template":
        return path.value.partition("{")[0]
    if path.kind != "regex":
        return path.value
    text = path.value
    if not text.startswith("^") or "|" in text or "(?i)" in text:
        return ""
    found = re.match(r"(?:[^\\.^$*+?()\[\]{}|]|\\[^A-Za-z0-9])*", text[1:])
    literal = found[0] if found is not None else ""
    if text[1 + len(literal) : 2 + len(literal)] in ("*", "?", "{") and literal:
        literal = re.sub(r"(?s)(\\.|.)$", "", literal)
    return re.sub(r"\\(.)", r"\1", literal)


def covers(one: Ranked, other: Ranked) -> bool:
    """Whether a route surely matches every request that the other one matches."""
    hosts = all(any(_host_covers(mine, its) for mine in one.hosts) for its in other.hosts)
    methods = not one.methods or (bool(other.methods) and one.methods >= other.methods)
    listeners = not one.route.listeners or (
        bool(other.route.listeners) and set(one.route.listeners) >= set(other.route.listeners)
    )
    values = one.condition[2] <= other.condition[2] and one.condition[3] <= other.condition[3]
    return bool(
        hosts and methods and listeners and values and path_covers(one.route.match, other.route.match)
    )


def common(
    one: Ranked, other: Ranked, mine: Mapping[str, Any], theirs: Mapping[str, Any], hosts: Sequence[str]
) -> dict[str, Any] | None:
    """Return the conditions of the requests that both match, None if the paths of neither are paths of the other.

    `mine` and `theirs` are the routes as they are written, `hosts` those at which they meet.
    """
    first, second = one.route.match, other.route.match
    if path_covers(first, second):
        path = other.route.path
    elif path_covers(second, first):
        path = one.route.path
    else:
        return None
    found: dict[str, Any] = {} if list(hosts) == ["*"] else {"hosts": list(hosts)}
    found["path"] = path
    for key in ("methods", "listeners"):
        lists = [each[key] for each in (mine, theirs) if each.get(key)]
        if lists:
            found[key] = [item for item in lists[0] if all(item in each for each in lists)]
    for key in ("headers", "query"):
        a, b = mine.get(key, {}), theirs.get(key, {})
        if any(a[name] != b[name] for name in a.keys() & b.keys()):
            return None
        if a or b:
            found[key] = {**b, **a}
    for each in (mine, theirs):
        if "order" in each and each["path"] == path:
            found["order"] = each["order"]
    return found


def can_raise(one: Ranked, other: Ranked) -> bool:
    """Whether a copy of a route can win over the other one by a longer regular expression."""
    return one.route.match.kind in ("prefix", "regex") and other.route.match.kind in ("prefix", "regex")


def raised(one: Ranked, route: Mapping[str, Any], hosts: Sequence[str], length: int) -> dict[str, Any]:
    """Return the conditions of a route with a regular expression that is longer than `length` characters."""
    match = one.route.match
    pattern = match.value if match.kind == "regex" else _of_prefix(match.value)
    missing = length - len(pattern)
    if missing > 0:
        filled = _NOTHING * (missing // len(_NOTHING) + 1)
        pattern = (
            f"{pattern[:-1]}{filled}$"
            if pattern.endswith("$") and not pattern.endswith("\\$")
            else pattern + filled
        )
    found = {key: route[key] for key in ("listeners", "methods", "headers", "query") if key in route}
    return {**({} if list(hosts) == ["*"] else {"hosts": list(hosts)}), "path": f"~{pattern}", **found}


def _of_prefix(prefix: str) -> str:
    return f"^{re.escape(prefix)}(?:/.*)?$"


def moved(rest: Mapping[str, Any], source: PathMatch, path: str) -> dict[str, Any] | None:
    """Return what a route does, for another path that is one of its own. None if that cannot be written."""
    target = parse_path(path)
    found = dict(rest)
    if target == source:
        return found
    redirect = found.get("redirect", {})
    if "path" in redirect or str(redirect.get("to", "")).endswith("/*"):
        return (
            None
            if source.kind == "template" or str(redirect.get("path", redirect.get("to"))).endswith("/*")
            else found
        )
    rewrite = dict(found.get("rewrite", {}))
    if "path" not in rewrite:
        return found
    wanted = rewrite.pop("path")
    if source.kind != "prefix" or not wanted.endswith("/*"):
        return found if source.kind == "prefix" else None
    base = wanted.removesuffix("/*")
    if target.kind == "regex":
        end, text = ("(?:/|$)", "/") if not base else ("", base)
        rewrite |= {"regex": f"^{re.escape(source.value)}{end}", "substitution": text}
    else:
        more = target.value[len(source.value) :]
        rewrite["path"] = (base + more + ("/*" if target.kind == "prefix" else "")) or "/"
    return {**found, "rewrite": rewrite}
