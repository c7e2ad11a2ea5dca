"""The real API server takes our definitions, and rejects bad objects with a message that says what to write."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.kubernetes.controller import EXAMPLE, define
from tests.support.kubernetes.objects import Objects
from tests.support.kubernetes.shared import SharedServer
from tests.support.wait import wait_for
from xds_server.gateway.document import parse

ROOT = Path(__file__).parents[2]

POLICY = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: one, namespace: NAME}
spec:
  targetRefs: [{kind: Gateway, name: web}]
"""
OTHER = """
apiVersion: xds-gateway.dev/v1alpha1
kind: KIND
metadata: {name: one, namespace: NAME}
spec: SPEC
"""
GOOD = [
    "  policies: {rate_limit: 100/second, jwt: [main], cors: {allow_origins: ['https://a.example.com']}}",
    "  policies: {authorize: [{consumers: [a]}, {plans: [gold]}], quota: [10GB/day]}",
    "  policies: {validate: {max_body: 10KB}, fault: {delay: {duration: 1s, percent: 10%}}}",
    "  policies: {ext_authz: {python: {configMapKeyRef: {name: rules, key: hours.py}, function: check}}}",
    "  policies: {basic_auth: {htpasswd: {secretKeyRef: {name: users, key: htpasswd}}}, authentication: all}",
    "  disabled: [rate_limit, cors]",
    "  allowedConsumers: {namespaces: {from: All}}",
]
BAD = [
    ("", "the policy does nothing; add policies, disabled or allowedConsumers"),
    ("  policies: {authentication: some}", 'Unsupported value: "some": supported values: "any", "all"'),
    ("  policies: {cors: {max_age: 1h}}", "spec.policies.cors.allow_origins: Required value"),
    ("  policies: {cors: {allow_origins: [a], max_age: soon}}", "should match"),
    ("  policies: {ext_authz: {timeout: 2m, http: a:80}}", "expected a duration of at most 60s"),
    ("  policies: {grpc_transcoding: {descriptors: {}}}", "exactly one of configMapKeyRef, inline is needed"),
    ("  disabled: [cor]", 'Unsupported value: "cor"'),
]
CONSUMER = """
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: one, namespace: NAME}
spec: {api_keys: [KEY]}
"""


@pytest.fixture(scope="module")
def objects(kubernetes: SharedServer) -> Iterator[Objects]:
    with kubernetes.objects() as found:
        define(found)
        yield found


@pytest.fixture(scope="module")
def namespace(objects: Objects) -> str:
    """A namespace in which the API server follows our admission policy, which it does with a delay."""
    name = objects.namespace(f"t{uuid.uuid4().int % 10**12}")
    wait_for(lambda: _apply(objects, name, POLICY + "  policies: {unknown: true}"), "the admission policy")
    return name


def _apply(objects: Objects, namespace: str, text: str) -> str:
    """Apply an object. Returns the message of a rejection, which names a place."""
    try:
        objects.apply(text.replace("NAME", namespace))
    except httpx.HTTPStatusError as error:
        return str(error).replace('\\"', '"')
    return ""


def test_the_api_server_takes_the_definitions_as_they_are(objects: Objects) -> None:
    documents = yaml.safe_load_all((EXAMPLE / "crds.yaml").read_text())
    for crd in (one for one in documents if one["kind"] == "CustomResourceDefinition"):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
        conditions = objects.request("GET", path)["status"]["conditions"]
        found = {one["type"]: (one["status"], one["message"]) for one in conditions}
        assert "NonStructuralSchema" not in found
        assert found["Established"][0] == "True"


@pytest.mark.parametrize("spec", GOOD)
def test_the_language_is_taken(objects: Objects, namespace: str, spec: str) -> None:
    assert _apply(objects, namespace, POLICY + spec) == ""


@pytest.mark.parametrize(("spec", "message"), BAD)
def test_a_mistake_is_rejected_with_its_place(
    objects: Objects, namespace: str, spec: str, message: str
) -> None:
    assert message in _apply(objects, namespace, POLICY + spec)


def _written() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the policies of all golden cases and examples, without those that name files or switch something off."""
    for case in sorted(
        [*ROOT.glob("tests/translate/cases/**/*.yaml"), *ROOT.glob("examples/**/gateway/**/*.yaml")]
    ):
        values = parse(case.name, case.read_bytes(), {}).values
        levels = [values.get("policies"), *(values.get("policy_sets") or {}).values()]
        routes = values.get("routes")
        levels += [
            (one or {}).get("policies") for one in (routes if isinstance(routes, dict) else {}).values()
        ]
        for level in levels:
            for key, value in (level or {}).items():
                named = re.search(r"'(file|env)'|\.(py|proto|pb|json|yaml)\b|\$\{", str(value))
                if value not in ("off", False) and not named:
                    yield str(case.relative_to(ROOT)), {key: value}


def test_what_the_language_takes_is_taken(objects: Objects, namespace: str) -> None:
    found = list(_written())
    assert len(found) > 60
    path = f"/apis/xds-gateway.dev/v1alpha1/namespaces/{namespace}/gatewaypolicies"
    rejected = []
    for number, (case, policies) in enumerate(found):
        spec = {"targetRefs": [{"kind": "Gateway", "name": "web"}], "policies": policies}
        body = {"apiVersion": "xds-gateway.dev/v1alpha1", "kind": "GatewayPolicy", "spec": spec}
        try:
            objects.request("POST", path, body | {"metadata": {"name": f"n{number}"}}, dryRun="All")
        except httpx.HTTPStatusError as error:
            rejected.append(f"{case}: {policies}: {error}")
    assert rejected == []


def test_targets_are_what_has_routes(objects: Objects, namespace: str) -> None:
    spec = "  policies: {metering: false}"
    service = POLICY.replace("kind: Gateway, name", "kind: Service, name") + spec
    assert 'supported values: "Gateway", "HTTPRoute", "GRPCRoute"' in _apply(objects, namespace, service)
    twice = POLICY.replace(
        "{kind: Gateway, name: web}", "{kind: Gateway, name: web}, {kind: Gateway, name: web}"
    )
    assert "a target is named twice" in _apply(objects, namespace, twice + spec)
    route = POLICY.replace("kind: Gateway, name", "kind: HTTPRoute, name") + GOOD[-1]
    assert "allowedConsumers is for whole Gateways" in _apply(objects, namespace, route)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("{secretKeyRef: {name: keys, key: alice}}", ""),
        (f"{{sha256: {'a' * 64}}}", ""),
        ("{sha256: abc}", "should match"),
        ("{}", "exactly one of sha256, secretKeyRef is needed"),
        (f"{{sha256: {'a' * 64}, secretKeyRef: {{name: a, key: b}}}}", "exactly one of sha256, secretKeyRef"),
        ("{secretKeyRef: {name: keys}}", "secretKeyRef.key: Required value"),
    ],
)
def test_a_key_is_a_digest_or_in_a_secret(objects: Objects, namespace: str, key: str, message: str) -> None:
    found = _apply(objects, namespace, CONSUMER.replace("KEY", key))
    assert message in found
    assert bool(message) == bool(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POLICY + "  policies: {autentication: any, metering: false}", "unknown policy: autentication"),
        (POLICY + "  disabld: [cors]\n  policies: {metering: false}", "unknown key of spec: disabld"),
        (POLICY + "  policies: {jwt: {provder: main}}", "spec.policies.jwt has an unknown key"),
        (
            POLICY + "  policies: {rate_limit: [{limit: 1/hour, burts: 2}]}",
            "spec.policies.rate_limit has an unknown key",
        ),
        (
            POLICY + "  policies: {basic_auth: {htpasswd: {secretKeyRef: {name: a, key: b, namspace: c}}}}",
            "spec.policies.basic_auth has an unknown key",
        ),
        (
            CONSUMER.replace("KEY", "{secretKeyRef: {name: a, key: b}, notafter: c}"),
            "spec has an unknown key",
        ),
        (OTHER.replace("KIND", "MeshPolicy").replace("SPEC", "{mtsl: strict}"), "spec has an unknown key"),
        (
            OTHER.replace("KIND", "MeshPolicy").replace("SPEC", "{allow: [{account: a}]}"),
            "spec has an unknown key",
        ),
        (
            OTHER.replace("KIND", "GatewayParameters").replace(
                "SPEC", "{autoscaling: {maxReplicas: 2, max: 3}}"
            ),
            "spec has an unknown key",
        ),
    ],
)
def test_an_unknown_key_is_rejected(objects: Objects, namespace: str, text: str, message: str) -> None:
    assert message in _apply(objects, namespace, text)
