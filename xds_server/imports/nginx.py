"""nginx: servers and locations that forward requests, as crossplane parses them.

Source: the documentation of nginx (ngx_http_core_module, ngx_http_proxy_module, ngx_http_upstream_module and others).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from filters.language import Place, Problem
from xds_server.gateway.document import Part
from xds_server.imports.draft import CLOSED, Draft, usable
from xds_server.imports.draft import url as split_url
from xds_server.imports.nginx_directives import Directive, inherited
from xds_server.imports.nginx_policies import Policies
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
_PORTS = {"http": 80, "https": 443}
_VERSIONS = {"TLSv1": "1.0", "TLSv1.1": "1.1", "TLSv1.2": "1.2", "TLSv1.3": "1.3"}


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of configurations that crossplane has parsed."""
    draft = Draft()
    for part in parts:
        for error in part.values["errors"]:
            place = Place(error["file"], error["line"] or 1, 1)
            draft.problems.append(
                Problem(path=(), message=error["error"], place=place, remedy="see nginx -t")
            )
        for config in part.values["config"]:
            top = [Directive(one, (), config["file"]) for one in config["parsed"]]
            _Nginx(top, draft)
    return draft


class _Nginx:
    def __init__(self, top: Sequence[Directive], draft: Draft) -> None:
        self.draft = draft
        self._upstreams: dict[str, str] = {}
        self._ports: dict[tuple[int, bool], str] = {}
        for one in top:
            if one.name == "http":
                one.seen = True
                self._http(one)
            elif one.name in _SILENT:
                one.skip()
        draft.rest(top)

    def _http(self, http: Directive) -> None:
        self._policies = Policies(self.draft, http)
        declared = {one.arguments[0]: one for one in http.all("upstream") if one.arguments}
        for name, one in declared.items():
            self._upstreams[name] = self._upstream(name, one)
        for server in http.all("server"):
            self._server(http, server)
        for level in (http, *http.all("server")):
            for one in level.block:
                if one.name in _SILENT:
                    one.skip()

    def _upstream(self, name: str, upstream: Directive) -> str:
        endpoints: list[Any] = []
        for server in upstream.all("server"):
            address = server.arguments[0].removeprefix("http://")
            endpoint: dict[str, Any] = {
                "address": address
                if re.search(r":\d+$", address) or address.startswith("unix:")
                else f"{address}:80"
            }
            for option in server.arguments[1:]:
                key, _, number = option.partition("=")
                if key == "weight" and number.isdigit():
                    endpoint["weight"] = max(1, int(number))
                elif key == "backup":
                    endpoint["priority"] = 1
                elif key not in ("max_fails", "fail_timeout", "max_conns"):
                    self.draft.warn(
                        server, f"{key} of a server has no equal", "write the endpoint without it"
                    )
            if "down" not in server.arguments:
                endpoints.append(endpoint if len(endpoint) > 1 else endpoint["address"])
        value: dict[str, Any] = {"endpoints": endpoints}
        if upstream.all("least_conn"):
            value["load_balancing"] = "least_request"
        elif upstream.all("random"):
            value["load_balancing"] = "random"
        for one in upstream.all("ip_hash", "hash"):
            value["load_balancing"] = "ring_hash"
            self.draft.warn(
                one,
                "the key of consistent hashing belongs to routes here",
                "write session_affinity at the routes",
            )
        upstream.all("keepalive", "keepalive_timeout", "keepalive_requests", "zone")
        return self.draft.add("upstreams", name, value)

    def _server(self, http: Directive, server: Directive) -> None:
        named = [(one, name) for one in server.all("server_name") for name in one.arguments]
        names = [name for _, name in named]
        hosts = [name for one, name in named if self._usable(one, name)]
        base: dict[str, Any] = {"hosts": hosts} if hosts else {}
        if names and not hosts and names != ["_"]:
            base["hosts"] = ["not-imported.invalid"]
        base["listeners"] = [self._listener(server, one) for one in server.all("listen")] or [
            self._listener(server, None)
        ]
        base["listeners"] = sorted(set(base["listeners"]))
        levels = [http, server]
        answers = server.all("return")
        if answers:
            self._location(base, levels, server, None)
        for location in server.all("location"):
            if answers:  # no request reaches a location
                location.skip()
                continue
            self._location(base, [*levels, location], location, location.arguments)
            for nested in location.all("location"):
                self._location(base, [*levels, location, nested], nested, nested.arguments)
        for one in server.all("if", "rewrite"):
            one.skip()
            self.draft.insecure(
                one,
                f"'{one.name}' of a server is not imported, and may reject requests",
                "write routes for its cases",
            )

    def _usable(self, directive: Directive, name: str) -> bool:
        if name in ("_", "", '""'):
            return False
        if name.startswith(("~", ".")) or name.endswith(".*"):
            self.draft.warn(
                directive, f"the server name {name} has no equal", "write the hosts, or *.example.com"
            )
            return False
        return True

    def _listener(self, server: Directive, listen: Directive | None) -> str:
        text = listen.arguments[0] if listen is not None and listen.arguments else "80"
        port = int(found[1]) if (found := re.search(r"(\d+)$", text)) else 80
        tls = listen is not None and "ssl" in listen.arguments
        certificate, key = (
            server.first_argument("ssl_certificate"),
            server.first_argument("ssl_certificate_key"),
        )
        versions = [
            _VERSIONS[one]
            for each in server.all("ssl_protocols")
            for one in each.arguments
            if one in _VERSIONS
        ]
        if client := server.last("ssl_verify_client"):
            self.draft.insecure(
                client,
                "certificates of clients are not imported",
                "write tls.client_certificate at the listener, and mtls",
            )
        if (port, tls) not in self._ports:
            self._ports[port, tls] = self.draft.add(
                "listeners", f"{'https' if tls else 'http'}-{port}", {"port": port}
            )
        name = self._ports[port, tls]
        if tls and certificate:
            listener = self.draft.sections["listeners"][name]
            settings = listener.setdefault("tls", {"certificates": []})
            secret = usable(certificate.rpartition("/")[2].rpartition(".")[0])
            if secret not in self.draft.sections.get("secrets", {}):
                self.draft.add(
                    "secrets", secret, {"certificate": {"file": certificate}, "private_key": {"file": key}}
                )
            if secret not in settings["certificates"]:
                settings["certificates"].append(secret)
            if versions:
                settings["minimum_version"] = min(versions)
        return name

    def _location(
        self,
        base: Mapping[str, Any],
        levels: Sequence[Directive],
        place: Directive,
        arguments: Sequence[str] | None,
    ) -> None:
        if place.all("internal"):
            place.skip()
            return
        conditions = [{"path": "/*"}] if arguments is None else self._conditions(place, arguments)
        value, policies, sure = self._policies.of(levels, place)
        action = self._action(levels, place)
        if action is None:
            if any(one.name == "location" for one in place.block):
                return
            for one in place.all(*_STATIC):
                self.draft.warn(
                    one,
                    f"{one.name} serves files or another protocol, so the route answers 501",
                    "forward to a server that does it",
                )
            action = {"respond": {"status": 501}}
        if "respond" in action or "redirect" in action:
            value = {}
        policies |= {} if sure else CLOSED
        routes = []
        for condition in conditions:
            route = {**base, **condition, **value, **self._rewritten(condition, action)}
            if policies:
                route["policies"] = policies
            routes.append(route)
        host = base.get("hosts", ["server"])[0].removeprefix("*.")
        self.draft.add_routes(f"{host}-{usable((arguments or ['all'])[-1].strip('/') or 'root')}", routes)
        for one in place.block:
            if one.name in _SILENT:
                one.skip()

    def _conditions(self, place: Directive, arguments: Sequence[str]) -> list[dict[str, Any]]:
        kind, path = (arguments[0], arguments[1]) if len(arguments) > 1 else ("", arguments[0])
        if kind == "=":
            return [{"path": path}]
        if kind in ("~", "~*"):
            pattern = path if path.startswith("^") else f".*{path}"
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
        return [{"path": f"{prefix}/*"}]

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
        parts = split_url(text)
        name = parts.netloc
        if name not in self._upstreams:
            address = name if re.search(r":\d+$", name) else f"{name}:{_PORTS.get(parts.scheme, 80)}"
            value: dict[str, Any] = {"endpoints": [address]}
            if parts.scheme in ("https", "grpcs"):
                value["tls"] = {
                    "verify": any(one.arguments == ["on"] for one in inherited(levels, "proxy_ssl_verify"))
                }
            if passed.name == "grpc_pass":
                value["protocol"] = "grpc"
            self._upstreams[name] = self.draft.add("upstreams", parts.hostname or name, value)
        elif parts.scheme in ("https", "grpcs"):
            self.draft.sections["upstreams"][self._upstreams[name]]["tls"] = {"verify": False}
        action: dict[str, Any] = {"upstream": self._upstreams[name]}
        if parts.path:
            action["path"] = parts.path
        if not self._policies.keeps_host(levels):
            action["host"] = parts.hostname or name
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
            if "$" in text.removesuffix("$request_uri"):
                self.draft.warn(answer, "variables of this redirect have no equal", "write redirect")
            fixed = re.sub(r"\$\w+", "", text)
            parts = split_url(fixed)
            if text.endswith("$request_uri") and parts.hostname:
                return {"redirect": {"scheme": parts.scheme, "host": parts.hostname, "status": code}}
            return {"redirect": {"to": fixed or "/", "status": code}}
        if code < 200 or code == 444:
            code = 403  # 444 closes the connection without a response
        respond: dict[str, Any] = {"status": code}
        if text:
            respond["body"] = text
        return {"respond": respond}
