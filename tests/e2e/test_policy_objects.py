"""Policies as objects of a real Kubernetes API server, with the real Envoy and policy server of the Gateway's pod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_controller import Cluster
from tests.support.kubernetes.controller import containers
from tests.support.kubernetes.shared import SharedServer
from tests.support.logged_process import LoggedProcess
from tests.support.wait import wait_for
from xds_server.cli.main import main

GROUP = "apis/xds-gateway.dev/v1alpha1"
POLICIES = """
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: NAME}
stringData: {alice: "key-of-alice", bob: "key-of-bob"}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Plan
metadata: {name: small, namespace: NAME}
spec: {rate_limit: 3/hour}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: alice, namespace: NAME}
spec: {plan: small, api_keys: [{secretKeyRef: {name: keys, key: alice}}]}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: Consumer
metadata: {name: bob, namespace: NAME}
spec: {api_keys: [{secretKeyRef: {name: keys, key: bob}}]}
---
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: keys, namespace: NAME}
spec:
  targetRefs: [{kind: Gateway, name: web}]
  policies: {api_key: true, response_headers: {set: {x-policy: "${HOME}"}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: other, namespace: NAME}
spec:
  parentRefs: [{name: web}]
  rules: [{matches: [{path: {value: /other}}], backendRefs: [{name: users, port: 80}]}]
"""
BAD = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: bad, namespace: NAME}
spec:
  targetRefs: [{kind: HTTPRoute, name: users}]
  policies: POLICIES
"""


class Pod:
    """A cluster with policies, and the containers of the pod of its Gateway."""

    def __init__(self, cluster: Cluster, server: LoggedProcess) -> None:
        self.cluster, self.server = cluster, server

    def status(self, path: str, key: str | None = None) -> int:
        headers = {} if key is None else {"x-api-key": key}
        return httpx.get(self.cluster.url + path, headers=headers, timeout=10).status_code

    def answers(self, status: int, path: str, key: str | None = None) -> None:
        wait_for(
            lambda: self.status(path, key) == status,
            lambda: f"{path} to answer {status}; the controller:\n{self.cluster.controller.log[-3000:]}",
            also=(httpx.TransportError,),
        )

    def accepted(self, kind: str, name: str) -> tuple[str, str]:
        found: dict[str, Any] = self.cluster.objects.request("GET", self.cluster.path(kind, name, GROUP))
        ancestors = (found.get("status") or {}).get("ancestors") or [{"conditions": []}]
        conditions = {one["type"]: one for one in ancestors[0]["conditions"]}
        one = conditions.get("Accepted", {"reason": "", "message": ""})
        return one["reason"], one["message"]


@pytest.fixture
def pod(kubernetes: SharedServer, tmp_path: Path) -> Iterator[Pod]:
    with ExitStack() as stack:
        cluster = Cluster(kubernetes, tmp_path, stack)
        cluster.apply(POLICIES)
        stack.enter_context(cluster.controller)
        wait_for(lambda: "policy-server" in containers(cluster.deployment()), "a policy server")
        server = stack.enter_context(cluster.schedule().policy_server(cluster.network))
        server.says("ready address=")
        cluster.serve(stack)
        wait_for(
            cluster.programmed,
            lambda: f"the Gateway; the controller:\n{cluster.controller.log[-3000:]}\n{server.log[-2000:]}",
        )
        yield Pod(cluster, server)


def test_consumers_come_from_secrets_and_have_the_limits_of_their_plan(pod: Pod) -> None:
    assert pod.status("/users/1") == 401
    assert pod.status("/users/1", "key-of-mallory") == 401
    assert [pod.status("/users/1", "key-of-alice") for _ in range(4)] == [200, 200, 200, 429]
    assert [pod.status("/users/1", "key-of-bob") for _ in range(4)] == [200] * 4
    assert pod.accepted("gatewaypolicies", "keys")[0] == "Accepted"
    assert pod.accepted("consumers", "alice")[0] == "Accepted"
    affected = pod.cluster.conditions("gateways", "web")["xds-gateway.dev/GatewayPolicyAffected"]
    assert affected == ("True", "PolicyAffected", f"GatewayPolicies: {pod.cluster.name}/keys")
    response = httpx.get(f"{pod.cluster.url}/users/1", headers={"x-api-key": "key-of-bob"})
    assert response.headers["x-policy"] == "${HOME}"


def test_a_key_is_rotated_by_its_secret(pod: Pod) -> None:
    assert pod.status("/users/1", "key-of-bob") == 200
    secret = POLICIES.partition("---")[0].replace("key-of-bob", "next-key-of-bob")
    pod.cluster.apply(secret)
    pod.answers(200, "/users/1", "next-key-of-bob")
    assert pod.status("/users/1", "key-of-bob") == 401


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("{authorize: {consumers: [nobody]}}", "there is no Consumer NAME/nobody; known: alice, bob"),
        ("{rate_limit: 10/fortnight}", "spec.policies.rate_limit: write a rate such as 1000/hour"),
        (
            "{basic_auth: {htpasswd: {secretKeyRef: {name: keys, key: carol}}}}",
            "the Secret NAME/keys has no key carol",
        ),
        ("{authorize: {when: 'consumer =='}}", "consumer"),
    ],
)
def test_a_policy_that_cannot_be_used_closes_its_route_only(pod: Pod, policies: str, message: str) -> None:
    pod.answers(200, "/users/1", "key-of-bob")
    pod.cluster.apply(BAD.replace("POLICIES", policies))
    pod.answers(500, "/users/1", "key-of-bob")
    assert pod.status("/users/1") == 500
    assert pod.status("/other", "key-of-bob") == 200
    wait_for(lambda: pod.accepted("gatewaypolicies", "bad")[0] == "Invalid", "the condition")
    assert message.replace("NAME", pod.cluster.name) in pod.accepted("gatewaypolicies", "bad")[1]
    pod.cluster.objects.request("DELETE", pod.cluster.path("gatewaypolicies", "bad", GROUP))
    pod.answers(200, "/users/1", "key-of-bob")
    assert pod.status("/users/1") == 401


def test_python_of_a_config_map_decides(pod: Pod) -> None:
    rules = """
apiVersion: v1
kind: ConfigMap
metadata: {name: rules, namespace: NAME}
data:
  hours.py: |
    from filters.ext_authz import allow, deny


    def check(request):
        return allow() if request.headers.get("x-open") else deny(403)
---
"""
    policy = BAD.replace(
        "POLICIES", "{ext_authz: {python: {configMapKeyRef: {name: rules, key: hours.py}}, timeout: 10s}}"
    )
    pod.cluster.apply(rules + policy)
    pod.answers(403, "/users/1", "key-of-bob")
    headers = {"x-api-key": "key-of-bob", "x-open": "yes"}
    assert httpx.get(f"{pod.cluster.url}/users/1", headers=headers).status_code == 200
    pod.cluster.apply(rules.replace("deny(403)", "deny(418)"))
    seen = {403}
    wait_for(lambda: seen.add(pod.status("/users/1", "key-of-bob")) or 418 in seen, "the new rules")
    assert seen == {403, 418}  # the policy server has the rules before Envoy names them
    pod.server.stop()
    pod.answers(503, "/users/1", "key-of-bob")
    assert pod.status("/other", "key-of-bob") == 200
    pod.server.start()
    pod.answers(418, "/users/1", "key-of-bob")
    wait_for(pod.cluster.programmed, "the Gateway again")


def test_a_config_map_adds_files_of_the_language(pod: Pod) -> None:
    config_map = """
apiVersion: v1
kind: ConfigMap
metadata: {name: extra, namespace: NAME, labels: {xds-gateway.dev/gateway: web}}
data:
  gateway.yaml: |
    errors: {api_key_missing: {status: 407}}
    routes:
      more: {path: /more, respond: {status: 200, body: "${HOME}"}}
"""
    pod.answers(401, "/users/1")
    pod.cluster.apply(config_map)
    pod.answers(200, "/more")
    assert httpx.get(f"{pod.cluster.url}/more").text == "${HOME}"
    assert pod.status("/users/1") == 407
    pod.cluster.apply(config_map.replace("respond", "respnd"))
    wait_for(lambda: not pod.cluster.programmed(), "the condition")
    reason, message = pod.cluster.conditions("gateways", "web")["Programmed"][1:]
    assert reason == "Invalid"
    assert f"ConfigMap/{pod.cluster.name}/extra/gateway.yaml:3:23: error: routes.more.respnd" in message
    assert "did you mean 'respond'?" in message
    assert pod.status("/more") == 200
    pod.cluster.apply(config_map)
    wait_for(pod.cluster.programmed, "the Gateway again")


def test_responses_are_purged_in_the_pod(
    pod: Pod, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy server has an admin address in the folder of its pod, for `kubectl exec`."""
    policy = """
apiVersion: xds-gateway.dev/v1alpha1
kind: GatewayPolicy
metadata: {name: stored, namespace: NAME}
spec:
  targetRefs: [{kind: HTTPRoute, name: users}]
  policies: {cache: 5m}
"""
    pod.cluster.apply(policy)
    (admin,) = tmp_path.rglob("policy-server-admin.sock")

    def cached(control: str = "max-stale") -> httpx.Response:
        headers = {"x-api-key": "key-of-bob", "cache-control": control}
        return httpx.get(f"{pod.cluster.url}/users/1", headers=headers, timeout=10)

    wait_for(lambda: "hit" in cached().headers.get("cache-status", ""), "a stored response")
    assert main(["cache", "purge", "--all", "--admin", f"unix:{admin}"]) == 0
    assert "1 response purged in the policy server" in capsys.readouterr().out
    wait_for(lambda: cached("only-if-cached").status_code == 504, "the purge")
