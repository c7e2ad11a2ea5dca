"""nginx: servers and locations that forward requests, as crossplane parses them.

Source: the documentation of nginx (ngx_http_core_module, ngx_http_proxy_module, ngx_http_upstream_module and others).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from filters.language import Place, Problem
from xds_server.gateway.document import Part
from xds_server.imports.draft import BELOW, CLOSED, RANK, Draft, Rank, usable
from xds_server.imports.nginx_directives import Directive
from xds_server.imports.nginx_listeners import Listeners
from xds_server.imports.nginx_policies import LIMITS, Policies
from xds_server.imports.nginx_upstreams import Upstreams
from xds_server.imports.precedence import never
from xds_server.imports.text_prefixes import TEXT

_SILENT = frozenset(
    ("events", "worker_processes", "user", "pid", "error_log", "worker_rlimit_nofile", "load_module", "access_log", "log_format", "sendfile", "tcp_nopush",
     "tcp_nodelay", "types_hash_max_size", "server_tokens", "include", "default_type", "types", "gzip_vary", "gzip_proxied", "gzip_comp_level", "gzip_buffers",
     "gzip_http_version", "gzip_disable", "proxy_http_version", "proxy_buffering", "proxy_buffers", "proxy_buffer_size", "proxy_busy_buffers_size",
     "proxy_request_buffering", "server_names_hash_bucket_size", "charset", "etag", "keepalive_timeout", "keepalive_requests", "resolver", "resolver_timeout",
     "multi_accept", "use", "reset_timedout_connection", "client_body_buffer_size", "large_client_header_buffers", "proxy_redirect", "ssl_session_cache",
     "ssl_session_timeout", "ssl_session_tickets", "ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_stapling", "ssl_stapling_verify", "log_not_found", "http2")
)  # fmt: skip
"""Directives that change nothing of what a gateway does, or that Envoy does by itself."""
_STATIC = (
    "root",
    "alias",
    "try_files",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "memcached_pass",
    "autoindex",
    "index",
    "perl",
    "js_content",
)


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of configurations that crossplane has parsed."""
    draft = Draft()
    for part in parts:
        for error in part.values["errors"]:
            place = Place(error["file"], error["line"] or 1, 1)
            message = error["error"] or "not a configuration of nginx: crossplane cannot read it"
            draft.problems.append(Problem(path=(), message=message, place=place, remedy="see nginx -t"))
        for config in part.values["config"]:
            top = [Directive(one, (), config["file"]) for one in config["parsed"]]
            if not any(one.name == "http" for one in top) and not part.values["errors"]:
                message = "the file has no block 'http', so it is empty or no configuration of nginx"
                draft.problems.append(Problem(path=(), message=message, place=Place(config["file"], 1, 1)))
            _Nginx(top, draft)
    return draft


class _Nginx:
    def __init__(self, top: Sequence[Directive], draft: Draft) -> None:
        self.draft = draft
        for one in top:
            if one.name == "http":
                one.seen = True
                self._http(one)
            elif one.name in _SILENT:
                one.skip()
        draft.rest(top)

    def _http(self, http: Directive) -> None:
        self._policies = Policies(self.draft, http)
        self._upstreams = Upstreams(self.draft, http)
        self._listeners = Listeners(self.draft, http)
        for server in http.all("server"):
            self._server(http, server)
        self._policies.share_limits()
        for level in (http, *http.all("server")):
            for one in level.block:
                if one.name in _SILENT:
                    one.skip()

    def _server(self, http: Directive, server: Directive) -> None:
        named = [(one, name) for one in server.all("server_name") for name in one.arguments]
        names = [name for _, name in named]
        usable_names = (name for one, name in named if self._usable(one, name))
        hosts = [host for name in usable_names for host in _hosts(name)]
        base: dict[str, Any] = {"hosts": hosts} if hosts else {}
        if names and not hosts and names != ["_"]:
            base |= never({})
        base["listeners"], sure = self._listeners.of(server)
        if not base["listeners"] or server.first_argument("ssl_reject_handshake") == "on":
            self._left_out(server)
            return
        for one in server.all("if", "rewrite"):
            one.skip()
            sure = False
            self.draft.insecure(
                one,
                f"'{one.name}' of a server is not imported, and may reject requests, so its routes are closed",
                "write routes for its cases, and remove ip_access",
            )
        self._locations(base, [http, server], sure=sure)
        if hosts and len(http.all("server")) > 1:
            self._rest(base, [http, server], sure=sure)

    def _rest(self, base: Mapping[str, Any], levels: Sequence[Directive], *, sure: bool) -> None:
        """Add a route for what no location of a server has, if it has none for all: another server would take that."""
        server = levels[-1]
        paths = [_kind(one.arguments)[1] for one in server.all("location") if one.arguments]
        if "/" in paths or server.all("return"):
            return
        _, policies, safe = self._policies.of(levels)
        policies |= {} if sure and safe else CLOSED
        route = {**base, "path": "/*", "respond": {"status": 404}, RANK: _rank(levels, None, 0)}
        name = f"{base['hosts'][0].removeprefix('*.')}-rest"
        self.draft.add_routes(name, [{**route, **({"policies": policies} if policies else {})}])

    def _left_out(self, server: Directive) -> None:
        """No request reaches a location of a server: it listens on nothing that a gateway has, or rejects all connections."""
        server.skip()
        self.draft.warn(
            server, "no client reaches the server, so it has no routes", "write a listener and routes"
        )

    def _locations(self, base: Mapping[str, Any], levels: Sequence[Directive], *, sure: bool) -> None:
        server = levels[-1]
        answers = server.all("return")
        if answers:
            self._location(base, levels, None, sure=sure)
        for location in server.all("location"):
            if answers:  # no request reaches a location
                location.skip()
                continue
            self._nested(base, levels, location, sure=sure)

    def _nested(
        self, base: Mapping[str, Any], levels: Sequence[Directive], location: Directive, *, sure: bool
    ) -> None:
        self._location(base, [*levels, location], location.arguments, sure=sure)
        for nested in location.all("location"):
            self._nested(base, [*levels, location], nested, sure=sure)

    def _usable(self, directive: Directive, name: str) -> bool:
        if name in ("_", "", '""'):
            return False
        if name.startswith("~") or name.endswith(".*"):
            self.draft.insecure(
                directive,
                f"the server name {name} has no equal, so routes of other servers take its requests",
                "write the hosts, or *.example.com",
            )
            return False
        return True

    def _location(
        self,
        base: Mapping[str, Any],
        levels: Sequence[Directive],
        arguments: Sequence[str] | None,
        *,
        sure: bool,
    ) -> None:
        """Add the routes of the innermost level. A server without arguments answers all requests."""
        place = levels[-1]
        conditions = [{"path": "/*"}] if arguments is None else self._conditions(levels, arguments)
        if place.all("internal"):
            self.draft.warn(
                place, "the location is reached from within only, so clients get 404", "write a route if clients call it"
            )  # fmt: skip
            place.skip()
            action: dict[str, Any] | None = {"respond": {"status": 404}}
            value: dict[str, Any] = {}
            policies: dict[str, Any] = {}
            limits: list[str] = []
        else:
            value, policies, safe = self._policies.of(levels)
            sure, limits = sure and safe, self._policies.limits(levels)
            action = self._action(levels, place)
        if action is None:
            action = self._files(place)
        if "respond" in action or "redirect" in action:
            value, limits = {}, []
        policies |= {} if sure else CLOSED
        routes = []
        for condition in conditions:
            route = {**base, **condition, **value, **self._rewritten(condition, action)}
            if policies:
                route["policies"] = policies
            if limits:
                route[LIMITS] = limits
            route[RANK] = _rank(levels, arguments, len(self.draft.sections.get("routes", ())))
            routes.append(route)
        host = base.get("hosts", ["server"])[0].removeprefix("*.")
        self.draft.add_routes(f"{host}-{usable((arguments or ['all'])[-1].strip('/') or 'root')}", routes)
        for one in place.block:
            if one.name in _SILENT:
                one.skip()

    def _files(self, place: Directive) -> dict[str, Any]:
        """Return the action of a location that forwards nothing."""
        for one in place.all(*_STATIC):
            self.draft.warn(
                one,
                f"{one.name} serves files or another protocol, so the route answers 501",
                "forward to a server that does it",
            )
        return {"respond": {"status": 501}}

    def _conditions(self, levels: Sequence[Directive], arguments: Sequence[str]) -> list[dict[str, Any]]:
        place = levels[-1]
        kind, path = _kind(arguments)
        if kind == "=":
            return [{"path": path}]
        if kind in ("~", "~*"):
            pattern = _within(_container(levels), path)
            if pattern is None:
                self.draft.warn(
                    place,
                    "the regular expression of a nested location may match outside of it, so the route never matches",
                    "begin it with the path of the location",
                )
                return [never({"path": f"~^{re.escape(_container(levels))}.*$"})]
            found = pattern + ("" if path.endswith("$") else ".*")
            return [{"path": f"~{'(?i)' if kind == '~*' else ''}{found}"}]
        if path.startswith("@"):
            self.draft.warn(
                place, "a named location is reached from within only", "write its policies where it is named"
            )
            return []
        prefix = path.rstrip("/")
        if prefix and not path.endswith("/"):
            self.draft.warn(
                place,
                f"nginx's prefix {path} also has {path}x, and {prefix}/* has only {path} and {path}/…",
                f"write another route if clients call {path}x",
            )
            return [{"path": f"{prefix}/*", TEXT: path}]
        return [{"path": f"{prefix}/*", **({BELOW: True} if prefix else {})}]

    def _action(self, levels: Sequence[Directive], place: Directive) -> dict[str, Any] | None:
        answer = place.last("return")
        if answer is not None:
            return self._return(answer)
        passed = place.last("proxy_pass") or place.last("grpc_pass")
        if passed is None:
            return None
        text = passed.arguments[0]
        if "$" in text:
            self.draft.warn(
                passed, "variables in proxy_pass have no equal, so the route answers 501", "write an upstream"
            )
            return {"respond": {"status": 501}}
        action = self._upstreams.of(levels, passed)
        host = self._policies.host(levels)
        if host is None:
            del action["host"]
        elif host:
            action["host"] = host
        return action

    def _rewritten(self, condition: Mapping[str, Any], action: Mapping[str, Any]) -> dict[str, Any]:
        """Return an action with the path that the upstream gets: a URI of proxy_pass takes the place of the location."""
        action = dict(action)
        path, host = action.pop("path", None), action.pop("host", None)
        rewrite: dict[str, Any] = {"host": host} if host else {}
        if path is not None and condition.get("path", "").endswith("/*"):
            rewrite["path"] = f"{path.rstrip('/')}/*"
        elif path is not None and not condition.get("path", "").startswith("~"):
            rewrite["path"] = path
        return {**action, "rewrite": rewrite} if rewrite else action

    def _return(self, answer: Directive) -> dict[str, Any]:
        arguments = answer.arguments
        code = int(arguments[0]) if arguments and arguments[0].isdigit() else 302
        text = arguments[-1] if len(arguments) > 1 or not arguments[0].isdigit() else ""
        if code in (301, 302, 303, 307, 308):
            found = re.fullmatch(r"(https?)://\$(?:host|server_name|http_host)\$request_uri", text)
            if found:
                return {"redirect": {"scheme": found[1], "status": code}}
            found = re.fullmatch(r"(https?)://([^/$:]+)(?::(\d+))?\$request_uri", text)
            if found:
                port = {"port": int(found[3])} if found[3] else {}
                return {"redirect": {"scheme": found[1], "host": found[2], **port, "status": code}}
            if "$" in text or not text:
                self.draft.warn(
                    answer,
                    "variables of this redirect have no equal, so the route answers 501",
                    "write redirect",
                )
                return {"respond": {"status": 501}}
            return {"redirect": {"to": text, "status": code}}
        if code < 200 or code == 444:
            code = 403  # 444 closes the connection without a response
        respond: dict[str, Any] = {"status": code}
        if text:
            respond["body"] = text
        return {"respond": respond}


def _rank(levels: Sequence[Directive], arguments: Sequence[str] | None, number: int) -> Rank:
    """Return what nginx looks at in a server: `=`, the longest prefix if it has `^~`, the regular expressions in their order, the prefix."""
    server = next(one for one in reversed(levels) if one.name == "server")
    scope = str(server.place)
    if arguments is None:
        return Rank((0, 0), server, scope)
    kind, path = _kind(arguments)
    container = _container(levels)
    if kind in ("~", "~*"):
        if container:  # nginx has chosen the prefix before it looks at the regular expressions in it
            return Rank((2, -number), levels[-1], scope, len(container) + 0.5 - number * 1e-6)
        return Rank((1, -number), levels[-1], scope)
    stays = any(_kind(one.arguments)[0] == "^~" for one in levels if one.name == "location")
    value = 3 if kind == "=" else 2 if stays else 0
    return Rank((value, len(path)), levels[-1], scope, None if kind == "=" else len(path))


def _kind(arguments: Sequence[str]) -> tuple[str, str]:
    """Return the modifier of a location, empty if it has none, and its path."""
    return (arguments[0], arguments[1]) if len(arguments) > 1 else ("", arguments[0])


def _container(levels: Sequence[Directive]) -> str:
    """Return the longest prefix of the locations around the innermost level, empty if there are none."""
    around = [_kind(one.arguments) for one in levels[:-1] if one.name == "location"]
    return max((path for kind, path in around if kind in ("", "^~")), key=len, default="")


def _within(container: str, pattern: str) -> str | None:
    """Return a regular expression of nginx as one from the beginning of a path, inside of the location around it.

    Return None if it has a beginning of its own that may be outside.
    """
    text = re.escape(container)
    if pattern.startswith("^"):
        return pattern if not container or pattern[1:].startswith((text, container)) else None
    if not container or container == "/":
        return f".*{pattern}"
    if pattern.startswith((text, container)):
        return f"^(?:{text}.*)?{pattern}"
    if container.endswith("/") and pattern.startswith("/"):
        return f"^{text[:-1]}(?:/.*)?{pattern}"
    return f"^{text}.*{pattern}"


def _hosts(name: str) -> tuple[str, ...]:
    """Return the hosts that a server name stands for: `.example.com` is the domain and what is below it."""
    return (name[1:], f"*{name}") if name.startswith(".") else (name,)
