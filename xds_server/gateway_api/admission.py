"""A ValidatingAdmissionPolicy that rejects unknown keys in our own kinds, generated from the fields of the language.

Structural schemas cannot do it without pruning these keys, and say nothing of values of several forms. Rules of an admission
policy see objects as they are (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from filters.language import Rate
from filters.language.decode import field_key
from filters.model.identity import Consumer, Plan, Provider
from filters.pipeline import POLICIES
from xds_server.gateway_api.crds import properties_of
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

NAME = f"known-keys.{GROUP}"
_PLURALS = {
    Consumer: "consumers",
    Plan: "plans",
    Provider: "identityproviders",
    GatewayParametersSpec: "gatewayparameters",
    MeshPolicySpec: "meshpolicies",
}
_DEEPEST = 8


def admission_policy() -> Iterator[dict[str, Any]]:
    """Yield the policy, and its binding to all namespaces."""
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["gatewaypolicies", *_PLURALS.values()],
                    }
                ]
            },
            "variables": [
                {"name": "policies", "expression": "has(object.spec.policies) ? object.spec.policies : {}"}
            ],
            "validations": list(_validations()),
        },
    }
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }


def _validations() -> Iterator[dict[str, Any]]:
    of_policy = "request.resource.resource != 'gatewaypolicies'"
    yield {
        "expression": f"{of_policy} || {_known('variables.policies', POLICY_KEYS)}",
        "messageExpression": _told("variables.policies", POLICY_KEYS, "policy"),
    }
    keys = ["policies", *properties_of(Attachment)]
    yield {
        "expression": f"{of_policy} || {_known('object.spec', keys)}",
        "messageExpression": _told("object.spec", keys, "key of spec"),
    }
    for policy in POLICIES:
        value = f"variables.policies[{policy.key!r}]"
        rule = _rule(value, policy.settings, 0)
        if rule:
            yield {
                "expression": f"{of_policy} || !({policy.key!r} in variables.policies) || {rule}",
                "message": f"spec.policies.{policy.key} has an unknown key",
            }
    for declared, plural in _PLURALS.items():
        rule = _rule("object.spec", declared, 0)
        yield {
            "expression": f"request.resource.resource != {plural!r} || {rule}",
            "message": "spec has an unknown key",
        }


def _known(value: str, keys: typing.Iterable[str]) -> str:
    return f"{value}.all(key, key in {list(keys)!r})"


def _told(value: str, keys: typing.Iterable[str], what: str) -> str:
    """Return the expression of a message that names what is unknown."""
    unknown = f"{value}.map(key, key).filter(key, !(key in {list(keys)!r}))"
    return f"'unknown {what}: ' + {unknown}.join(', ')"


def _rule(value: str, annotation: Any, depth: int) -> str:
    """Return the expression that is true if a value has no unknown key, empty if it can have none."""
    if depth > _DEEPEST:
        return ""
    members = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [one for one in get_args(annotation) if one is not types.NoneType]
    objects = [one for one in members if dataclasses.is_dataclass(one) and one is not Rate]
    rules = []
    if len(objects) == 1:
        rules.append(_object(value, objects[0], depth))
    for one in members:
        origin, item = get_origin(one), f"item{depth}"
        if origin is tuple and (inner := _rule(item, get_args(one)[0], depth + 1)):
            rules.append(f"(type({value}) != list || {value}.all({item}, {inner}))")
        elif origin is Mapping and (inner := _rule(f"{value}[{item}]", get_args(one)[1], depth + 1)):
            rules.append(f"(type({value}) != map || {value}.all({item}, {inner}))")
    return " && ".join(filter(None, rules))


def _object(value: str, declared: Any, depth: int) -> str:
    fields = [one for one in dataclasses.fields(declared) if "about" in one.metadata]
    if any(one.metadata["about"].others for one in fields):
        return ""
    keys = list(properties_of(declared))
    hints = {field_key(one): typing.get_type_hints(declared)[one.name] for one in fields}
    hints |= dict.fromkeys((SECRET, CONFIG_MAP), KeyReference)
    rules = [f"{value}.all(key{depth}, key{depth} in {keys!r})"]
    for key in keys:
        inner = _rule(f"{value}[{key!r}]", hints[key], depth + 1)
        if inner:
            rules.append(f"(!({key!r} in {value}) || ({inner}))")
    return f"(type({value}) != map || ({' && '.join(rules)}))"
