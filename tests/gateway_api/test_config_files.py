"""ConfigMaps with files of the gateway language: what they add to a Gateway, and what they must not refer to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gateway_api.test_policies import GATEWAY, WEB
from tests.support.cluster_objects import cluster_of
from xds_server.control_plane.compiler import Compiler
from xds_server.controller.served import ServedGateway
from xds_server.errors import InvalidGateway
from xds_server.gateway_api.translation import translate
from xds_server.sources.folder import Folder
from xds_server.sources.gateway_folder import FolderReader

CERTIFICATE = """
apiVersion: v1
kind: Secret
metadata: {name: users, namespace: infra}
stringData: {htpasswd: "alice:{SHA}2PRZAyDhNDqRW2OUFwZQqPNdaSY=", session: hidden-line}
---
"""


def _config_map(name: str = "extra", label: str = "web", **data: str) -> str:
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "infra", "labels": {"xds-gateway.dev/gateway": label}},
        "data": {key.replace("__", "."): text for key, text in data.items()},
    }
    return yaml.safe_dump(value) + "---\n"


def _served(text: str, served: ServedGateway | None = None) -> ServedGateway:
    cluster = cluster_of(text)
    served = served or ServedGateway(WEB)
    served.update(translate(cluster, of_every_class=True, live=True).gateways[WEB], cluster)
    return served


def _sections(served: ServedGateway) -> Any:
    assert served._compiled is not None
    return served._compiled.gateway.sections


def _versions(served: ServedGateway) -> dict[str, str]:
    assert served.snapshot is not None
    return {type_.name: served.snapshot.version(type_) for type_ in served.snapshot}


def test_files_of_a_config_map_are_those_of_its_gateway() -> None:
    text = """
policies: {response_headers: {set: {x-home: "${HOME}", x-other: "$${HOME}"}}}
routes:
  more: {path: /more, upstream: shop.users.80, policies: {basic_auth: {htpasswd: {file: Secret/users/htpasswd}}}}
  rest: {path: /rest, respond: {status: 200, body: "a ${b"}}
"""
    served = _served(GATEWAY + CERTIFICATE + _config_map(gateway__yaml=text, notes__txt="nothing"))
    assert served.fault == ""
    sections = _sections(served)
    assert sections.policies["response_headers"].set == {"x-home": "${HOME}", "x-other": "$${HOME}"}
    assert {"more", "rest", "shop.users.000.000"} <= sections.routes.keys()
    assert sections.routes["rest"].respond.body == "a ${b"


def test_a_config_map_for_another_gateway_or_without_a_label_adds_nothing() -> None:
    text = "routes: {more: {path: /more, respond: {status: 200}}}"
    assert "more" not in _sections(_served(GATEWAY + _config_map(label="other", gateway__yaml=text))).routes
    state = FolderReader().state(
        Folder(Path(), {"a.yaml": (GATEWAY + _config_map(label="wbe", gateway__yaml=text)).encode()})
    )
    (warning,) = [str(one) for one in Compiler({}).compile(state).warnings if "label" in str(one)]
    assert "there is no Gateway infra/wbe; did you mean 'web'?" in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "routes: {a: {path: /a, upstrem: b}}",
            "ConfigMap/infra/extra/gateway.yaml:1:24: error: routes.a.upstrem",
        ),
        ("routes: [", "ConfigMap/infra/extra/gateway.yaml:2:1: error: not YAML"),
        ("listeners: {http: {port: 81}}", "'http' is given twice"),
        ("errors: {api_key_missin: {status: 400}}", "the gateway has no reason 'api_key_missin'"),
        ("policies: {basic_auth: {htpasswd: {env: HOME}}}", "the environment variable HOME is not set"),
        (
            "policies: {basic_auth: {htpasswd: {file: /etc/passwd}}}",
            "no ConfigMap of this Gateway has the key /etc/passwd",
        ),
        (
            "policies: {basic_auth: {htpasswd: {file: Secret/users/none}}}",
            "there is no Secret infra/users with the key none",
        ),
        (
            "policies: {validate: {openapi: Secret/users/session}}",
            "this is no secret, so it is not read from one",
        ),
        (
            "policies: {validate: {openapi: infra/cert/tls.key}}",
            "no ConfigMap of this Gateway has the key infra/cert/tls.key",
        ),
        (
            "routes: {a: {path: /a, upstream: shop.users.80, policies: {grpc_transcoding: {protos: [{file: a.proto, import_path: infra/cert}]}}}}",
            "a.proto refers to infra/cert/tls.key, which is in no ConfigMap of this Gateway",
        ),
    ],
)
def test_a_fault_keeps_the_last_good_state(text: str, message: str) -> None:
    good = _served(GATEWAY + CERTIFICATE)
    before = _versions(good)
    proto = 'syntax = "proto3"; import "tls.key";'
    served = _served(GATEWAY + CERTIFICATE + _config_map(gateway__yaml=text, a__proto=proto), good)
    assert message in served.fault
    assert "hidden-line" not in served.fault
    assert _versions(served) == before
    served = _served(GATEWAY + CERTIFICATE, served)
    assert served.fault == ""


def test_two_config_maps_do_not_have_the_same_file() -> None:
    text = GATEWAY + _config_map("a", rules__py="x") + _config_map("b", rules__py="y")
    assert (
        "the key rules.py is also in another ConfigMap of this Gateway; rename one of them"
        in _served(text).fault
    )


def test_a_fault_in_a_folder_is_an_error_with_its_place() -> None:
    text = GATEWAY + _config_map(gateway__yaml="routes: {a: {path: /a, upstrem: b}}")
    state = FolderReader().state(Folder(Path(), {"a.yaml": text.encode()}))
    with pytest.raises(InvalidGateway) as error:
        Compiler({}).compile(state)
    assert "ConfigMap/infra/extra/gateway.yaml:1:24: error: routes.a.upstrem: unknown key" in str(
        [str(one) for one in error.value.problems]
    )


def test_only_secrets_and_config_maps_that_were_looked_at_cause_a_translation() -> None:
    text = (
        GATEWAY
        + CERTIFICATE
        + _config_map(gateway__yaml="policies: {basic_auth: {htpasswd: {file: Secret/users/htpasswd}}}")
    )
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: infra}\ndata: {a: b}\n"
    cluster = cluster_of(text + other)
    translate(cluster, of_every_class=True)
    objects = {
        (kind, "/".join(key)): one for kind, some in cluster.objects.items() for key, one in some.items()
    }
    found = {name: cluster.concerns(one) for name, one in objects.items()}
    assert [name for name, concerned in found.items() if not concerned] == [("ConfigMap", "infra/other")]
