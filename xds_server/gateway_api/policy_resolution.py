"""Objects of our own kinds in the gateway language, for one Gateway: names, keys of Secrets, and what is not allowed."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from filters.ext_authz.settings import PythonFile
from filters.language import DataSource, Path
from filters.language.problems import did_you_mean
from xds_server.gateway_api import names
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.conditions import Condition
from xds_server.gateway_api.objects import Key, Object
from xds_server.gateway_api.policy_specs import (
    CERTIFICATE_FILES,
    GROUP,
    OBJECT_FILES,
    SECTIONS,
    KeyUse,
    PolicySpec,
    Written,
)
from xds_server.gateway_api.route_specs import BackendObject
from xds_server.gateway_api.specs import RouteNamespaces
from xds_server.gateway_api.upstreams import ServiceUpstream, resolve

_UPSTREAM = re.compile(r"(?:([a-z0-9-]+)/)?([a-z0-9.-]+):([0-9]{1,5})")
_NAMED = re.compile(r"(?:([^/]+)/)?([^/]+)")
_KINDS = {section: kind for kind, section in SECTIONS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An object in the gateway language. It cannot be used if it has a `fault`.

    `contents` are the files that it refers to, and `upstreams` the Services.
    """

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    upstreams: tuple[ServiceUpstream, ...] = ()
    fault: str = ""


class _Fault(Exception):  # noqa: N818 - becomes a condition, never leaves this module
    """Why an object cannot be used."""


class Resolver:
    """The language of one Gateway. It takes Consumers, Plans and IdentityProviders of its own and of allowed namespaces."""

    def __init__(self, gateway: Key, allowed: Iterable[RouteNamespaces], cluster: Cluster) -> None:
        self._gateway, self._cluster = gateway, cluster
        self._allowed = tuple(allowed)
        self._takes: dict[str, bool] = {}

    @cached_property
    def identities(self) -> Mapping[str, Mapping[Key, tuple[Object[Written], Resolved]]]:
        """The objects of each kind that the Gateway takes, also those with faults."""
        found: dict[str, Mapping[Key, tuple[Object[Written], Resolved]]] = {}
        for kind in ("IdentityProvider", "Plan", "Consumer"):
            found[kind] = {
                one.meta.key: (one, self._resolved(one, one.spec, found))
                for one in self._cluster.all(kind)
                if self._taken(one.meta.namespace)
            }
        return found

    def policy(self, policy: Object[PolicySpec]) -> Resolved:
        """Return a GatewayPolicy in the language."""
        return self._resolved(policy, policy.spec.written, self.identities)

    def _taken(self, namespace: str) -> bool:
        if namespace not in self._takes:
            self._takes[namespace] = namespace == self._gateway[0] or any(
                one.from_ == "All"
                or (one.from_ == "Selector" and one.selector.matches(self._cluster.labels(namespace)))
                for one in self._allowed
            )
        return self._takes[namespace]

    def _resolved(
        self,
        one: Object[Any],
        written: Written,
        known: Mapping[str, Mapping[Key, tuple[Object[Written], Resolved]]],
    ) -> Resolved:
        if written.faults:
            return Resolved(fault="; ".join(written.faults))
        try:
            changes = written.names or any(use.digest for use in written.keys)
            values = copy.deepcopy(dict(written.values)) if changes else dict(written.values)
            contents = self._keys(one, written.keys, values)
            self._check_sources(one, written.sources, written.keys, contents)
            upstreams = self._names(one, written.names, values, known)
            if "basic_auth" in values:
                self._check_users(one, contents.values(), known)
        except _Fault as fault:
            return Resolved(fault=str(fault))
        return Resolved(values=values, contents=contents, upstreams=tuple(upstreams))

    def _keys(self, one: Object[Any], keys: Iterable[KeyUse], values: dict[str, Any]) -> dict[str, bytes]:
        """Return the files for keys of Secrets and ConfigMaps, and put the digests of others into the values."""
        contents: dict[str, bytes] = {}
        for use in keys:
            content = self._content(one, use)
            if use.digest:
                _parent(values, use.path)[use.path[-1]]["sha256"] = _digest(content)
            else:
                contents[use.file] = content
        return contents

    def _content(self, one: Object[Any], use: KeyUse) -> bytes:
        key = (use.namespace, use.name)
        if not self._cluster.permits(one.kind, one.meta.namespace, "", use.kind, key, group=GROUP):
            raise _Fault(f"the {use} is in another namespace, and no ReferenceGrant there allows it")
        found = self._cluster.secret(key) if use.kind == "Secret" else self._cluster.config_map(key)
        if found is None:
            raise _Fault(f"there is no {use}")
        if use.key not in found.spec.data:
            raise _Fault(f"the {use} has no key {use.key}")
        return found.spec.data[use.key]

    def _check_sources(
        self,
        one: Object[Any],
        sources: Iterable[DataSource],
        keys: Iterable[KeyUse],
        contents: dict[str, bytes],
    ) -> None:
        """Add the files that the files of an object import. They are of the same ConfigMap. Raises _Fault."""
        uses = {use.file: use for use in keys}
        for source in sources:
            if isinstance(source, PythonFile) and one.meta.namespace != self._gateway[0]:
                message = (
                    "Python runs beside the Envoys of the Gateway, so only policies of its namespace have it"
                )
                raise _Fault(message)
            if source.file in uses:
                self._follow(source, uses[source.file], contents)

    def _check_users(
        self,
        one: Object[Any],
        contents: Iterable[bytes],
        known: Mapping[str, Mapping[Key, tuple[Object[Written], Resolved]]],
    ) -> None:
        """Raise _Fault if a user of a password file would pass for a Consumer of another namespace."""
        foreign = {names.of(*key) for key in known.get("Consumer", {}) if key[0] != one.meta.namespace}
        users = (line.partition(b":")[0] for content in contents for line in content.splitlines())
        for user in users:
            if user.decode("utf-8", "replace").strip() in foreign:
                raise _Fault("a user of the password file has the name of a Consumer of another namespace")

    def _follow(self, source: DataSource, use: KeyUse, contents: dict[str, bytes]) -> None:
        config_map = self._cluster.config_map((use.namespace, use.name))
        waiting, seen = [source], {source}
        for waiting_source in waiting:
            for other in waiting_source.referenced(contents[waiting_source.file or ""]):
                file = other.file or ""
                if other in seen:
                    continue
                seen.add(other)
                if file.startswith(use.folder):
                    content = config_map.spec.data.get(file[len(use.folder) :]) if config_map else None
                    if content is not None:
                        contents[file] = content
                        waiting.append(other)
                elif file.startswith(OBJECT_FILES) or file.endswith(CERTIFICATE_FILES):
                    raise _Fault(f"a file of the {use} refers to {file}, which is not in it")

    def _names(
        self,
        one: Object[Any],
        references: Iterable[tuple[Path, str, str]],
        values: dict[str, Any],
        known: Mapping[str, Mapping[Key, tuple[Object[Written], Resolved]]],
    ) -> Iterator[ServiceUpstream]:
        """Put the names of the language in the place of those of Kubernetes. Returns the Services. Raises _Fault."""
        new: dict[Path, dict[str, str]] = {}
        upstreams: list[ServiceUpstream] = []
        for path, section, name in references:
            if section == "upstreams":
                upstream = self._upstream(one, path, name)
                upstreams.append(upstream)
                new.setdefault(path, {})[name] = upstream.name
            else:
                new.setdefault(path, {})[name] = self._identity(one, section, name, known)
        for path, named in new.items():
            parent, last = _parent(values, path), path[-1]
            value = parent[last]
            parent[last] = (
                [named.get(item, item) for item in value] if isinstance(value, list) else named[value]
            )
        return iter(upstreams)

    def _upstream(self, one: Object[Any], path: Path, name: str) -> ServiceUpstream:
        match = _UPSTREAM.fullmatch(name)
        if match is None:
            raise _Fault(
                f"'{name}' is not a port of a Service; write SERVICE:PORT, or NAMESPACE/SERVICE:PORT"
            )
        reference = BackendObject(namespace=match[1], name=match[2], port=int(match[3]))
        found = resolve(
            reference, one.kind, one.meta.namespace, self._cluster, group=GROUP, grpc=path[-1] == "grpc"
        )
        if isinstance(found, Condition):
            raise _Fault(found.message)
        if not found.usable:
            raise _Fault(f"the Service {'/'.join(found.service)} has a BackendTLSPolicy that cannot be used")
        return found

    def _identity(
        self,
        one: Object[Any],
        section: str,
        name: str,
        known: Mapping[str, Mapping[Key, tuple[Object[Written], Resolved]]],
    ) -> str:
        kind = _KINDS[section]
        match = _NAMED.fullmatch(name)
        if match is None:
            raise _Fault(f"'{name}' is not the name of a {kind}; write NAME, or NAMESPACE/NAME")
        key = (match[1] or one.meta.namespace, match[2])
        shown = f"the {kind} {'/'.join(key)}"
        found = known.get(kind, {}).get(key)
        if found is not None and found[1].fault:
            raise _Fault(f"{shown} cannot be used: {found[1].fault}")
        if found is None and not self._taken(key[0]):
            message = f"the Gateway {'/'.join(self._gateway)} takes no {kind} of the namespace {key[0]}"
            raise _Fault(f"{message}; add it to allowedConsumers of a GatewayPolicy for the Gateway")
        if found is None:
            others = [other for namespace, other in known.get(kind, {}) if namespace == key[0]]
            remedy = did_you_mean(key[1], others) or "add it"
            raise _Fault(f"there is no {kind} {'/'.join(key)}; {remedy}")
        return names.of(*key)


def _digest(content: bytes) -> str:
    """Return the SHA-256 of a value. The line end of a file that was put into a Secret is no part of it."""
    return hashlib.sha256(content.removesuffix(b"\n").removesuffix(b"\r")).hexdigest()


def _parent(values: Any, path: Path) -> Any:
    for part in path[:-1]:
        values = values[part]
    return cast("Any", values)
