"""What the webhook makes of a pod."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from xds_server.sidecar.admission import answer
from xds_server.sidecar.identity import SidecarSettings
from xds_server.sidecar.injection import RejectedPod, patch
from xds_server.sidecar.redirect import Redirect

SETTINGS = SidecarSettings(
    xds_address="xds-gateway.xds-system.svc:18000", audience="a", image="envoy", redirect_image="xds"
)
TOKEN = "t0ken"
POD: dict[str, Any] = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a"}]}}


def _changed(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with the changes."""
    made: dict[str, Any] = json.loads(json.dumps(pod))
    for one in patch(pod, "shop", SETTINGS, TOKEN):
        *parents, last = one["path"].strip("/").split("/")
        target = made
        for name in parents:
            target = target[name]
        assert one["op"] == ("replace" if last in target and last != "labels" else "add")
        target[last] = one["value"]
    return made


def test_a_pod_keeps_what_it_has_and_its_containers_start_after_the_sidecar() -> None:
    spec = {"initContainers": [{"name": "first"}], "volumes": [{"name": "data"}], **POD["spec"]}
    made = _changed({**POD, "spec": spec})
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["xds-redirect", "xds-sidecar", "first"]
    assert [one["name"] for one in made["spec"]["volumes"]] == ["data", "xds-identity"]
    assert made["metadata"]["labels"] == {"app": "a", "xds-gateway.dev/sidecar": "true"}


def test_probes_go_by_way_of_the_sidecar() -> None:
    def probe(**get: Any) -> dict[str, Any]:
        return {"httpGet": get, "periodSeconds": 3}

    container = {
        "name": "a",
        "ports": [{"name": "web", "containerPort": 8080}],
        "readinessProbe": probe(port="web", path="/ready?x=1", httpHeaders=[{"name": "a", "value": "b"}]),
        "livenessProbe": probe(port=8081),
        "startupProbe": {"tcpSocket": {"port": 8080}},
    }
    other = {"name": "b", "livenessProbe": probe(port=8443, scheme="HTTPS")}
    made = _changed({"metadata": {}, "spec": {"containers": [container, other]}})
    first, second = made["spec"]["containers"]
    assert {key: second[key] for key in other} == other
    assert first["startupProbe"] == container["startupProbe"]
    assert first["livenessProbe"] == probe(port=15021, path="/probe/a/livenessProbe")
    headers = [{"name": "a", "value": "b"}]
    assert first["readinessProbe"] == probe(port=15021, path="/probe/a/readinessProbe", httpHeaders=headers)
    bootstrap = json.loads(made["spec"]["initContainers"][1]["args"][1])
    clusters = [one["name"] for one in bootstrap["static_resources"]["clusters"]]
    assert clusters == ["xds/admin", "xds/probe/8080", "xds/probe/8081"]


def test_a_pod_that_speaks_xds_itself_gets_a_bootstrap_and_no_sidecar() -> None:
    pod = {"metadata": {"labels": {"xds-gateway.dev/inject": "grpc"}}, "spec": POD["spec"]}
    made = _changed(pod)
    assert "initContainers" not in made["spec"]
    assert made["metadata"] == pod["metadata"]
    (container,) = made["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    bootstrap = json.loads(variables["GRPC_XDS_BOOTSTRAP_CONFIG"])
    (server,) = bootstrap["xds_servers"]
    assert server["server_uri"] == SETTINGS.xds_address
    assert server["call_creds"][0]["config"] == {"jwt_token_file": "/var/run/xds-gateway/token"}
    assert bootstrap["node"]["id"] == "$(XDS_POD_NAMESPACE)/$(XDS_POD_NAME)"
    assert container["volumeMounts"][0]["name"] == made["spec"]["volumes"][0]["name"]
    assert patch(made, "shop", SETTINGS, TOKEN) == []


def test_a_pod_with_a_sidecar_stays_as_it_is() -> None:
    assert patch(_changed(POD), "shop", SETTINGS, TOKEN) == []


@pytest.mark.parametrize(
    "pod",
    [
        {"metadata": {"labels": {"xds-gateway.dev/inject": "disabled"}}, "spec": {}},
        {"metadata": {"annotations": {"xds-gateway.dev/inject": "disabled"}}, "spec": {}},
        {"metadata": {"labels": {"gateway.networking.k8s.io/gateway-name": "web"}}, "spec": {}},
        {"metadata": {}, "spec": {"hostNetwork": True}},
    ],
)
def test_some_pods_get_no_sidecar(pod: dict[str, Any]) -> None:
    assert patch(pod, "shop", SETTINGS, TOKEN) == []


def test_ports_of_annotations_pass_the_sidecar_by() -> None:
    annotations = {"xds-gateway.dev/exclude-inbound-ports": "9090, 9091"}
    made = _changed({**POD, "metadata": {"annotations": annotations}})
    words = made["spec"]["initContainers"][0]["args"]
    assert words == [
        "redirect",
        "--uid",
        "1337",
        *(f for p in ("15021", "9090", "9091") for f in ("--exclude-inbound", p)),
    ]


@pytest.mark.parametrize("ports", ["0", "65536", "http", "80;81", "٨٠"])
def test_ports_that_are_none_are_told(ports: str) -> None:
    pod = {**POD, "metadata": {"annotations": {"xds-gateway.dev/exclude-outbound-ports": ports}}}
    with pytest.raises(RejectedPod, match="write ports separated by commas"):
        patch(pod, "shop", SETTINGS, TOKEN)


def _delay(pod: dict[str, Any]) -> str:
    text = pod["spec"]["initContainers"][1]["args"][1]
    return str(text.partition('"fixed_delay": "')[2].partition('"')[0])


def test_an_application_ends_after_its_sidecar_has_drained() -> None:
    own = {"name": "b", "lifecycle": {"preStop": {"sleep": {"seconds": 9}}}}
    after = {"name": "c", "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}}
    made = _changed({"metadata": {}, "spec": {"containers": [{"name": "a"}, own, after]}})
    first, second, third = made["spec"]["containers"]
    header = {"name": "x-drain-token", "value": TOKEN}
    get = {"path": "/drain", "port": 15021, "httpHeaders": [header]}
    assert first["lifecycle"] == {"preStop": {"httpGet": get}}
    assert second == own
    assert third["lifecycle"] == {**after["lifecycle"], "preStop": {"httpGet": get}}
    assert _delay(made) == "5s"


@pytest.mark.parametrize(
    ("annotation", "grace", "delay"), [("20", 60, "20s"), ("20", 30, "15s"), ("0", 30, ""), ("5", 1, "")]
)
def test_an_application_has_half_of_its_time_to_end(annotation: str, grace: int, delay: str) -> None:
    annotations = {"xds-gateway.dev/drain-seconds": annotation}
    spec = {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": grace}
    made = _changed({"metadata": {"annotations": annotations}, "spec": spec})
    assert _delay(made) == delay
    assert ("lifecycle" in made["spec"]["containers"][0]) is bool(delay)


def test_a_drain_time_that_is_none_is_told() -> None:
    pod = {**POD, "metadata": {"annotations": {"xds-gateway.dev/drain-seconds": "5s"}}}
    with pytest.raises(RejectedPod, match="write a number of seconds"):
        patch(pod, "shop", SETTINGS, TOKEN)


def test_a_review_is_answered_with_a_patch_or_with_the_reason() -> None:
    review = {"kind": "AdmissionReview", "request": {"uid": "1", "namespace": "shop", "object": POD}}
    response = answer(review, SETTINGS, "{} of the key".format)["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("1", True, "JSONPatch")
    made = json.loads(base64.b64decode(response["patch"]))
    assert made == patch(POD, "shop", SETTINGS, "{} of the key".format("sidecar/1"))
    review["request"]["object"] = {"spec": {"securityContext": {"runAsUser": 1337}}}  # type: ignore[index]
    response = answer(review, SETTINGS, str)["response"]
    assert (response["allowed"], response["status"]["code"]) == (False, 422)
    assert "choose another runAsUser" in response["status"]["message"]


@pytest.mark.parametrize(
    "review",
    [None, [], {}, {"kind": "AdmissionReview"}, {"kind": "AdmissionReview", "request": {"uid": "1"}}],
)
def test_anything_else_is_no_review(review: Any) -> None:
    with pytest.raises(ValueError, match=r"no AdmissionReview|no object"):
        answer(review, SETTINGS, str)


def test_a_redirect_without_excluded_ports_redirects_all() -> None:
    assert "return\n    meta l4proto tcp redirect to :15001" in Redirect(uid=5).rules()
    assert "tcp dport { 80, 443 } return" in Redirect(uid=5, exclude_outbound=(443, 80, 80)).rules()
