"""Our own kinds: parts of the gateway language as objects of Kubernetes, read once for their content.

What the API server cannot check is checked here by the decoder of the language. An object with faults is kept with them,
because a policy that disappeared would open what it protects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from filters.language import INVALID, DataSource, Decoder, Path, Problem, Problems, decoder_for, option
from filters.language.datasource import SecretSource
from filters.model.identity import Consumer, Jwks, Plan, Provider
from filters.pipeline import POLICIES
from xds_server.gateway.model.policies import Policies
from xds_server.gateway_api import operators
from xds_server.gateway_api.specs import GROUP as GATEWAY_GROUP
from xds_server.gateway_api.specs import RouteNamespaces

GROUP, VERSION = "xds-gateway.dev", "v1alpha1"
SECTIONS = {
    "GatewayPolicy": "policy_sets",
    "Consumer": "consumers",
    "Plan": "plans",
    "IdentityProvider": "identity",
}
"""The section of the language in which the objects of each kind stand."""
SECRET, CONFIG_MAP = "secretKeyRef", "configMapKeyRef"
_KINDS = {SECRET: "Secret", CONFIG_MAP: "ConfigMap"}
OBJECT_FILES, CERTIFICATE_FILES = ("Secret/", "ConfigMap/"), ("/tls.crt", "/tls.key")
"""How the names of files begin or end that are parts of objects: no other file may import them."""
_NO_DIGEST = "0" * 64
"""Stands for the SHA-256 of a value until its Secret is known."""
_REMEDY = re.compile(r"write \{file: PATH\}( or \{env: NAME\}| or \{url: URL\})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReference:
    """A key of a Secret or ConfigMap."""

    name: str = option("The name of the object.")
    key: str = option("The key in its data.", pattern=r"[-._A-Za-z0-9]+", shape="a key")
    namespace: str | None = option(
        "The namespace; default the object's own. Another one needs a ReferenceGrant there.", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRef:
    """What a policy is for: an object of the policy's namespace, or a part of it."""

    group: Literal["gateway.networking.k8s.io"] = option("The API group.", default=GATEWAY_GROUP)
    kind: Literal["Gateway", "HTTPRoute", "GRPCRoute"] = option("The kind.")
    name: str = option("The name.")
    section_name: str | None = option(
        "Only this listener of a Gateway, or this rule of a route.", default=None, key="sectionName"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedConsumers:
    """The namespaces beside its own whose Consumers, Plans and IdentityProviders a Gateway takes."""

    namespaces: RouteNamespaces = option("The namespaces.", default=RouteNamespaces())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """The part of a GatewayPolicy that is not of the language."""

    target_refs: tuple[TargetRef, ...] = option(
        "Gateways and routes, or parts of them.", minimum_items=1, key="targetRefs"
    )
    disabled: tuple[str, ...] = option("Policies of outer levels that do not apply here.", default=())
    override: bool = option(
        "No inner level and no other policy of the same target changes what this one says.", default=False
    )
    allowed_consumers: AllowedConsumers | None = option(
        "Whose Consumers, Plans and IdentityProviders the Gateway takes, beside those of its own namespace.",
        default=None,
        key="allowedConsumers",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """A value that is in a Secret or ConfigMap. With `digest`, the gateway knows only its SHA-256, at `path`."""

    path: Path
    kind: str
    namespace: str
    name: str
    key: str
    digest: bool

    @property
    def folder(self) -> str:
        """The folder of the object's keys among the files of a gateway."""
        return f"{self.kind}/{self.namespace}/{self.name}/"

    @property
    def file(self) -> str:
        """The name of the value among the files of a gateway."""
        return self.folder + self.key

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An object of the language. In its `values`, files stand for keys of Secrets and ConfigMaps.

    `names` has the path, section and name of each reference to another object, and `sources` the files that it refers to.
    `faults` say why it cannot be used.
    """

    values: Mapping[str, Any] = field(repr=False)
    names: tuple[tuple[Path, str, str], ...] = ()
    keys: tuple[KeyUse, ...] = ()
    sources: tuple[DataSource, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """GatewayPolicy."""

    targets: tuple[TargetRef, ...]
    override: bool
    allowed: RouteNamespaces | None
    written: Written


Reader = Callable[[Mapping[str, Any], Path, Problems], Any]


def read_policy(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """Return the PolicySpec of an object."""
    where = (*path, "spec")
    spec = value.get("spec")
    own = {key: one for key, one in spec.items() if key != "policies"} if isinstance(spec, dict) else spec
    policies = spec.get("policies") if isinstance(spec, dict) else None
    policies = {} if policies is None else policies
    found = Problems()
    attachment = decoder_for(Attachment)(own, where, found)
    if attachment is INVALID:
        targets = spec.get("targetRefs") if isinstance(spec, dict) else None
        attachment = Attachment(target_refs=tuple(_targets(targets)))
    if isinstance(policies, dict):
        for number, key in enumerate(attachment.disabled):
            if policies.get(key, "off") not in ("off", False):
                message, remedy = f"'{key}' is also under 'policies'", "keep one"
                found.append(Problem(path=(*where, "disabled", number), message=message, remedy=remedy))
        does_more = attachment.disabled or attachment.allowed_consumers is not None
        if isinstance(spec, dict) and "policies" in spec and not policies and not does_more:
            message, remedy = (
                "it has no policy",
                "name one; a key without a value does not reach the controller",
            )
            found.append(Problem(path=(*where, "policies"), message=message, remedy=remedy))
        policies = {**policies, **dict.fromkeys(attachment.disabled, "off")}
        found += operators.problems(policies, (*where, "policies"))
    written = _written(value, policies, (*where, "policies"), Policies.decode_value, found)
    problems += found
    return PolicySpec(
        targets=attachment.target_refs,
        override=attachment.override,
        allowed=attachment.allowed_consumers.namespaces if attachment.allowed_consumers else None,
        written=replace(written, faults=tuple(map(told, found))),
    )


def _targets(values: Any) -> Iterator[TargetRef]:
    """Yield the targets that can be read of a policy with faults: what it is for is closed then."""
    for value in values if isinstance(values, list) else ():
        target = decoder_for(TargetRef)(value, (), Problems())
        if target is not INVALID:
            yield target


def _of(declared: type) -> Reader:
    def read(value: Mapping[str, Any], path: Path, problems: Problems) -> Any:
        found = Problems()
        spec = value.get("spec")
        decode = decoder_for(declared)
        digest = declared is Consumer
        written = _written(value, {} if spec is None else spec, (*path, "spec"), decode, found, digest=digest)
        problems += found
        return replace(written, faults=tuple(map(told, found)))

    return read


READERS: Mapping[str, Reader] = {
    "GatewayPolicy": read_policy,
    "Consumer": _of(Consumer),
    "Plan": _of(Plan),
    "IdentityProvider": _of(Provider),
}
"""What reads the spec of each kind."""


def told(problem: Problem) -> str:
    """Return a problem of an object as its status says it."""
    found = f" (found {problem.value})" if problem.value is not None else ""
    return f"{problem.where}: {problem.message}{found}" + (f"; {problem.remedy}" if problem.remedy else "")


def _written(
    value: Mapping[str, Any],
    values: Any,
    path: Path,
    decode: Decoder,
    found: Problems,
    *,
    digest: bool = False,
) -> Written:
    """Decode a part of the language with references to Secrets and ConfigMaps."""
    metadata = value.get("metadata")
    namespace = str((metadata if isinstance(metadata, Mapping) else {}).get("namespace") or "default")
    keys: list[KeyUse] = []
    wrong = Problems()
    values = _with_files(values, path, namespace, keys, wrong, digest=digest)
    found += wrong
    decoded = Problems()
    if not wrong:
        decode(values, path, decoded)
    names = {use.path: SECRET if use.kind == "Secret" else CONFIG_MAP for use in keys}
    found += (_in_words_of_kubernetes(one, names) for one in decoded)
    if not decoded:
        found += _not_allowed(decoded.references, {use.path: use for use in keys if not use.digest})
    start = len(path)
    return Written(
        values=values if isinstance(values, dict) else {},
        names=tuple((where[start:], section, name) for where, section, name in decoded.names),
        keys=tuple(replace(use, path=use.path[start:]) for use in keys),
        sources=tuple(source for _, source in decoded.references),
    )


def _with_files(
    value: Any, path: Path, namespace: str, keys: list[KeyUse], found: Problems, *, digest: bool
) -> Any:
    """Return plain values with a file (or the place for a digest) for each reference to a key, which `keys` gets."""
    if isinstance(value, list):
        return [
            _with_files(one, (*path, number), namespace, keys, found, digest=digest)
            for number, one in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    named = [name for name in (SECRET, CONFIG_MAP) if isinstance(value.get(name), dict)]
    if not named:
        return {
            key: _with_files(one, (*path, key), namespace, keys, found, digest=digest)
            for key, one in value.items()
        }
    taken = [key for key in ("sha256", "file", "env") if key in value]
    if len(named) > 1 or taken:
        both = " and ".join((named + taken)[:2])
        found.append(Problem(path=path, message=f"{both} exclude each other", remedy="keep one"))
        return value
    reference = decoder_for(KeyReference)(value[named[0]], (*path, named[0]), found)
    if reference is INVALID:
        return value
    use = KeyUse(
        path=path,
        kind=_KINDS[named[0]],
        namespace=reference.namespace or namespace,
        name=reference.name,
        key=reference.key,
        digest=digest,
    )
    keys.append(use)
    rest = {key: one for key, one in value.items() if key != named[0]}
    return {**rest, "sha256": _NO_DIGEST} if digest else {**rest, "file": use.file}


def _in_words_of_kubernetes(problem: Problem, names: Mapping[Path, str]) -> Problem:
    """Return a problem of the language with the words of these objects, which have no files and no environment."""
    path, message = problem.path, problem.message
    if path and path[:-1] in names and path[-1] in ("file", "sha256"):
        path, message = (*path[:-1], names[path[:-1]]), message.replace(str(path[-1]), names[path[:-1]])
    remedy = _REMEDY.sub(f"write {{{SECRET}: {{name: NAME, key: KEY}}}}", problem.remedy)
    return replace(problem, path=path, message=message, remedy=remedy)


def _not_allowed(
    references: Iterable[tuple[Path, DataSource]], keys: Mapping[Path, KeyUse]
) -> Iterator[Problem]:
    """Yield a problem for each file and variable, because an object must not read those of the controller."""
    for path, source in references:
        use = keys.get(path)
        remedy = f"write {{{SECRET}: {{name: NAME, key: KEY}}}}, or {CONFIG_MAP}"
        if source.env is not None:
            message = "an object reads no environment variable of the controller"
            yield Problem(path=(*path, "env"), message=message, remedy=remedy)
        elif source.file is not None and use is None:
            yield Problem(path=path, message="an object reads no file of the controller", remedy=remedy)
        elif use is not None and use.kind == "ConfigMap" and isinstance(source, SecretSource):
            message = "this is a secret, and a ConfigMap has none"
            yield Problem(path=(*path, CONFIG_MAP), message=message, remedy=f"write {SECRET}")
        elif use is not None and use.kind == "Secret" and not isinstance(source, SecretSource | Jwks):
            # a message about a mistake in the file may show a line of it to whoever may not read the Secret
            message = "this is no secret, so it is not read from one"
            yield Problem(path=(*path, SECRET), message=message, remedy=f"write {CONFIG_MAP}")


POLICY_KEYS = tuple(policy.key for policy in POLICIES)
