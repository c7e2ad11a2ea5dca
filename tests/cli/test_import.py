"""xds import: what it writes is the same gateway, in files that a person can go on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway_api.test_cases import manifests
from xds_server.cli import gateways
from xds_server.cli.main import main
from xds_server.control_plane.compiler import Compiler
from xds_server.sources.gateway_folder import read_gateway
from xds_server.sources.manifest_folder import ManifestState

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: tests}
spec: {gatewayClassName: x, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: users, namespace: tests}
spec:
  parentRefs: [{name: web}]
  rules:
    - matches: [{path: {value: /users}}]
      filters:
        - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-home, value: "${HOME}"}]}}
        - {type: RequestRedirect, requestRedirect: {hostname: example.com, statusCode: 302}}
"""


def imported(folder: Path, *more: str) -> tuple[int, Path]:
    target = folder.with_name("imported")
    return main(["import", "kubernetes", str(folder), "--to", str(target), *more]), target


@pytest.mark.parametrize(
    ("case", "gateway"),
    [("listener-sets", "infra/web"), ("ingress-annotations", "@ingress/default"), ("policies", "infra/web")],
)
def test_what_is_written_is_the_same_gateway(tmp_path: Path, case: str, gateway: str) -> None:
    folder = tmp_path / "k8s"
    folder.mkdir()
    (folder / "a.yaml").write_bytes(manifests(case))
    _, target = imported(folder, "--gateway", gateway)
    namespace, _, name = gateway.partition("/")
    before = Compiler().compile(read_gateway(folder, (namespace, name))).snapshot
    after = Compiler().compile(read_gateway(target)).snapshot
    assert [after[type_] for type_ in after] == [before[type_] for type_ in before]


def test_a_namespace_may_have_the_name_of_a_folder_that_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "k8s"
    folder.mkdir()
    (folder / "a.yaml").write_text(ROUTE)
    code, target = imported(folder)
    assert code == 0
    assert sorted(one.name for one in target.iterdir()) == [
        "HTTPRoute.tests.users.yaml",
        "gateway.yaml",
        "upstreams.yaml",
    ]
    text = (target / "HTTPRoute.tests.users.yaml").read_text()
    assert "$${HOME}" in text  # a text of an object is no variable here either
    assert text.startswith("routes:\n  tests.users.000.000:\n")


def test_a_folder_with_files_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "k8s"
    folder.mkdir()
    (folder / "a.yaml").write_text(ROUTE)
    target = folder.with_name("imported")
    target.mkdir()
    (target / "mine.yaml").write_text("routes: {}")
    assert imported(folder)[0] == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [one.name for one in target.iterdir()] == ["mine.yaml"]
    assert main(["import", "kubernetes", str(target), "--to", str(tmp_path / "new")]) == 1
    assert "has no objects of Kubernetes" in capsys.readouterr().err


def test_a_name_that_leads_out_of_the_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ManifestState(files={"gateway.yaml": b"{}"}, contents={"a/../../../x": b"secret"})
    monkeypatch.setattr(gateways, "read", lambda *_: state)
    assert main(["import", "kubernetes", "k8s:", "--to", str(tmp_path / "new")]) == 2
    assert "leads out of --to" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


FOREIGN = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: x}
spec: {controllerName: example.com/another}
---
"""


def test_files_of_a_class_of_another_controller_are_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(FOREIGN + ROUTE)
    code, target = imported(file)
    assert code == 0
    assert (target / "HTTPRoute.tests.users.yaml").exists()
    assert main(["import", "kubernetes", str(tmp_path / "nothing"), "--to", str(tmp_path / "new")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("traefik", "_format_version: '3.0'\nservices: []\n", "nothing of this file is of this kind"),
        ("kong", "", "the file is empty"),
        ("kong", "# nothing\n", "the file is empty"),
        ("nginx", "", "no block 'http'"),
        ("nginx", "http { server { listen 80 } }", "listen"),
        ("nginx", "http { include wrong.conf; }", "includes itself"),
        ("openapi", "http: {}\n", "not an OpenAPI document"),
    ],
)
def test_a_file_of_another_kind_is_an_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, text: str, message: str
) -> None:
    file, target = tmp_path / "wrong.conf", tmp_path / "new"
    file.write_text(text)
    assert main(["import", kind, str(file), "--to", str(target)]) == 1
    output = "".join(capsys.readouterr())
    assert message in output
    assert "wrong.conf" in output
    assert not target.exists()
