"""Kong's declarative configuration (decK, formats 1.1 and 3.0): services, routes, upstreams, consumers, certificates and plugins.

Source: the documentation of decK and of Kong Gateway 3 (entities, traditional router, plugins).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xds_server.gateway.document import Part
from xds_server.imports import kong_plugins, kong_upstreams, placeholders, several_methods
from xds_server.imports.credentials import hashed
from xds_server.imports.draft import CLOSED, COUNTED, Draft, duration, network, usable
from xds_server.imports.draft import url as split_url
from xds_server.imports.kong_caller_names import without_names
from xds_server.imports.kong_matches import Matches, is_stream
from xds_server.imports.kong_plugins import Plugins
from xds_server.imports.kong_tokens import Tokens
from xds_server.imports.kong_upstreams import ignore
from xds_server.imports.source import Field

_TIMEOUT = 60_000
_TLS = ("https", "grpcs", "tls", "wss")
_PORTS = {"http": 80, "grpc": 80, "https": 443, "grpcs": 443, "wss": 443, "ws": 80}


def imported(parts: Sequence[Part], _files: Mapping[str, bytes]) -> Draft:
    """Return the gateway of decK files, which are read as one."""
    return _Kong([Field.of(part) for part in parts]).draft


class _Kong:
    def __init__(self, roots: Sequence[Field]) -> None:
        self.draft = Draft()
        self._roots = roots
        self._services: dict[str, Field] = {}
        self._upstreams: dict[str, str] = {}
        self._targets: dict[str, list[Field]] = {}
        regex_by_tilde = all(root.text("_format_version", default="3.0") >= "3" for root in roots)
        self._matches = Matches(self.draft, regex_by_tilde)
        for root in roots:
            root.read("_info"), root.read("_transform"), root.read("_comment")
        groups = self._groups()
        self._tokens = Tokens(self.draft)
        self._plugins = Plugins(self.draft, groups, self._tokens)
        self._plugins.collect(self._all("plugins"))
        self._plugins.note_anonymous(self._all("consumers"))
        self._listeners()
        self._consumers()
        self._of_services()
        self._plugins.to_all()
        several_methods.require_all(self.draft)
        placeholders.add(self.draft)
        self.draft.rest(roots)

    def _all(self, name: str) -> list[Field]:
        return [one for root in self._roots for one in root.elements(name)]

    def _listeners(self) -> None:
        """Certificates become secrets. Kong's own listeners are in kong.conf, which is not imported."""
        certificates: list[str] = []
        for one in self._all("certificates"):
            ignore(one)
            names = [sni.text("name") or sni.text() for sni in one.elements("snis")]
            name = self.draft.name("secrets", names[0] if names else f"certificate-{len(certificates) + 1}")
            folder = f"certificates/{name}"
            self.draft.files[f"{folder}.crt"] = one.text("cert").encode()
            self.draft.files[f"{folder}.key"] = one.text("key").encode()
            secret = {"certificate": {"file": f"{folder}.crt"}, "private_key": {"file": f"{folder}.key"}}
            certificates.append(self.draft.add("secrets", name, secret))
        self.draft.add("listeners", "http", {"port": 8000})
        if certificates:
            self.draft.add("listeners", "https", {"port": 8443, "tls": {"certificates": certificates}})

    def _groups(self) -> dict[str, list[str]]:
        """Return the consumers of each group of the plugin `acl`."""
        found: dict[str, list[str]] = {}
        for one in self._all("consumers"):
            for acl in one.elements("acls"):
                found.setdefault(acl.text("group"), []).append(_name(one))
        return found

    def _consumers(self) -> None:
        for one in self._all("consumers"):
            ignore(one)
            value: dict[str, Any] = {}
            keys = []
            for key in one.elements("keyauth_credentials"):
                ignore(key)
                if key.get("ttl") is not None:
                    key.read()
                    self.draft.insecure(
                        key, "a key with a time to live is not imported", "write one that lives on"
                    )
                elif (found := hashed(self.draft, key, key.text("key"))) is not None:
                    keys.append({"sha256": found})
            if keys:
                value["api_keys"] = keys
            self._passwords(one, value)
            for credential in one.elements("jwt_secrets"):
                ignore(credential)
                self._tokens.add(_name(one), credential, value)
            for kind in (
                "hmacauth_credentials",
                "oauth2_credentials",
                "mtls_auth_credentials",
            ):
                for secret in one.elements(kind):
                    secret.read()
                    self.draft.insecure(
                        secret,
                        f"credentials of {kind.removesuffix('_credentials')} are not imported",
                        "name the caller by a provider (identity, consumers.jwt) or give it an API key",
                    )
            self._plugins.of_consumer(one, value)
            self._group(one, value)
            self.draft.add("consumers", _name(one), value)

    def _group(self, consumer: Field, value: dict[str, Any]) -> None:
        """Take the credentials of a consumer whose group has plugins: without them, it may do more than before."""
        limited = {_name(one) for one in self._all("consumer_groups") if one.elements("plugins")}
        members = {
            _name(member)
            for one in self._all("consumer_groups")
            if one.elements("plugins")
            for member in one.elements("consumers")
        }
        groups = {one.text("name") or one.text() for one in consumer.elements("groups")}
        if groups & (limited | self._plugins.groups_with_plugins()) or _name(consumer) in members:
            for key in ("api_keys", "basic_auth", "jwt"):
                value.pop(key, None)
            self.draft.insecure(
                consumer,
                "plugins of groups of consumers are not imported, so the consumer has no credentials",
                "write a plan, authorize or ip_access, then the credentials",
            )

    def _passwords(self, consumer: Field, value: dict[str, Any]) -> None:
        """Passwords of decK are plain, or hashed by Kong with a salt, which nothing else can verify."""
        found = []
        for one in consumer.elements("basicauth_credentials"):
            ignore(one)
            password = one.text("password")
            if re.fullmatch(r"[0-9a-f]{40}", password) or len(password) < _GENERATED:
                self.draft.insecure(
                    one,
                    "the password is hashed by Kong, or too short to be kept as SHA-256",
                    "write it to an htpasswd file (htpasswd -B) and name that under basic_auth",
                )
                one.read()
            elif (hash_ := hashed(self.draft, one, password)) is not None:
                found.append({"username": one.text("username"), "sha256": hash_})
        if found:
            value["basic_auth"] = found

    def _of_services(self) -> None:
        for one in self._all("upstreams"):
            self._targets[one.text("name")] = [one]
        alone = self._all("routes")
        for service in self._all("services"):
            name = _name(service)
            self._services[name] = service
            owned = [one for one in alone if name in (one.text("service", "name"), one.text("service"))]
            self._service(service, [*service.elements("routes"), *owned])
        for route in alone:
            if (route.text("service", "name") or route.text("service")) not in self._services:
                self._route(route, None, None)
        for name, (field,) in self._targets.items():
            if name not in self._upstreams:
                self.draft.warn(
                    field, "no service uses this upstream", "remove it, or name it as host of a service"
                )
                field.read()

    def _service(self, service: Field, routes: Sequence[Field]) -> None:
        ignore(service)
        if not service.true("enabled", default=True):
            service.read()
            for route in routes:
                route.read()
            return
        upstream = self._upstream(service)
        policies = self._plugins.of(service)
        sets = []
        if policies.rules and len(routes) > 1:
            sets = [self.draft.add("policy_sets", _name(service), policies.rules)]
        for route in routes:
            self._route(route, service, upstream, policies, sets)

    def _upstream(self, service: Field) -> str:
        url = split_url(service.text("url"))
        protocol = url.scheme or service.text("protocol", default="http")
        host = url.hostname or service.text("host")
        port = url.port or int(service.number("port") or _PORTS.get(protocol, 80))
        service.text("path")
        value: dict[str, Any] = {"endpoints": [network(host, port)]}
        if host in self._targets:
            value = kong_upstreams.balanced(self._targets[host][0], self.draft)
            self._upstreams[host] = host
        if protocol.startswith("grpc"):
            value["protocol"] = "grpc"
        if protocol in _TLS:
            value["tls"] = {"sni": host} if host not in self._targets else {}
            if not service.true("tls_verify", default=True):
                value["tls"]["verify"] = False
            if not value["tls"]:
                value["tls"] = {"verify": True}
        if protocol not in _PORTS:
            self.draft.warn(
                service,
                f"protocol {protocol} is not imported",
                "write a listener with protocol: tcp and a stream route",
            )
        if (connect := service.number("connect_timeout")) and connect != _TIMEOUT:
            value["connect_timeout"] = duration(connect)
        return self.draft.add("upstreams", _name(service), value)

    def _route(
        self,
        route: Field,
        service: Field | None,
        upstream: str | None,
        inherited: kong_plugins.Policies | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        ignore(route)
        route.read("service")
        if is_stream(route):
            own = self._plugins.of(route)
            route.read()
            self.draft.insecure(
                route,
                "the route is for connections and no HTTP requests, so it is not imported",
                "write a listener with protocol: tcp and a stream route",
            )
            return
        own = self._plugins.of(route)
        inherited = inherited or kong_plugins.Policies()
        if own.rules.keys() & inherited.rules.keys() & COUNTED:
            sets = ()  # the plugin of a route takes the place of that of its service
        value: dict[str, Any] = {}
        matches, is_plain = self._matches.of(route), self._matches.served_in_plain(route)
        respond = own.respond or inherited.respond
        if respond is not None:
            value["respond"] = respond
        elif upstream is None:
            self.draft.warn(route, "the route has no service, so it answers 503", "write an upstream")
            value["respond"] = {"status": 503}
        else:
            value["upstream"] = upstream
            value |= self._forwarding(route, service)
        value |= {**inherited.keys, **own.keys}
        policies = {
            **({} if sets else inherited.rules),
            **without_names(own.rules, inherited.rules),
        }
        if own.closed or inherited.closed or is_plain:
            policies |= CLOSED
        if sets:
            value["use"] = list(sets)
        if policies:
            value["policies"] = policies
        name = _name(route)
        routes = [{**match, **self._rewritten(route, service, match, value)} for match in matches]
        self.draft.add_routes(name, routes)

    def _forwarding(self, route: Field, service: Field | None) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if service is None:
            return value
        longest = max(service.number("read_timeout") or _TIMEOUT, service.number("write_timeout") or _TIMEOUT)
        value["timeout"] = duration(longest)
        retries = service.number("retries")
        if retries is None or retries:
            value["retry"] = int(min(retries or 5, 20))
        protocols = route.texts("protocols")
        if "ws" in protocols or "wss" in protocols:
            value["websocket"] = True
        for name in ("request_buffering", "response_buffering", "path_handling"):
            route.text(name)
        return value

    def _rewritten(
        self, route: Field, service: Field | None, match: Mapping[str, Any], value: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return a route's value with the path and the host that the service gets."""
        strips = route.true("strip_path", default=True)
        keeps_host = route.true("preserve_host")
        if "upstream" not in value or service is None:
            return dict(value)
        url = split_url(service.text("url"))
        base = (url.path or service.text("path")).rstrip("/")
        rewrite: dict[str, Any] = {}
        path = match.get("path", "/*")
        if path.startswith("~"):
            if strips or base:
                rewrite = {
                    "regex": _stripped(path[1:]) if strips else "^",
                    "substitution": f"{base}/" if strips else base,
                }
        elif path.endswith("/*"):
            prefix = path.removesuffix("/*")
            wanted = base + ("" if strips else prefix)
            if wanted != prefix:
                rewrite = {"path": f"{wanted}/*"}
        host = url.hostname or service.text("host")
        if not keeps_host and host in self._targets:
            if header := self._targets[host][0].text("host_header"):
                rewrite["host"] = header
            else:
                self.draft.warn(
                    service,
                    "Kong sends the name of the target as Host, and here the Host of the client is sent",
                    "write rewrite: {host: NAME} if the service needs one",
                )
        elif not keeps_host:
            port = url.port or int(service.number("port") or 0)
            is_usual = port in (0, _PORTS.get(url.scheme or service.text("protocol", default="http"), 80))
            rewrite["host"] = host if is_usual else network(host, port)
        return {**value, "rewrite": rewrite} if rewrite else dict(value)


def _stripped(pattern: str) -> str:
    """Return the part of a path that Kong strips: what the pattern matches, without the rest of the path."""
    return f"{pattern.removesuffix('.*')}/?" if pattern.endswith(".*") else pattern


def _name(field: Field) -> str:
    names = (field.text(one) for one in ("name", "username", "custom_id", "id"))
    return usable(next(filter(None, names), "unnamed"))


_GENERATED = 22
"""Characters from which on a password can have 128 bits."""
