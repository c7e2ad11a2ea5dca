"""The chart, as the real Helm renders it: it gives what the example has, and a real API server takes it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes import build
from tests.support.kubernetes.helm import CHART, rendered
from tests.support.kubernetes.objects import Objects
from xds_server.cli.main import parser

EXAMPLE = CHART.parent
Rendered = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def helm() -> Path:
    try:
        return build.helm()
    except build.CannotBuildError as error:
        pytest.skip(str(error))


def named(objects: list[Any]) -> Rendered:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def of_files(*names: str) -> Rendered:
    texts = [(EXAMPLE / name).read_text() for name in names]
    return named([one for text in texts for one in yaml.safe_load_all(text)])


def without_deployment(objects: Rendered) -> Rendered:
    return {key: one for key, one in objects.items() if key[0] not in ("Deployment", "Namespace")}


def test_it_gives_what_the_example_has(helm: Path) -> None:
    flags = ("--set", "mesh.enabled=true", "--include-crds", "--set", "gatewayClass=")
    ours, example = named(rendered(helm, *flags)), of_files("controller.yaml", "mesh.yaml", "crds.yaml")
    assert without_deployment(ours) == without_deployment(example)
    key = ("Deployment", "xds-gateway")
    pods = [one[key]["spec"].pop("template") for one in (ours, example)]
    assert ours[key] == example[key]
    containers = [one["spec"].pop("containers")[0] for one in pods]
    assert pods[0] == pods[1]
    for one in containers:
        arguments = vars(parser("controller").parse_args(one.pop("args")))
        assert arguments.pop("log_format") in ("json", "text")
        one["arguments"] = arguments
        one.pop("imagePullPolicy", None)
    assert containers[0] == containers[1]


def test_an_api_server_takes_it_with_every_value(helm: Path, objects: Objects, namespace: str) -> None:
    flags = [
        *(
            "--set",
            "mesh.enabled=true,replicas=3,gatewayClass=edge,ingressClass=edge,counters=redis://redis:6379",
        ),
        *("--set-json", 'imagePullSecrets=[{"name":"registry"}]', "--set-json", 'nodeSelector={"a":"b"}'),
        *(
            "--set-json",
            'tolerations=[{"key":"a","operator":"Exists"}]',
            "--set-json",
            'affinity={"podAffinity":{}}',
        ),
    ]
    found = rendered(helm, *flags, name="edge", namespace=namespace)
    assert {one["metadata"].get("namespace") for one in found} == {None, namespace}
    (deployment,) = [one for one in found if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = parser("controller").parse_args(container["args"])
    assert arguments.xds_service == f"edge.{namespace}.svc.cluster.local:18000"
    assert (arguments.namespace, arguments.webhook_configuration) == (namespace, "edge")
    objects.apply(found, dryRun="All")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("replics=3", "replics is not allowed"),
        ("replicas=many", "replicas"),
        ("controllerName=name", "controllerName"),
        ("mesh.enabled=yes", "mesh.enabled"),
        ("logFormat=xml", "logFormat"),
    ],
)
def test_a_wrong_value_is_told(helm: Path, flag: str, said: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rendered(helm, "--set", flag)
    assert said in caught.value.stderr
