"""Conditions of Kong's routes, and which route Kong prefers.

Source: the documentation of Kong Gateway 3 (traditional router, "How routing works"; expressions router).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from xds_server.imports.draft import BELOW, RANK, Draft, Rank
from xds_server.imports.precedence import never
from xds_server.imports.source import Field
from xds_server.imports.text_prefixes import TEXT

_PLAIN_PATH = re.compile(r"[A-Za-z0-9._~/%-]*")
"""What the traditional router before 3.0 took for a plain prefix and no regular expression."""
_HTTP = frozenset({"http", "https", "grpc", "grpcs", "ws", "wss"})


class Matches:
    """Imports the conditions of routes."""

    def __init__(self, draft: Draft, regex_by_tilde: bool) -> None:
        self._draft, self._regex_by_tilde = draft, regex_by_tilde

    def served_in_plain(self, route: Field) -> bool:
        """Report a route that is for TLS only, if there is no listener for it, and return whether it is one."""
        if not _is_secure(route) or "https" in self._draft.sections["listeners"]:
            return False
        self._draft.insecure(
            route,
            "the route is for TLS only, and there is no certificate, so it is closed",
            "write a listener with tls, and remove ip_access",
        )
        return True

    def of(self, route: Field) -> list[dict[str, Any]]:
        """Return the conditions of our routes for a route of Kong, with its rank there."""
        expression = route.get("expression")
        return self._expression(expression, route) if expression is not None else self._conditions(route)

    def _conditions(self, route: Field) -> list[dict[str, Any]]:
        """Return the conditions of our routes: one for each path and snippet of headers that has an equal."""
        common: dict[str, Any] = {}
        unknown = False
        hosts = []
        for one in route.elements("hosts"):
            host = one.text()
            if host.endswith(".*") or "*" in host.removeprefix("*."):
                self._draft.warn(one, "a host with * at its end has no equal", "write the hosts one by one")
            else:
                hosts.append(re.sub(r":\d+$", "", host))
        if hosts:
            common["hosts"] = hosts
        elif route.elements("hosts"):
            unknown = True
        if methods := route.texts("methods"):
            common["methods"] = [one.upper() for one in methods]
        headers = {
            name: _either(values.texts() or [values.text()]) for name, values in _mapping(route, "headers")
        }
        for name, values in _mapping(route, "headers"):
            if any(one.startswith("~*") for one in (*values.texts(), values.text())):
                self._draft.warn(
                    values,
                    "a regular expression of a header is not imported",
                    "write headers: {NAME: {regex: …}}",
                )
                headers.pop(name)
                unknown = True
        if headers:
            common["headers"] = headers
        snis = route.get("snis")
        if snis is not None:
            common.setdefault("hosts", snis.texts())
        if _is_secure(route):
            route.text("https_redirect_status_code")
            if "https" in self._draft.sections["listeners"]:
                common["listeners"] = ["https"]
        found = [{**common, **path} for path in self._paths(route)] or [common]
        ranked = [{**one, RANK: _rank(route, one)} for one in found]
        return [{RANK: one[RANK], **never(one)} for one in ranked] if unknown else ranked

    def _paths(self, route: Field) -> Iterator[dict[str, Any]]:
        priority = route.number("regex_priority")
        for one in route.elements("paths"):
            text = one.text()
            regex = text.startswith("~") if self._regex_by_tilde else not _PLAIN_PATH.fullmatch(text)
            if regex:
                pattern = text.removeprefix("~")
                # Kong's expressions match a prefix, ours the whole path
                anchored = pattern if pattern.startswith("^") else f"^{pattern}"
                found: dict[str, Any] = {"path": f"~{anchored}" + ("" if pattern.endswith("$") else ".*")}
                if priority:
                    found["order"] = -int(priority)
                yield found
                continue
            path = text.rstrip("/")
            if path and not text.endswith("/"):
                self._draft.warn(
                    one,
                    f"Kong's prefix {text} also has {text}x, and {path}/* has only {text} and {text}/…",
                    f"write another route if clients call {text}x",
                )
                yield {"path": f"{path}/*", TEXT: text}
                continue
            yield {"path": f"{path}/*", **({BELOW: True} if path else {})}

    def _expression(self, expression: Field, route: Field) -> list[dict[str, Any]]:
        """Return the conditions of an expression of the router `expressions`, if it is one of the simple ones."""
        found: dict[str, Any] = {RANK: Rank((route.number("priority") or 0,), route, "expressions")}
        text = expression.text()
        is_all = "||" not in text and "!" not in text
        unknown = not is_all
        for term in re.split(r"\s*&&\s*", text.strip("() ")) if is_all else ():
            match = re.fullmatch(r'\(?(http\.[a-z.]+)\s*(==|\^=|~)\s*"([^"]*)"\)?', term)
            kind = (match[1], match[2]) if match else ("", "")
            value = match[3] if match else ""
            path = {"==": value, "^=": value.rstrip("/") + "/*", "~": f"~{value}"}.get(kind[1], "")
            if kind[0] == "http.path" and "path" not in found:
                found["path"] = path
                if kind[1] == "^=" and not value.endswith("/"):
                    found[TEXT] = value
            elif kind == ("http.host", "==") and "hosts" not in found:
                found["hosts"] = [value]
            elif kind == ("http.method", "==") and "methods" not in found:
                found["methods"] = [value]
            else:
                unknown = True
        if not unknown:
            return [found]
        self._draft.warn(
            expression,
            "the expression is not imported, so the route never matches",
            "write path, hosts and methods",
        )
        return [{RANK: found[RANK], **never(found)}]


def _is_secure(route: Field) -> bool:
    """Whether a route is for TLS only."""
    protocols = set(route.texts("protocols")) or {"http", "https"}
    return not protocols & {"http", "grpc", "ws"}


def is_stream(route: Field) -> bool:
    """Whether a route is for connections and no requests."""
    protocols = set(route.texts("protocols"))
    return bool(protocols) and not protocols & _HTTP


def _rank(route: Field, match: dict[str, Any]) -> Rank:
    """Return what Kong sorts routes by: kinds of conditions, hosts without wildcards, headers, regex, its priority, length of the path."""
    kinds = sum(bool(route.get(one)) for one in ("methods", "hosts", "paths", "headers", "snis"))
    hosts = route.texts("hosts")
    path = match.get("path", "")
    is_regex = path.startswith("~")
    priority = (route.number("regex_priority") or 0) if is_regex else 0
    plain = bool(hosts) and not any("*" in one for one in hosts)
    headers = len(match.get("headers", ()))
    length = len(match.get(TEXT, path.removesuffix("*").rstrip("/") + "/" if path else ""))
    return Rank((kinds, plain, headers, is_regex, priority, length), route)


def _mapping(field: Field, name: str) -> Iterable[tuple[str, Field]]:
    found = field.get(name)
    return found.items() if found is not None else ()


def _either(values: Sequence[str]) -> Any:
    if len(values) == 1:
        return values[0]
    return {"regex": "|".join(re.escape(one) for one in values)}
