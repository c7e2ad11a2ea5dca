"""Ingresses in a folder: their problems with place and remedy, which of them are served, and annotations one by one."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import authority
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.gateway_api.ingress_annotations import NGINX, TRAEFIK, behaviour
from xds_server.gateway_api.ingress_certificates import CHAINS, Certificates, chain_of
from xds_server.gateway_api.objects import Key
from xds_server.sources.folder import Folder
from xds_server.sources.gateway_folder import FolderReader

CLASS = """\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: NAME}
spec: {controller: CONTROLLER}
---
"""
OURS = CLASS.replace("CONTROLLER", "xds-gateway.dev/controller")
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: xds
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n"
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec: {gatewayClassName: any, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
"""


def _problems(text: str, gateway: Key | None = None) -> list[str]:
    state = FolderReader(gateway).state(Folder(Path(), {"a.yaml": text.encode()}))
    try:
        return [str(one) for one in Compiler({}).compile(state).warnings]
    except InvalidGateway as error:
        return [str(one) for one in error.problems]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (INGRESS + SERVICE, []),
        (OURS.replace("NAME", "xds") + INGRESS + SERVICE, []),
        (
            INGRESS,
            [
                (
                    "a.yaml:1:1: warning: Ingress/default/web.spec.defaultBackend: there is no Service default/web; "
                    "correct it; its requests get 500"
                )
            ],
        ),
        (
            INGRESS.replace("ingressClassName", "ingresClassName") + SERVICE,
            [
                (
                    "a.yaml:5:3: error: Ingress/web.spec.ingresClassName: unknown key 'ingresClassName'; did you mean "
                    "'ingressClassName'?"
                )
            ],
        ),
        (
            CLASS.replace("CONTROLLER", "k8s.io/ingress-nginx").replace("NAME", "xds") + INGRESS + SERVICE,
            [
                (
                    "error: there is no Gateway and no IngressClass of this controller; add one, or correct "
                    "gatewayClassName or ingressClassName"
                )
            ],
        ),
        (
            GATEWAY + INGRESS + SERVICE,
            ["error: there are several Gateways; choose one with --gateway: @ingress/xds, default/web"],
        ),
        (
            INGRESS.replace(
                "{name: web}", "{name: web, annotations: {nginx.ingress.kubernetes.io/auth-type: digest}}"
            )
            + SERVICE,
            [
                (
                    "a.yaml:1:1: warning: Ingress/default/web.metadata.annotations.nginx.ingress.kubernetes.io/auth-type: "
                    "it may protect something and has no equal, so the requests of this Ingress get 500; remove it, or use "
                    "an HTTPRoute with a GatewayPolicy: basic_auth"
                )
            ],
        ),
    ],
)
def test_a_folder_says_what_it_serves(text: str, problems: list[str]) -> None:
    assert _problems(text) == problems


def test_a_class_is_chosen() -> None:
    text = OURS.replace("NAME", "xds") + OURS.replace("NAME", "other") + INGRESS + SERVICE
    assert _problems(text, ("@ingress", "xds")) == []
    assert _problems(text)[-1].endswith("choose one with --gateway: @ingress/other, @ingress/xds")


def test_an_ingress_without_a_class_needs_a_default_one() -> None:
    text = OURS.replace("NAME", "xds") + INGRESS.replace("  ingressClassName: xds\n", "") + SERVICE
    state = FolderReader().state(Folder(Path(), {"a.yaml": text.encode()}))
    assert "Ingress/default/web.yaml" not in state.files
    annotated = text.replace(
        "{name: xds}", '{name: xds, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}'
    )
    state = FolderReader().state(Folder(Path(), {"a.yaml": annotated.encode()}))
    assert "Ingress/default/web.yaml" in state.files


@pytest.mark.parametrize(
    "annotation",
    [
        "auth-url",
        "auth-type",
        "auth-secret",
        "auth-tls-secret",
        "auth-signin",
        "server-snippet",
        "enable-modsecurity",
        "ssl-passthrough",
        "satisfy",
        "proxy-ssl-verify",
        "auth-snippet",
    ],
)
def test_what_may_protect_closes(annotation: str) -> None:
    found = behaviour({NGINX + annotation: "on"})
    assert found.closed
    assert [one.reason for one in found.faults] == ["RequestsRejected"]


@pytest.mark.parametrize(
    ("annotation", "value", "closed"),
    [
        ("configuration-snippet", 'more_set_headers "x: y";', False),
        ("configuration-snippet", "if ($host = a) { return 403; }", True),
        ("configuration-snippet", "allow 10.0.0.0/8; deny all;", True),
        ("configuration-snippet", "content_by_lua_block { ngx.exit(403) }", True),
        ("configuration-snippet", 'proxy_set_header X-User "";', True),
        ("configuration-snippet", "more_clear_input_headers X-User;", True),
        ("configuration-snippet", "add_header a b", True),
        ("configuration-snippet", 'add_header a "# ";deny all;', True),
        ("configuration-snippet", 'add_header a "\n# ";deny all;', True),
        ("configuration-snippet", "add_header a 'b; c {'; # deny all;\n gzip off;", False),
        ("configuration-snippet", 'add_header a b"c; deny all; "d;', True),
        ("configuration-snippet", "# nothing", False),
        ("configuration-snippet", "add_header " + "a" * 100_000, True),
        ("backend-protocol", "FCGI", True),
        ("permanent-redirect", "https://$server_name/x", True),
        ("limit-whitelist", "10.0.0.0/8", False),
        ("proxy-buffer-size", "8k", False),
        ("ssl-passthrough", "false", False),
        ("whitelist-source-range", "", True),
        ("proxy-ssl-verify", "off", False),
        ("force-ssl-redirect", "yes", False),
    ],
)
def test_no_annotation_is_dropped_without_a_word(annotation: str, value: str, closed: bool) -> None:
    found = behaviour({NGINX + annotation: value})
    assert found.closed == closed
    assert [one.path[-1] for one in found.faults] == [NGINX + annotation]


LONG = "9" * 5000
NUMBERS = [
    "proxy-body-size",
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "permanent-redirect-code",
    "limit-rps",
    "limit-burst-multiplier",
    "cors-max-age",
    "session-cookie-max-age",
    "canary-weight",
]


@pytest.mark.parametrize("annotation", NUMBERS)
def test_a_number_of_thousands_of_digits_is_a_fault(annotation: str) -> None:
    (fault,) = behaviour({NGINX + annotation: LONG}).faults
    assert fault.path[-1] == NGINX + annotation
    assert len(str(fault)) < 500


@pytest.mark.parametrize(
    "annotation", ["proxy-connect-timeout", "proxy-read-timeout", "cors-max-age", "session-cookie-max-age"]
)
def test_a_time_that_the_language_cannot_have_is_a_fault(annotation: str) -> None:
    wrong = {NGINX + annotation: "999999999999", NGINX + "enable-cors": "true", NGINX + "affinity": "cookie"}
    longest = {**wrong, NGINX + annotation: "315360000"}
    assert [one.path[-1] for one in behaviour(wrong).faults] == [NGINX + annotation]
    assert _problems(_ingress("shop", 1, "/users", longest)) == []
    (problem,) = _problems(_ingress("shop", 1, "/users", wrong) + _ingress("team", 2, "/"))
    assert f"Ingress/shop/web.metadata.annotations.{NGINX}{annotation}: '999999999999' is not" in problem


@pytest.mark.parametrize("host", ["*", "a b", "a..example.com"])
def test_a_host_that_is_none_gets_no_listener(host: str) -> None:
    chain, key = (b64encode(part).decode() for part in authority().issue("a.example.com"))
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: shop}\ntype: kubernetes.io/tls\n"
    )
    secret += f"data: {{tls.crt: {chain}, tls.key: {key}}}\n---\n"
    tls = f'spec:\n  tls: [{{secretName: cert, hosts: ["{host}", a.example.com]}}]\n'
    text = _ingress("shop", 1, "/users").replace("spec:\n", tls, 1) + secret
    assert any(f"'{host}' is not a host" in one for one in _problems(text))
    listeners = _files(text)["gateway.yaml"]["listeners"]
    assert [one["hosts"] for one in listeners.values() if "hosts" in one] == [["a.example.com"]]


@pytest.mark.parametrize("to", [f"https://x:{LONG}$request_uri", f"https://{LONG}:{LONG}$request_uri"])
def test_a_redirect_to_a_port_of_thousands_of_digits_closes(to: str) -> None:
    found = behaviour({NGINX + "permanent-redirect": to})
    assert found.closed
    assert [len(str(one)) < 500 for one in found.faults] == [True]


def test_a_class_with_a_port_of_thousands_of_digits_has_the_usual_one() -> None:
    annotated = f'{{name: xds, annotations: {{xds-gateway.dev/http-port: "{LONG}"}}}}'
    text = OURS.replace("{name: NAME}", annotated) + INGRESS + SERVICE
    assert _files(text)["gateway.yaml"]["listeners"]["http"]["port"] == 80


def test_a_value_that_is_not_understood_is_taken_for_the_safe_one() -> None:
    assert behaviour({NGINX + "force-ssl-redirect": "yes"}).always_redirects
    assert behaviour({NGINX + "ssl-redirect": "no"}).redirects
    assert behaviour({TRAEFIK + "router.tls": "yes"}).listeners == {"https"}


def test_an_ingress_forgoes_plain_http() -> None:
    found = behaviour({"kubernetes.io/ingress.allow-http": "false"})
    assert (found.listeners, found.faults) == ({"https"}, [])


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("alb.ingress.kubernetes.io/inbound-cidrs", "a"),
        ("alb.ingress.kubernetes.io/scheme", "internal"),
        ("alb.ingress.kubernetes.io/conditions.web", '[{"field":"source-ip"}]'),
        ("appgw.ingress.kubernetes.io/use-private-ip", "true"),
        ("haproxy.org/allow-list", "a"),
        ("haproxy.org/request-set-header", 'X-User ""'),
        ("haproxy-ingress.github.io/config-backend", "http-request deny"),
        ("konghq.com/plugins", "a"),
        ("nginx.org/proxy-set-headers", "X-User"),
        (TRAEFIK + "router.rule", "ClientIP(`10.0.0.0/8`)"),
    ],
)
def test_what_protects_with_other_controllers_closes(annotation: str, value: str) -> None:
    assert behaviour({annotation: value}).closed


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("alb.ingress.kubernetes.io/scheme", "internet-facing"),
        ("alb.ingress.kubernetes.io/target-type", "ip"),
        ("haproxy.org/load-balance", "leastconn"),
        (TRAEFIK + "router.priority", "3"),
    ],
)
def test_what_protects_nothing_has_no_effect(annotation: str, value: str) -> None:
    found = behaviour({annotation: value})
    assert (found.closed, len(found.faults)) == (False, 1)


OF_A_NAMESPACE = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: NAMESPACE
  creationTimestamp: "2026-01-0DAYT00:00:00Z"
  annotations: {ANNOTATIONS}
spec:
  rules:
    - host: a.example.com
      http: {paths: [{path: "PATH", pathType: ImplementationSpecific, backend: {service: {name: web, port: {number: 80}}}}]}
---
"""


def _ingress(namespace: str, day: int, path: str, annotations: Mapping[str, str] | None = None) -> str:
    """Return an Ingress of a host that several share, with its Service."""
    given = ", ".join(f"{key}: {json.dumps(value)}" for key, value in (annotations or {}).items())
    text = OF_A_NAMESPACE.replace("NAMESPACE", namespace).replace("DAY", str(day)).replace("PATH", path)
    return text.replace("ANNOTATIONS", given) + SERVICE.replace(
        "name: web", f"name: web, namespace: {namespace}"
    )


def _second(namespace: str, day: int, path: str, annotations: Mapping[str, str] | None = None) -> str:
    """Return another Ingress of a namespace, for the same Service."""
    text, _, _ = _ingress(namespace, day, path, annotations).partition("---\n")
    return text.replace("name: web\n", "name: next\n", 1) + "---\n"


def _files(text: str) -> Mapping[str, Any]:
    """Return the files of a class in the gateway language."""
    state = FolderReader().state(Folder(Path(), {"a.yaml": text.encode()}))
    return {name: yaml.safe_load(content) for name, content in state.files.items()}


def _canary(**more: str) -> Mapping[str, str]:
    return {NGINX + "canary": "true", **{NGINX + key.replace("_", "-"): value for key, value in more.items()}}


def test_a_canary_takes_no_requests_of_other_namespaces() -> None:
    victim = _ingress("shop", 1, "/users")
    alone = _files(victim)["Ingress/shop/web.yaml"]
    text = victim + _ingress("team", 2, "/users", _canary(canary_weight="100", canary_by_header="x"))
    assert _files(text)["Ingress/shop/web.yaml"] == alone
    (problem,) = _problems(text)
    assert "Ingress/team/web" in problem
    assert "no other Ingress of its namespace has the path /users/* of a.example.com" in problem


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("canary-weight-total", "99999999999"),
        ("canary-weight", "-1"),
        ("canary-weight", "9" * 5000),
        ("canary-by-header-pattern", "(("),
        ("canary-by-header", "a b"),
        ("canary-by-header", ":authority"),
        ("canary-by-header-value", "a\nb"),
    ],
)
def test_a_wrong_canary_concerns_no_other_ingress(annotation: str, value: str) -> None:
    victim = _ingress("shop", 1, "/users")
    wrong = {**_canary(canary_weight="10", canary_by_header="x"), NGINX + annotation: value}
    other = _second("shop", 2, "/users", wrong)
    assert _files(victim + other)["Ingress/shop/web.yaml"] == _files(victim)["Ingress/shop/web.yaml"]
    (problem,) = _problems(victim + other)
    assert f"Ingress/shop/next.metadata.annotations.{NGINX}{annotation}: " in problem
    assert len(problem) < 500


ONLY_TLS = (
    {"kubernetes.io/ingress.allow-http": "false"},
    {TRAEFIK + "router.tls": "true"},
    {TRAEFIK + "router.entrypoints": "websecure"},
)


@pytest.mark.parametrize("annotations", ONLY_TLS)
def test_no_other_namespace_gets_the_plain_http_that_an_ingress_forgoes(
    annotations: Mapping[str, str],
) -> None:
    text = _ingress("shop", 1, "/users", annotations) + _ingress("team", 2, "/users")
    assert not any("routes" in content for content in _files(text).values())
    (problem,) = _problems(text)
    assert "the path /users/* of a.example.com belongs to the older Ingress shop/web" in problem


def test_a_shorter_path_of_another_namespace_gets_no_forgone_requests() -> None:
    (annotations, *_) = ONLY_TLS
    text = _ingress("team", 1, "/") + _ingress("shop", 2, "/users", annotations)
    (refused,) = _files(text)["Ingress/shop/web.yaml"]["routes"].values()
    assert (refused["listeners"], refused["path"]) == (["http"], "/users/*")
    assert refused["respond"] == {"status": 404}


def test_a_namespace_divides_the_listeners_of_a_path_between_its_ingresses() -> None:
    text = _ingress("shop", 1, "/users", ONLY_TLS[2]) + _second(
        "shop", 2, "/users", {TRAEFIK + "router.entrypoints": "web"}
    )
    (route,) = _files(text)["Ingress/shop/next.yaml"]["routes"].values()
    assert route["listeners"] == ["http"]
    assert _problems(text) == []


def test_a_regular_expression_takes_no_requests_of_other_namespaces() -> None:
    regex = {NGINX + "use-regex": "true"}
    text = _ingress("shop", 1, "/users") + _ingress("team", 2, "/.*", regex)
    (problem,) = _problems(text)
    assert (
        "where only its namespace may have regular expressions, belongs to the older Ingress shop/web"
        in problem
    )
    assert _problems(_ingress("shop", 1, "/.*", regex) + _ingress("team", 2, "/users")) == []


def _with_default(text: str) -> str:
    return text.replace("spec:\n", "spec:\n  defaultBackend: {service: {name: web, port: {number: 80}}}\n", 1)


def _paths(text: str, file: str) -> set[tuple[str, str]]:
    """Return the hosts and paths of a file."""
    routes = _files(text).get(file, {"routes": {}})["routes"].values()
    return {("".join(one.get("hosts", ())), one["path"]) for one in routes}


def test_the_older_default_backend_of_a_host_keeps_what_is_left() -> None:
    text = _with_default(_ingress("shop", 1, "/users")) + _ingress("team", 2, "/")
    (problem,) = _problems(text)
    assert "Ingress/team/web" in problem
    assert "the path /* of a.example.com belongs to the older Ingress shop/web" in problem
    assert _paths(text, "Ingress/team/web.yaml") == set()
    assert ("a.example.com", "/*") in _paths(text, "Ingress/shop/web.yaml")


def test_an_older_path_and_one_of_the_same_namespace_come_before_default_backends() -> None:
    default = _with_default(_ingress("shop", 2, "/users"))
    for other, file in ((_ingress("team", 1, "/"), "team/web"), (_second("shop", 3, "/"), "shop/next")):
        assert _problems(default + other) == []
        assert ("a.example.com", "/*") in _paths(default + other, f"Ingress/{file}.yaml")
        assert _paths(default + other, "Ingress/shop/web.yaml") == {("a.example.com", "/users/*"), ("", "/*")}


def test_no_ingress_is_told_that_a_younger_one_is_older() -> None:
    older = INGRESS.replace("{name: web}", '{name: web, creationTimestamp: "2026-01-01T00:00:00Z"}')
    younger = OF_A_NAMESPACE.replace("NAMESPACE", "default").replace("DAY", "2").replace("PATH", "/")
    younger = younger.replace("name: web\n", "name: next\n", 1).replace("host: a.example.com", 'host: ""')
    (problem,) = _problems(
        older + younger.replace("ANNOTATIONS", "kubernetes.io/ingress.class: xds") + SERVICE
    )
    assert "what no other rule has belongs to the Ingress default/next;" in problem


def test_traefik_chooses_listeners() -> None:
    assert behaviour({TRAEFIK + "router.entrypoints": "websecure"}).listeners == {"https"}
    assert behaviour({TRAEFIK + "router.entrypoints": "web, websecure"}).listeners == {"http", "https"}
    assert behaviour({TRAEFIK + "router.tls": "true"}).listeners == {"https"}
    assert behaviour({TRAEFIK + "router.tls.options": "default-mtls@kubernetescrd"}).closed


def test_the_narrowest_certificate_serves_a_host() -> None:
    certificates = Certificates(443)
    hosts = {"a.example.com": "a", "*.example.com": "wildcard", "": "rest"}
    for host, name in hosts.items():
        assert certificates.claim(host, ("shop", name), ("shop", "web")) is None
    assert certificates.claim("a.example.com", ("team", "other"), ("team", "web")) == ("shop", "web")
    assert certificates.claim("a.example.com", ("shop", "a"), ("team", "web")) is None
    of_a, of_wild = chain_of(("shop", "a")), chain_of(("shop", "wildcard"))
    assert of_a != of_wild
    assert certificates.listeners_of("a.example.com") == [of_a]
    assert certificates.listeners_of("b.example.com") == [of_wild]
    assert certificates.listeners_of("b.example.org") == ["https.default"]
    assert certificates.listeners_of("*.example.com") == [of_wild, of_a]
    assert set(certificates.listeners_of("")) == {"https.default", of_a, of_wild}


def test_thousands_of_certificates_need_few_chains() -> None:
    certificates = Certificates(443)
    for number in range(1000):
        certificates.claim(f"{number}.example.com", ("shop", f"cert-{number}"), ("shop", "web"))
    found = certificates.listeners()
    assert len(found) == CHAINS
    assert sum(len(one["hosts"]) for one in found.values()) == 1000
    assert sum(len(one["tls"]["certificates"]) for one in found.values()) == 1000
