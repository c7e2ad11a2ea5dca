"""GatewayPolicies: how they merge, what closes a route, and what an object must not read."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.language.options import OFF
from filters.policy import Levels
from tests.support.cluster_objects import cluster_of
from xds_server.control_plane.compiler import Compiler
from xds_server.controller.served import ServedGateway
from xds_server.gateway_api.translation import Translation, translate
from xds_server.sources.manifest_folder import ManifestState

WEB = ("infra", "web")
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: infra}
spec:
  gatewayClassName: xds
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: shop}
spec:
  parentRefs: [{name: web, namespace: infra}]
  rules:
    - {name: reading, matches: [{path: {value: /users}}], backendRefs: [{name: users, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: open, namespace: shop}
spec:
  parentRefs: [{name: web, namespace: infra}]
  rules:
    - {matches: [{path: {value: /open}}], backendRefs: [{name: users, port: 80}]}
---
"""
POLICY = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: one, namespace: shop}
spec:
  targetRefs: [{kind: HTTPRoute, name: users}]
  policies: POLICIES
---
"""


def _translated(text: str) -> Translation:
    return translate(cluster_of(text), of_every_class=True)


def _routes(translation: Translation) -> dict[str, Any]:
    files = translation.gateways[WEB].files
    return {name: one for values in files.values() for name, one in values.get("routes", {}).items()}


def _accepted(translation: Translation, kind: str = "GatewayPolicy", name: str = "one") -> tuple[str, str]:
    (status,) = (one for one in translation.object_statuses if (one.kind, one.key) == (kind, ("shop", name)))
    (ancestor,) = status.ancestors
    return ancestor.conditions[0].reason, ancestor.conditions[0].message


FILES = """
apiVersion: v1
kind: Secret
metadata: {name: users, namespace: shop}
stringData: {htpasswd: "a:b", shop.proto: 'syntax = "proto3"; import "tls.key";'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: files, namespace: shop}
data:
  shop.proto: 'syntax = "proto3"; import "tls.key";'
  rules.py: "def check(request): return True"
---
apiVersion: v1
kind: Secret
metadata: {name: theirs, namespace: infra}
stringData: {htpasswd: "a:b"}
---
"""


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("{cors: {}}", "spec.policies.cors: 'allow_origins' is missing; add 'allow_origins'"),
        ("{autentication: any}", "spec.policies.autentication: unknown policy 'autentication'; did you mean"),
        ("[]", "spec.policies: expected a mapping of policies"),
        ("{basic_auth: {htpasswd: {env: HOME}}}", "htpasswd.env: an object reads no environment variable"),
        (
            "{basic_auth: {htpasswd: {file: /etc/passwd}}}",
            "htpasswd: an object reads no file of the controller",
        ),
        (
            "{basic_auth: {htpasswd: plain}}",
            "a secret is never written plainly (found '[redacted]'); write {secretKeyRef:",
        ),
        (
            "{basic_auth: {htpasswd: {file: a, secretKeyRef: {name: a, key: b}}}}",
            "secretKeyRef and file exclude each other; keep one",
        ),
        (
            "{basic_auth: {htpasswd: {secretKeyRef: {name: users}}}}",
            "secretKeyRef: 'key' is missing; add 'key'",
        ),
        ("{basic_auth: {htpasswd: {secretKeyRef: {name: none, key: a}}}}", "there is no Secret shop/none"),
        (
            "{basic_auth: {htpasswd: {secretKeyRef: {name: users, key: a}}}}",
            "the Secret shop/users has no key a",
        ),
        (
            "{basic_auth: {htpasswd: {secretKeyRef: {name: theirs, namespace: infra, key: htpasswd}}}}",
            "the Secret infra/theirs is in another namespace, and no ReferenceGrant there allows it",
        ),
        (
            "{basic_auth: {htpasswd: {configMapKeyRef: {name: files, key: htpasswd}}}}",
            "configMapKeyRef: this is a secret, and a ConfigMap has none; write secretKeyRef",
        ),
        ("{cors: {secretKeyRef: {name: users, key: a}}}", "cors.secretKeyRef: unknown key 'secretKeyRef'"),
        ("{ext_authz: {python: rules.py:check}}", "python: an object reads no file of the controller"),
        (
            "{ext_authz: {python: {configMapKeyRef: {name: files, key: rules.py}}}}",
            "Python runs beside the Envoys of the Gateway, so only policies of its namespace have it",
        ),
        (
            "{grpc_transcoding: {protos: [{secretKeyRef: {name: users, key: shop.proto}}]}}",
            "this is no secret, so it is not read from one; write configMapKeyRef",
        ),
        (
            "{grpc_transcoding: {protos: [{import_path: infra/cert, configMapKeyRef: {name: files, key: shop.proto}}]}}",
            "a file of the ConfigMap shop/files refers to infra/cert/tls.key, which is not in it",
        ),
        (
            "{grpc_transcoding: {protos: [{import_path: Secret/infra/theirs, configMapKeyRef: {name: files, key: shop.proto}}]}}",
            "refers to Secret/infra/theirs/tls.key, which is not in it",
        ),
        ("{ext_authz: {grpc: decider}}", "'decider' is not a port of a Service; write SERVICE:PORT"),
        ("{ext_authz: {grpc: 'none:80'}}", "there is no Service shop/none"),
        ("{ext_authz: {http: 'infra/none:80'}}", "the Service infra/none is in another namespace"),
        ("{jwt: main}", "the Gateway infra/web takes no IdentityProvider of the namespace shop; add it to"),
        ("{jwt: infra/main}", "there is no IdentityProvider infra/main; add it"),
        ("{jwt: a/b/c}", "'a/b/c' is not the name of a IdentityProvider; write NAME, or NAMESPACE/NAME"),
    ],
)
def test_a_policy_that_cannot_be_used_closes_its_routes(policies: str, message: str) -> None:
    translation = _translated(GATEWAY + FILES + POLICY.replace("POLICIES", policies))
    reason, told = _accepted(translation)
    assert (reason, told.partition(": ")[0]) == ("Invalid", "requests of its targets get 500")
    assert message in told
    routes = _routes(translation)
    assert routes["shop.users.000.000"]["respond"] == {"status": 500}
    assert routes["shop.open.000.000"]["upstream"] == "shop.users.80"
    assert not any(name.startswith("Secret/") for name in translation.gateways[WEB].contents)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "disabled: [cors], targetRefs: [{kind: Later, name: a}, {kind: HTTPRoute, name: users}]",
            "[0].kind: expected one of",
        ),
        ("disabld: [cors]", "spec.disabld: unknown key 'disabld'; did you mean 'disabled'?"),
        ("disabled: cors", "spec.disabled: expected a list"),
        ("disabled: [cor]", "spec.policies.cor: unknown policy 'cor'; did you mean 'cors'?"),
        (
            "disabled: [cors], policies: {cors: {allow_origins: ['*']}}",
            "'cors' is also under 'policies'; keep one",
        ),
        (
            "allowedConsumers: {namespaces: {from: Some}}",
            "spec.allowedConsumers.namespaces.from: expected one of",
        ),
    ],
)
def test_a_policy_that_is_not_understood_closes_what_it_names(spec: str, message: str) -> None:
    policy = POLICY.replace("policies: POLICIES", spec.replace("], ", "]\n  "))
    if "targetRefs" in spec:
        policy = policy.replace("  targetRefs: [{kind: HTTPRoute, name: users}]\n", "", 1)
    translation = _translated(GATEWAY + policy)
    assert message in _accepted(translation)[1]
    routes = _routes(translation)
    assert routes["shop.users.000.000"]["respond"] == {"status": 500}
    assert routes["shop.open.000.000"]["upstream"] == "shop.users.80"


def _served(text: str) -> ServedGateway:
    cluster = cluster_of(text)
    served = ServedGateway(WEB)
    served.update(translate(cluster, of_every_class=True, live=True).gateways[WEB], cluster)
    return served


CONSUMERS = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: all, namespace: infra}
spec: {targetRefs: [{kind: Gateway, name: web}], allowedConsumers: {namespaces: {from: All}}}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: IdentityProvider
metadata: {name: main, namespace: infra}
spec: {issuer: https://a.example.com, jwks: {inline: '{"keys": []}'}}
---
"""


def test_what_only_the_whole_gateway_shows_closes_only_its_routes() -> None:
    policy = POLICY.replace("POLICIES", "{oidc: infra/main}")  # whose provider knows no login
    served = _served(GATEWAY + CONSUMERS + policy)
    assert served.fault == ""
    assert "oidc" in served.rejected["GatewayPolicy", ("shop", "one")]
    assert served._compiled is not None
    routes = served._compiled.gateway.sections.routes
    assert routes["shop.users.000.000"].respond is not None
    assert routes["shop.open.000.000"].upstream == "shop.users.80"


def test_a_policy_that_does_not_agree_with_one_route_closes_only_this_one() -> None:
    streams = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{name: web, namespace: infra}]
  rules: [{backendRefs: [{name: users, port: 80}]}]
---
"""
    policy = POLICY.replace("namespace: shop", "namespace: infra").replace(
        "HTTPRoute, name: users", "Gateway, name: web"
    )
    policy = policy.replace("POLICIES", "{validate: {json_schema: {schema: {type: object}}}}")
    served = _served(GATEWAY + streams + policy)
    assert served.fault == ""
    assert served.rejected.keys() == {("GRPCRoute", ("shop", "calls"))}
    assert "policy_sets.infra.one" in served.rejected["GRPCRoute", ("shop", "calls")]
    routes = _sections(served).routes
    assert routes["shop.calls.GRPC.000.000"].respond is not None
    assert routes["shop.users.000.000"].upstream == "shop.users.80"
    assert routes["shop.users.000.000"].use == ("infra.one",)


def _sections(served: ServedGateway) -> Any:
    assert served._compiled is not None
    return served._compiled.gateway.sections


def test_two_consumers_with_one_key_let_nobody_in_by_it() -> None:
    consumer = """
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: NAME, namespace: shop}
spec: {api_keys: [{secretKeyRef: {name: keys, key: one}}]}
---
"""
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: shop}\nstringData: {one: abc}\n---\n"
    )
    policy = POLICY.replace("POLICIES", "{api_key: true, authorize: {consumers: [alice]}}")
    both = consumer.replace("NAME", "alice") + consumer.replace("NAME", "bob")
    served = _served(GATEWAY + CONSUMERS + secret + both + policy)
    assert served.fault == ""
    assert served._compiled is not None
    assert len(served._compiled.gateway.sections.consumers) < 2
    assert any(kind == "Consumer" for kind, _ in served.rejected)


def test_a_key_in_a_secret_never_reaches_the_files() -> None:
    consumer = """
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: infra}
spec: {api_keys: [{secretKeyRef: {name: keys, key: one}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: infra}
stringData: {one: "a-long-key\\r\\n"}
"""
    files = _translated(GATEWAY + consumer).gateways[WEB]
    rendered = b"".join(files.rendered().values())
    assert b"a-long-key" not in rendered
    assert b"a-long-key" not in b"".join(files.contents.values())
    assert hashlib.sha256(b"a-long-key").hexdigest().encode() in rendered


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "off", "a", "a/b", "${HOME}", "a:80", "10/hour"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "cors", "jwt", "api_key", "basic_auth", "htpasswd", "authorize", "consumers", "ext_authz", "grpc", "python",
                    "secretKeyRef", "configMapKeyRef", "name", "key", "namespace", "file", "env", "plan", "api_keys", "targetRefs",
                    "kind", "policies", "disabled", "allowedConsumers", "provider", "any",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["GatewayPolicy", "Consumer", "Plan", "IdentityProvider"]), _JUNK),
        max_size=4,
    )
)
def test_no_object_keeps_others_from_being_served(specs: list[tuple[str, Any]]) -> None:
    """Whatever stands in an object, the route that it does not name is served, and what it names is closed or as it says."""
    target = {"targetRefs": [{"kind": "HTTPRoute", "name": "users"}]}
    text = GATEWAY
    for number, (kind, spec) in enumerate(specs):
        metadata = {"name": f"o{number}", "namespace": "shop"}
        if kind == "GatewayPolicy":
            spec = {**target, **(spec if isinstance(spec, dict) and number % 2 else {"policies": spec})}
        text += yaml.safe_dump(
            {"apiVersion": "xds-gateway.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        )
        text += "---\n"
    served = _served(text)
    assert served.fault == ""
    assert served._compiled is not None
    assert served._compiled.gateway.sections.routes["shop.open.000.000"].upstream == "shop.users.80"


KEYS = ("ip_access", "response_headers", "compression", "rate_limit")
LEVELS = (
    ("Gateway", "web", None),
    ("Gateway", "web", "http"),
    ("HTTPRoute", "users", None),
    ("HTTPRoute", "users", "reading"),
)


def _setting(key: str, number: int) -> Any:
    """Return a setting that tells which policy it is of."""
    return {
        "ip_access": {"deny": [f"10.0.0.{number + 1}"]},
        "response_headers": {"set": {"x-of": f"p{number}"}},
        "compression": {"min_size": f"{number + 1}KB"},
        "rate_limit": f"{number + 1}/hour",
    }[key]


_POLICY = st.tuples(
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
    st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1),
)


@given(st.lists(_POLICY, max_size=6))
@settings(max_examples=100, deadline=None)
def test_the_most_specific_policy_wins_then_the_oldest(
    policies: list[tuple[int, int, bool, dict[str, bool]]],
) -> None:
    """Compare with a model: at each level the oldest has a key, and levels override each other key by key."""
    text = GATEWAY.replace("namespace: shop", "namespace: infra")
    for number, (level, age, override, keys) in enumerate(policies):
        kind, name, section = LEVELS[level]
        value = {
            "apiVersion": "xds-gateway.dev/v1alpha1",
            "kind": "GatewayPolicy",
            "metadata": {
                "name": f"p{number}",
                "namespace": "infra",
                "creationTimestamp": f"2026-01-0{age + 1}T00:00:00Z",
            },
            "spec": {
                "targetRefs": [{"kind": kind, "name": name} | ({"sectionName": section} if section else {})],
                "override": override,
                "policies": {key: _setting(key, number) for key, on in keys.items() if on},
                "disabled": [key for key, on in keys.items() if not on],
            },
        }
        text += yaml.safe_dump(value) + "---\n"
    files = _translated(text).gateways[WEB]
    compiled = Compiler({}).compile(ManifestState(files=files.rendered(), contents=files.contents))
    found = compiled.gateway.policies["infra.users.000.000"]
    expected: dict[str, int | None] = {}
    limits: list[str] = []
    for level, overrides in [*((one, False) for one in range(4)), *((one, True) for one in (3, 2, 1, 0))]:
        there = sorted(
            (age, number)
            for number, (at, age, override, _) in enumerate(policies)
            if (at, override) == (level, overrides)
        )
        own: dict[str, int | None] = {}
        for _, number in there:
            for key, on in policies[number][3].items():
                own.setdefault(key, number if on else None)
        expected |= own
        for _, number in reversed(there):
            match policies[number][3].get("rate_limit"):
                case True:
                    limits.append(f"set/infra.p{number}")
                case False:
                    limits = []
    for key in KEYS[:3]:
        assert _owner(key, found.get(key, OFF)) == expected.get(key)
    limit = found.get("rate_limit")
    places = [place for place, _ in limit.places] if isinstance(limit, Levels) else []
    assert places == limits


def _owner(key: str, setting: Any) -> int | None:
    if setting is OFF:
        return None
    match key:
        case "ip_access":
            return int(setting.deny[0].rpartition(".")[2]) - 1
        case "response_headers":
            return int(setting.set["x-of"][1:])
    return int(setting.min_size) // 1000 - 1
