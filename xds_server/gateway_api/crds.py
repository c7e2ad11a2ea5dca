"""The CustomResourceDefinitions of our own kinds, generated from the fields that the decoder of the language uses.

Their schemas are structural (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/),
which the JSON Schema of the language is not: a value of several forms, such as a list or a single object, has no type here,
and only the controller checks it. No schema prunes an unknown key, because a policy that the API server dropped without a word
would open what it protects: `admission` rejects it, and so does the controller.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal, Union, get_args, get_origin

from filters.language import DataSource, Percent, Rate, Raw, Size
from filters.language.datasource import SecretSource
from filters.language.decode import field_key
from filters.language.options import About, Off, Shorthand
from filters.model.identity import Consumer, Jwks, Plan, Provider
from filters.pipeline import POLICIES
from xds_server.gateway.schema import DURATION, PERCENT, RATE, SIZE
from xds_server.gateway_api.mesh_specs import MeshPolicySpec
from xds_server.gateway_api.parameter_specs import GatewayParametersSpec
from xds_server.gateway_api.policy_specs import (
    CONFIG_MAP,
    GROUP,
    POLICY_KEYS,
    SECRET,
    VERSION,
    Attachment,
    KeyReference,
)

Schema = dict[str, Any]
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
_LONGEST = 32
"""Characters of a duration. CEL rules need a bound."""
_LONGEST_NAME = 253
"""Characters of a name (RFC 1123)."""
_RULED = 64
"""Items of a list or mapping that have rules."""
_TARGETS, _ANCESTORS, _CONDITIONS = 16, 16, 8
_GO_DURATION = r"^([0-9]+([.][0-9]+)?(us|ms|s|m|h))+$"
"""Durations that CEL knows too: those without days."""
_TEXTS = {Percent: PERCENT, Rate: RATE}


def definitions() -> Iterator[Schema]:
    """Yield the definition of each kind."""
    yield _definition("GatewayPolicy", "gatewaypolicies", _policy(), "Policies of the gateway language.", {
        "gateway.networking.k8s.io/policy": "Inherited"
    })  # fmt: skip
    for kind, plural, declared in (
        ("Consumer", "consumers", Consumer),
        ("Plan", "plans", Plan),
        ("IdentityProvider", "identityproviders", Provider),
    ):
        yield _definition(kind, plural, _object(declared), (declared.__doc__ or "").strip(), {})
    yield _definition("MeshPolicy", "meshpolicies", _object(MeshPolicySpec), (MeshPolicySpec.__doc__ or "").strip(), {
        "gateway.networking.k8s.io/policy": "Direct"
    })  # fmt: skip
    yield _without_status("GatewayParameters", "gatewayparameters", GatewayParametersSpec)


def _definition(kind: str, plural: str, spec: Schema, description: str, labels: Mapping[str, str]) -> Schema:
    accepted = '.status.ancestors[*].conditions[?(@.type=="Accepted")].status'
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": dict(labels)},
        "spec": {
            "group": GROUP,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Accepted", "type": "string", "jsonPath": accepted},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": _status(),
                            },
                        }
                    },
                }
            ],
        },
    }


def _without_status(kind: str, plural: str, declared: type) -> Schema:
    found = _definition(kind, plural, _object(declared), (declared.__doc__ or "").strip(), {})
    (version,) = found["spec"]["versions"]
    del version["subresources"], version["additionalPrinterColumns"]
    del version["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def _policy() -> Schema:
    spec = _object(Attachment)
    targets = spec["properties"]["targetRefs"]
    targets["maxItems"] = _TARGETS
    for key in ("name", "sectionName"):
        targets["items"]["properties"][key]["maxLength"] = _LONGEST_NAME
    same = (
        "has(a.sectionName) == has(b.sectionName) && (!has(a.sectionName) || a.sectionName == b.sectionName)"
    )
    targets["x-kubernetes-validations"] = [
        _rule(
            f"self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && {same}))",
            "a target is named twice; remove one of them",
        )
    ]
    disabled = spec["properties"]["disabled"]
    disabled["items"] = {"type": "string", "enum": list(POLICY_KEYS)}
    disabled["maxItems"] = len(POLICY_KEYS)
    policies = {
        policy.key: {"description": _described(policy.settings), **_type(policy.settings, About(""))}
        for policy in POLICIES
    }
    spec["properties"]["policies"] = {
        "type": "object",
        "description": "Policies of the gateway language. They override those of outer levels key by key.",
        "properties": policies,
        **_OPEN,
    }
    spec["x-kubernetes-validations"] = [
        _rule(
            "has(self.policies) || has(self.disabled) || has(self.allowedConsumers)",
            "the policy does nothing; add policies, disabled or allowedConsumers",
        ),
        _rule(
            "!has(self.allowedConsumers) || self.targetRefs.all(one, one.kind == 'Gateway' && !has(one.sectionName))",
            "allowedConsumers is for whole Gateways; name only those under targetRefs",
        ),
    ]
    return spec


def _described(settings: Any) -> str:
    """Return what the settings of a policy are, with their short form."""
    members = [one for one in get_args(settings) if dataclasses.is_dataclass(one)] or [settings]
    described = next((one for one in members if dataclasses.is_dataclass(one)), None)
    if described is None:
        return "A value of the gateway language."
    short: Shorthand | None = getattr(described, "SHORTHAND", None)
    text = " ".join((described.__doc__ or "").split())
    return f"{text} Short form: {short.what}." if short is not None else text


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


def properties_of(cls: Any) -> Mapping[str, Schema]:
    """Return the keys of a class of the language in an object of Kubernetes."""
    found: Mapping[str, Schema] = _object(cls)["properties"]
    return found


def _object(cls: Any) -> Schema:
    hints = typing.get_type_hints(cls)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for field in dataclasses.fields(cls):
        about: About | None = field.metadata.get("about")
        if about is None or about.others:
            continue
        key = field_key(field)
        properties[key] = {"description": about.doc, **_narrowed(_type(hints[field.name], about), about)}
        if field.default is dataclasses.MISSING is field.default_factory:
            required.append(key)
    schema: Schema = {"type": "object", "description": " ".join((cls.__doc__ or "").split())}
    if issubclass(cls, DataSource):
        schema |= _source(cls, properties)
    elif any(about.secret for about in _abouts(cls)) and "sha256" in properties:
        properties[SECRET] = _key("The value itself, of which the gateway keeps only the SHA-256.")
        required.remove("sha256")
        schema["x-kubernetes-validations"] = [_exactly_one(["sha256", SECRET])]
    schema |= {"properties": properties, **_OPEN}
    return schema | ({"required": required} if required else {})


def _abouts(cls: Any) -> Iterator[About]:
    return (field.metadata["about"] for field in dataclasses.fields(cls) if "about" in field.metadata)


def _source(cls: type, properties: dict[str, Schema]) -> Schema:
    """Put references to Secrets and ConfigMaps in the place of files and variables. Returns the rule about them."""
    secret = issubclass(cls, SecretSource)
    for key in ("file", "env", *(("inline",) if secret else ())):
        properties.pop(key, None)
    if secret or issubclass(cls, Jwks):
        properties[SECRET] = _key("A key of a Secret.")
    if not secret:
        properties[CONFIG_MAP] = _key("A key of a ConfigMap.")
    one_of = [key for key in (SECRET, CONFIG_MAP, "inline", "url", "schema") if key in properties]
    return {"x-kubernetes-validations": [_exactly_one(one_of)]}


def _key(description: str) -> Schema:
    return {**_object(KeyReference), "description": description}


def _exactly_one(keys: list[str]) -> Schema:
    listed = ", ".join(f"has(self.{key})" for key in keys)
    return _rule(f"[{listed}].exists_one(one, one)", f"exactly one of {', '.join(keys)} is needed")


def _narrowed(schema: Schema, about: About) -> Schema:
    """Return the schema without empty values, if an empty value would select all."""
    bounds = {"array": {"minItems": 1}, "object": {"minProperties": 1}, "string": {"minLength": 1}}
    return schema | (bounds.get(schema.get("type", ""), {}) if about.narrows else {})


def _type(annotation: Any, about: About) -> Schema:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [one for one in arguments if one not in (types.NoneType, Off)]
        return _type(members[0], about) if len(members) == 1 else dict(_OPEN)
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple:
        items = _type(arguments[0], dataclasses.replace(about, minimum_items=0, narrows=False))
        found: Schema = {"type": "array", "items": items} | _most(items, "maxItems")
        return found | ({"minItems": about.minimum_items} if about.minimum_items else {})
    if origin is Mapping:
        values = _type(arguments[1], About(""))
        if values == _OPEN:  # CEL does not see a mapping to anything
            return {"type": "object", **_OPEN}
        return {"type": "object", "additionalProperties": values} | _most(values, "maxProperties")
    if dataclasses.is_dataclass(annotation) and annotation is not Rate:
        short: Shorthand | None = getattr(annotation, "SHORTHAND", None)
        source = isinstance(annotation, type) and issubclass(annotation, DataSource)
        return dict(_OPEN) if short is not None and not source else _object(annotation)
    return _scalar(annotation, about)


def _most(items: Schema, bound: str) -> Schema:
    """Return the bound of a collection whose items have rules in CEL, because the API server bounds what these may cost."""
    return {bound: _RULED} if _has_rules(items) else {}


def _has_rules(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "x-kubernetes-validations" in schema or any(map(_has_rules, schema.values()))
    return False


def _scalar(annotation: Any, about: About) -> Schema:
    if annotation is str:
        return {"type": "string"} | ({"pattern": f"^(?:{about.pattern})$"} if about.pattern else {})
    if annotation is bool:
        return {"type": "boolean"}
    if annotation in (int, float):
        low = {"minimum": about.minimum} if about.minimum is not None else {}
        high = {"maximum": about.maximum} if about.maximum is not None else {}
        return {"type": "integer" if annotation is int else "number"} | low | high
    if annotation is timedelta:
        return {"type": "string", "pattern": DURATION, "maxLength": _LONGEST} | _duration_rules(about)
    if annotation is Size:
        return {"x-kubernetes-int-or-string": True, "pattern": SIZE}
    if annotation in _TEXTS:
        return {"type": "string", "pattern": _TEXTS[annotation]}
    return {"type": "object", **_OPEN} if annotation is Raw else dict(_OPEN)


def _choice(choices: tuple[Any, ...]) -> Schema:
    if all(isinstance(one, str) for one in choices):
        return {"type": "string", "enum": list(choices)}
    if all(isinstance(one, int) for one in choices):
        return {"type": "integer", "enum": list(choices)}
    return {"x-kubernetes-int-or-string": True, "enum": list(choices)}


def _duration_rules(about: About) -> Schema:
    rules = [
        _rule(
            f"!self.matches('{_GO_DURATION}') || duration(self) {sign} duration('{bound:g}s')",
            f"expected a duration of {what} {bound:g}s",
        )
        for bound, sign, what in ((about.minimum, ">=", "at least"), (about.maximum, "<=", "at most"))
        if bound
    ]
    return {"x-kubernetes-validations": rules} if rules else {}


def _status() -> Schema:
    text = {"type": "string"}
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text,
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": text,
            "message": {"type": "string", "maxLength": 32768},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
    }
    reference = dict.fromkeys(("group", "kind", "namespace", "name", "sectionName"), text)
    ancestor = {
        "type": "object",
        "required": ["ancestorRef", "controllerName"],
        "properties": {
            "ancestorRef": {"type": "object", "required": ["name"], "properties": reference},
            "controllerName": text,
            "conditions": {
                "type": "array",
                "maxItems": _CONDITIONS,
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    }
    ancestors = {
        "type": "array",
        "description": "What is true of it at each Gateway, or at its namespace in a mesh (GEP-713).",
        "maxItems": _ANCESTORS,
        "items": ancestor,
        "x-kubernetes-list-type": "atomic",
    }
    return {"type": "object", "properties": {"ancestors": ancestors}}
