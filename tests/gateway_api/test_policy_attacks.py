"""What somebody who may write routes and policies of one namespace cannot do to a Gateway of another."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster_objects import cluster_of
from xds_server.gateway_api.translation import Translation, translate

CLUSTER = """
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
spec: {parentRefs: [{name: web, namespace: infra}], rules: [{backendRefs: [{name: users, port: 80}]}]}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: infra}
stringData: {alice: key-of-alice}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: infra}
spec: {api_keys: [{secretKeyRef: {name: keys, key: alice}}]}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: insists, namespace: infra}
spec: {override: true, targetRefs: [{kind: Gateway, name: web}], policies: {api_key: true}}
---
apiVersion: v1
kind: Secret
metadata: {name: own, namespace: shop}
stringData: {htpasswd: "USER:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: mine, namespace: shop}
spec:
  targetRefs: [{kind: HTTPRoute, name: users}]
  policies: POLICIES
"""
OWN_PASSWORDS = "{basic_auth: {htpasswd: {secretKeyRef: {name: own, key: htpasswd}}, optional: true}}"


def translated(policies: str, *, user: str = "mallory", without: str = "") -> Translation:
    text = CLUSTER.replace("POLICIES", policies).replace("USER", user)
    return translate(
        cluster_of(text, lambda value: value["metadata"]["name"] != without), of_every_class=True
    )


def route(translation: Translation) -> dict[str, Any]:
    values = translation.gateways["infra", "web"].files["HTTPRoute/shop/users.yaml"]["routes"]
    found: dict[str, Any] = values["shop.users.000.000"]
    return found


def told(translation: Translation) -> tuple[str, str]:
    (status,) = (one for one in translation.object_statuses if one.key == ("shop", "mine"))
    (ancestor,) = status.ancestors
    return ancestor.conditions[0].reason, ancestor.conditions[0].message


def test_nobody_adds_a_way_to_authenticate_to_that_on_which_a_gateway_insists() -> None:
    found = translated(OWN_PASSWORDS)
    assert route(found)["respond"] == {"status": 500}
    assert told(found) == (
        "Conflicted",
        "requests of its targets get 500: infra/insists insists on its ways to authenticate; remove those of this policy",
    )


def test_the_same_way_and_other_policies_are_nobodys_business() -> None:
    found = translated("{api_key: true, compression: true}")
    assert route(found)["use"] == ["shop.mine", "infra.insists"]
    assert told(found)[0] == "Accepted"


def test_a_user_of_a_password_file_is_no_consumer_of_another_namespace() -> None:
    found = translated(OWN_PASSWORDS, user="infra.alice", without="insists")
    assert route(found)["respond"] == {"status": 500}
    assert "has the name of a Consumer of another namespace" in told(found)[1]
    assert told(translated(OWN_PASSWORDS, user="alice", without="insists"))[0] == "Accepted"


@pytest.mark.parametrize(
    "operator",
    [
        "%CEL(bad ==)%",
        "%REQ(X?Y?Z)%",
        "%RESPONSE_CODE():5%",
        "%DYNAMIC_METADATA()%",
        "%TRACE_ID(x)%",
        "%PATH(X:Y)%",
        "%QUERY_PARAM()%",
        "%ENVIRONMENT(PATH)%",
        "%FILE_CONTENT(/etc/passwd)%",
        "a %REQ(:path%) b %START_TIME(%s)%",
    ],
)
@pytest.mark.parametrize("place", ["{set: {x: VALUE}}", "{append: {x: VALUE}}"])
def test_an_operator_that_can_fail_or_read_is_not_taken(operator: str, place: str) -> None:
    value = place.replace("VALUE", repr(f"a {operator}"))
    found = translated(f"{{response_headers: {value}}}")
    assert route(found)["respond"] == {"status": 500}
    assert told(found)[0] == "Invalid"


@pytest.mark.parametrize(
    "value", ["%REQ(:path)%", "%REQ(x-a?:path)%:1", "%PROTOCOL%", "100%%", "%RESP(x-b):9%"]
)
def test_other_operators_are_taken(value: str) -> None:
    found = translated(f"{{response_headers: {{set: {{x: {value!r}}}}}}}")
    assert told(found)[0] == "Accepted"


def test_a_policy_that_says_nothing_closes() -> None:
    found = translated("{}")
    assert route(found)["respond"] == {"status": 500}
    assert "it has no policy" in told(found)[1]
