"""Routes as HTTPRoutes: one object with one rule for each route, so that its name stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from filters.headers import HeaderMutation
from filters.language import Path
from filters.model.cors import CorsSettings
from filters.policy import Stage
from xds_server.exports.objects import GATEWAY_API, Manifest, Names, duration, manifest
from xds_server.exports.report import Report, Unexportable, left_out
from xds_server.exports.services import Target
from xds_server.gateway.model.actions import Backend, Mirror, Redirect, Rewrite
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.policies import by_key
from xds_server.gateway.model.routes import Route, ValueMatch

CLOSED = "closed"
"""The name of a Service that there is not: requests to it get 500, as the specification of the Gateway API says."""
MOST_HOSTS = 16
"""Hostnames that an HTTPRoute may have."""
_EXPORTED = ("path", "hosts", "listeners", "methods", "headers", "query", "upstream", "split", "redirect", "respond", "aggregate",
             "graphql", "max_body", "rewrite", "mirror", "timeout", "retry", "websocket", "request_headers", "response_headers", "use", "policies",
             "wrong_method")  # fmt: skip
_PROTECTING = (Stage.VALIDATE, Stage.ACCESS, Stage.AUTHENTICATE, Stage.AUTHORIZE)
"""Stages whose policies decide which requests reach a service."""
_PROTECTING_KEYS = frozenset({"rate_limit", "quota", "concurrency", "waf", "transform", "fields", "ext_proc"})
"""Policies of other stages that keep requests from a service, or parts of messages from a service or a client."""
_HEADERS = {"request_headers": "RequestHeaderModifier", "response_headers": "ResponseHeaderModifier"}
_REGEX = re.compile(r"[\\^$.|?*+()\[\]{}]")
Filters = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Exports routes. `parents` returns the references to listeners of a route, and `targets` are those of each upstream."""

    gateway: Gateway
    namespace: str
    report: Report
    names: Names
    targets: Mapping[str, tuple[Target, ...]]
    parents: Callable[[Route], list[dict[str, str]]]

    def objects(self) -> Iterator[Manifest]:
        """Yield an HTTPRoute for each route that has a listener."""
        for name, route in self.gateway.sections.routes.items():
            path = ("routes", name)
            parents = self.parents(route)
            if not parents:
                self.report.warn(path, "no listener of this route is exported, so it is left out")
                continue
            left_out(self.report, route, path, _EXPORTED, "a route")
            rules = [self._rule(name, route)]
            for begin in range(0, max(len(route.hosts), 1), MOST_HOSTS):
                hosts = list(route.hosts[begin : begin + MOST_HOSTS])
                spec = {"parentRefs": parents, **({"hostnames": hosts} if hosts else {}), "rules": rules}
                label = self.names.of(f"{name} from {begin}" if begin else name)
                yield manifest(GATEWAY_API, "HTTPRoute", label, self.namespace, spec=spec)

    def _rule(self, name: str, route: Route) -> dict[str, Any]:
        """Return the rule of a route, without a service if it must not be served as it could be exported."""
        path = ("routes", name)
        matches, lost = self._matches(route, path)
        try:
            if lost is not None:
                raise lost
            self._check_policies(name, route)
            if route.max_body is not None:
                raise Unexportable("'max_body' has no equal in the Gateway API", "max_body", security=True)
            filters = [*self._header_filters(name, route, path), *self._cors(name)]
            return {"matches": matches, **self._action(route, path, filters)}
        except Unexportable as error:
            self._closed(path, error)
            return {"matches": matches, "backendRefs": [_nothing()]}

    def _closed(self, path: Path, lost: Unexportable) -> None:
        where = (*path, *lost.path)
        message = f"{lost}; the route answers 500"
        if lost.security:
            self.report.error(where, message, "protect the service there, then name it in the HTTPRoute")
        else:
            self.report.warn(where, message)

    # Matches -----------------------------------------------------------------------------------------------------

    def _matches(self, route: Route, path: Path) -> tuple[list[dict[str, Any]], Unexportable | None]:
        """Return the matches of a route, and the first condition that they lack: then they match more than the route."""
        found: dict[str, Any] = {"path": self._path(route, path)}
        lost = None
        for key, kind, conditions in (
            ("headers", "headers", route.headers),
            ("query", "queryParams", route.query),
        ):
            listed = []
            for name, one in conditions.items():
                try:
                    listed.append(_value(name, one, (key, name)))
                except Unexportable as error:
                    lost = lost or error
            if listed:
                found[kind] = listed
        return [{**found, "method": one} for one in route.methods] if route.methods else [found], lost

    def _path(self, route: Route, path: Path) -> dict[str, str]:
        match = route.match
        if match.kind == "exact":
            return {"type": "Exact", "value": match.value}
        if match.kind == "prefix" and not match.value.endswith("/"):
            return {"type": "PathPrefix", "value": match.value or "/"}
        message = "a template or an expression becomes a RegularExpression, which not every controller serves in the same way"
        self.report.warn((*path, "path"), message, "compare with the documentation of the controller")
        return {"type": "RegularExpression", "value": match.regex}

    # Policies ----------------------------------------------------------------------------------------------------

    def _check_policies(self, name: str, route: Route) -> None:
        """Note the policies of a route that are lost. Raises Unexportable if one of them decides what reaches a service."""
        for key, settings in self.gateway.policies.get(name, {}).items():
            if key in ("cors", *_HEADERS):
                continue
            policy = by_key().get(key)
            where = ("policies", key)
            if policy is not None and not route.forwards and policy.for_local_answers(settings) is None:
                continue
            if policy is not None and (policy.stage in _PROTECTING or key in _PROTECTING_KEYS):
                raise Unexportable(
                    f"the policy '{key}' has no equal in the Gateway API", *where, security=True
                )
            self.report.warn(("routes", name, *where), f"the policy '{key}' has no equal in the Gateway API")

    def _header_filters(self, name: str, route: Route, path: Path) -> Filters:
        policies = self.gateway.policies.get(name, {})
        found: Filters = []
        for key, kind in _HEADERS.items():
            if isinstance(mutation := policies.get(key), HeaderMutation):
                where = (key,) if getattr(route, key) is not None else ("policies", key)
                found += self._modifier(mutation, kind, (*path, *where))
        return found

    def _modifier(self, mutation: HeaderMutation, kind: str, path: Path) -> Filters:
        changes: dict[str, Any] = {}
        for key, headers in (("set", mutation.set), ("add", mutation.add)):
            listed = []
            for name, value in headers.items():
                if "%" in value.replace("%%", ""):
                    self.report.warn((*path, key, name), "values with operators of Envoy are left out")
                else:
                    listed.append({"name": name, "value": value.replace("%%", "%")})
            if listed:
                changes[key] = listed
        if mutation.remove:
            changes["remove"] = list(mutation.remove)
        return [{"type": kind, _key(kind): changes}] if changes else []

    def _cors(self, name: str) -> Filters:
        settings = self.gateway.policies.get(name, {}).get("cors")
        if not isinstance(settings, CorsSettings):
            return []
        cors: dict[str, Any] = {
            "allowOrigins": list(settings.allow_origins),
            "allowMethods": list(settings.allow_methods),
            "allowHeaders": list(settings.allow_headers),
            "exposeHeaders": list(settings.expose_headers),
            "allowCredentials": settings.allow_credentials,
            "maxAge": int(settings.max_age.total_seconds()),
        }
        return [{"type": "CORS", "cors": {key: one for key, one in cors.items() if one not in ([], False)}}]

    # Actions -----------------------------------------------------------------------------------------------------

    def _action(self, route: Route, path: Path, filters: Filters) -> dict[str, Any]:
        if route.redirect is not None:
            return {"filters": [*filters, self._redirect(route.redirect, route, path)]}
        for key in ("respond", "aggregate", "graphql"):
            if getattr(route, key) is not None:
                raise Unexportable(f"'{key}' has no equal in the Gateway API", key)
        if not route.targets:
            raise Unexportable("a policy answers this route", "policies")
        if route.rewrite is not None:
            filters.append(self._rewrite(route.rewrite, path))
        filters += self._mirrors(route.mirrors, path)
        rule: dict[str, Any] = {"filters": filters} if filters else {}
        rule["backendRefs"] = [*self._references(route, path)]
        rule["timeouts"] = {"request": duration(route.time_limit(self._grpc(route)))}
        if route.retry is not None:
            message = "'retry' is experimental in the Gateway API, and left out"
            self.report.warn((*path, "retry"), message)
        return rule

    def _grpc(self, route: Route) -> bool:
        upstreams = self.gateway.sections.upstreams
        return all(upstreams[one].protocol == "grpc" for one in route.targets)

    def _references(self, route: Route, path: Path) -> Iterator[dict[str, Any]]:
        if route.upstream is not None:
            yield from self._shares(Backend(upstream=route.upstream), [])
            return
        for number, one in enumerate(route.backends):
            where = (*path, "split", number) if isinstance(route.split, tuple) else (*path, "split")
            if one.upstream is None or not one.same_action:
                raise Unexportable(
                    "a share with an action of its own has no equal in the Gateway API", "split"
                )
            filters: Filters = []
            for key, kind in _HEADERS.items():
                if (mutation := getattr(one, key)) is not None:
                    filters += self._modifier(mutation, kind, (*where, key))
            if one.rewrite is not None:
                filters.append(self._rewrite(one.rewrite, where))
            yield from self._shares(one, filters)

    def _shares(self, backend: Backend, filters: Filters) -> Iterator[dict[str, Any]]:
        """Yield the references to all Services of an upstream, whose weights add up to that of the share."""
        targets = self.targets[backend.upstream or ""]
        if not targets:
            yield {**_nothing(), "weight": backend.weight}
            return
        several = len(targets) > 1
        for one in targets:
            weight = backend.weight * one.weight if several else backend.weight
            found = {**_service(one), "weight": weight}
            yield {**found, "filters": filters} if filters else found

    def _mirrors(self, mirrors: tuple[Mirror, ...], path: Path) -> Iterator[dict[str, Any]]:
        for one in mirrors:
            for target in self.targets[one.upstream][:1]:
                changes: dict[str, Any] = {"backendRef": _service(target)}
                if one.percent < 100:
                    changes["fraction"] = {
                        "numerator": round(one.percent * 10_000),
                        "denominator": 1_000_000,
                    }
                yield {"type": "RequestMirror", "requestMirror": changes}
            if len(self.targets[one.upstream]) != 1:
                self.report.warn(
                    (*path, "mirror"), "copies go to the first host of the upstream, if it has any"
                )

    def _rewrite(self, rewrite: Rewrite, path: Path) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        if rewrite.regex is not None:
            raise Unexportable(
                "a rewrite by an expression has no equal in the Gateway API", "rewrite", "regex"
            )
        if rewrite.host == "auto":
            self.report.warn((*path, "rewrite", "host"), "the Host header of the client goes on")
        elif rewrite.host is not None:
            changes["hostname"] = rewrite.host
        if rewrite.path is not None:
            changes["path"] = _new_path(rewrite.path, ("rewrite", "path"))
        return {"type": "URLRewrite", "urlRewrite": changes}

    def _redirect(self, redirect: Redirect, route: Route, path: Path) -> dict[str, Any]:
        parts = urlsplit(redirect.to or "")
        if parts.query or redirect.strip_query:
            raise Unexportable("a redirect in the Gateway API changes no query", "redirect")
        changes: dict[str, Any] = {
            "scheme": redirect.scheme or parts.scheme,
            "hostname": redirect.host or parts.hostname,
            "port": redirect.port or parts.port,
            "statusCode": redirect.status,
        }
        if redirect.new_path:
            changes["path"] = _new_path(redirect.new_path, ("redirect",))
        if redirect.status not in (301, 302):
            self.report.warn(
                (*path, "redirect", "status"),
                f"{redirect.status} needs the experimental channel of the Gateway API",
            )
        return {
            "type": "RequestRedirect",
            "requestRedirect": {key: one for key, one in changes.items() if one},
        }


def _service(target: Target) -> dict[str, Any]:
    return {"name": target.service, "port": target.port}


def _nothing() -> dict[str, Any]:
    return {"name": CLOSED, "port": 80}


def _new_path(text: str, where: tuple[str, ...]) -> dict[str, str]:
    if "{" in text:
        raise Unexportable("segments of a template cannot be put into a new path", *where)
    if text.endswith("/*"):
        return {"type": "ReplacePrefixMatch", "replacePrefixMatch": text[:-2] or "/"}
    return {"type": "ReplaceFullPath", "replaceFullPath": text}


def _value(name: str, match: ValueMatch, where: tuple[str, ...]) -> dict[str, str]:
    """Return the condition on a header or a query parameter. Raises Unexportable if it would match more."""
    if match.invert or match.present is False:
        raise Unexportable("the Gateway API has no condition on what is not there", *where, security=True)
    if match.exact is not None:
        return {"name": name, "type": "Exact", "value": match.exact}
    if match.regex is not None:
        return {"name": name, "type": "RegularExpression", "value": match.regex}
    if match.present:
        return {"name": name, "type": "RegularExpression", "value": ".*"}
    around = ("" if match.prefix is not None else ".*", "" if match.suffix is not None else ".*")
    text = _REGEX.sub(r"\\\g<0>", match.prefix or match.suffix or match.contains or "")
    return {"name": name, "type": "RegularExpression", "value": f"{around[0]}{text}{around[1]}"}


def _key(kind: str) -> str:
    return kind[:1].lower() + kind[1:]
