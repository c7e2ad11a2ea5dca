"""Manifests of a folder: their problems with place and remedy, and which Gateway of several is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.gateway_api.objects import Key
from xds_server.sources.folder import Folder
from xds_server.sources.gateway_folder import FolderReader

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec: {gatewayClassName: any, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""
SECURITY_POLICY = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: keys}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], apiKeyAuth: {}}
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: users}\nspec: {ports: [{port: 80}]}\n---\n"


def _problems(text: str, gateway: Key | None = None) -> list[str]:
    state = FolderReader(gateway).state(Folder(Path(), {"a.yaml": text.encode()}))
    try:
        return [str(one) for one in Compiler({}).compile(state).warnings]
    except InvalidGateway as error:
        return [str(one) for one in error.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            GATEWAY.replace("port:", "prt:"),
            "a.yaml:4:56: error: Gateway/web.spec.listeners[0].prt: unknown key 'prt'; did you mean 'port'?",
        ),
        (
            GATEWAY.replace("{name: web}", "{}"),
            "a.yaml:3:1: error: metadata.name: an object needs a name; add metadata: {name: …}",
        ),
        (
            GATEWAY + "kind: Service\n",
            "a.yaml:6:1: error: an object has apiVersion and kind; add them, or move this file out of the folder",
        ),
        (
            GATEWAY + GATEWAY,
            (
                "a.yaml:6:1: error: Gateway/web: this object is given twice, the first time at a.yaml:1:1; "
                "remove or rename one of them"
            ),
        ),
        (
            GATEWAY + "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRout\nmetadata: {name: a}\n",
            (
                "a.yaml:7:7: warning: HTTPRout/a.kind: the kind HTTPRout of the Gateway API is not served; "
                "did you mean 'HTTPRoute'?"
            ),
        ),
        (
            GATEWAY + SECURITY_POLICY,
            (
                "a.yaml:7:7: warning: SecurityPolicy/keys.kind: the SecurityPolicy of gateway.envoyproxy.io has no effect here, "
                "and its targets are served without it; write what it does as a GatewayPolicy, and remove it from the folder"
            ),
        ),
        (
            SERVICE,
            (
                "error: there is no Gateway and no IngressClass of this controller; add one, or correct gatewayClassName "
                "or ingressClassName"
            ),
        ),
        (
            GATEWAY + "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {tls.crt: '?'}\n",
            "a.yaml:9:17: error: Secret/a.data.tls.crt: not base64; encode it, or use stringData",
        ),
        (
            GATEWAY + "apiVersion: v1\nkind: Service\nmetadata: {name: users}\nspec: {ports: [{name: a}]}\n",
            (
                "a.yaml:6:1: error: Service/users: this is not a Service: KeyError 'port' (found a mapping); "
                "compare it with the reference of its kind"
            ),
        ),
        (
            GATEWAY + "a: [\n",
            "a.yaml:7:1: error: not YAML: did not find expected node content; correct the YAML",
        ),
        (
            GATEWAY + GATEWAY.replace("web", "other"),
            "error: there are several Gateways; choose one with --gateway: default/other, default/web",
        ),
        (
            GATEWAY
            + "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n"
            + "spec: {parentRefs: [{name: nowhere}]}\n",
            (
                "a.yaml:6:1: warning: HTTPRoute/default/a: no Gateway that is served here is a parent of this route; "
                "name one under parentRefs"
            ),
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    assert _problems(text)[0] == problem


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("{targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}}", True),
        ("{targetSelectors: [{kind: HTTPRoute, matchLabels: {a: b}}]}", True),
        ("{targetRef: {apiVersion: apps/v1, kind: Deployment, name: a}}", False),
        ("{targetRefs: [a]}", False),
        ("[]", False),
    ],
)
def test_only_what_attaches_to_gateways_and_routes_is_a_policy(spec: str, told: bool) -> None:
    other = f"apiVersion: example.com/v1\nkind: Other\nmetadata: {{name: a}}\nspec: {spec}\n"
    assert [one.partition(": the ")[2][:20] for one in _problems(GATEWAY + other)] == (
        ["Other of example.com"] if told else []
    )


def test_one_of_several_gateways_is_chosen() -> None:
    text = GATEWAY + GATEWAY.replace("web", "other")
    assert _problems(text, ("default", "other")) == []
    (problem,) = _problems(text, ("default", "nowhere"))
    assert problem == "error: there is no Gateway default/nowhere; known: default/other, default/web"


def test_a_list_has_several_objects() -> None:
    items = "".join(
        f"- {line}" if not number % 4 else f"  {line}"
        for number, line in enumerate(GATEWAY.splitlines(True)[:4])
    )
    assert _problems(f"apiVersion: v1\nkind: List\nitems:\n{items}") == []


def test_an_object_reads_no_variables() -> None:
    route = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{queryParams: [{name: "${HOME}", value: "${HOME}"}]}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example.com}}]
"""
    state = FolderReader().state(Folder(Path(), {"a.yaml": (GATEWAY + route).encode()}))
    gateway = Compiler({"HOME": "secret"}).compile(state).gateway
    (found,) = gateway.sections.routes.values()
    assert [(name, one.exact) for name, one in found.query.items()] == [("${HOME}", "${HOME}")]
