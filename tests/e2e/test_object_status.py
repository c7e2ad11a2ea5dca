"""The status of each object: accepted, with problems, held back, acknowledged. `xds run` with the real Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main

BASE = """
listeners: {http: {port: PORT, address: 127.0.0.1}}
upstreams: {backend: {endpoints: ["127.0.0.1:1"]}}
consumers: {ann: {api_keys: [{sha256: SHA}]}}
routes:
  fine: {path: /fine, respond: {body: fine}}
  keys: {path: /keys, upstream: backend, policies: {api_key: true}}
"""


class Stack:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder / "gateway", free_port()
        write(self.folder, gateway=BASE.replace("PORT", str(self.port)).replace("SHA", "a" * 64))
        self.running = Running(self.folder, folder)

    def objects(self) -> dict[str, dict[str, Any]]:
        found = httpx.get(f"http://{self.running.admin}/status/objects").json()
        return {f"{one['section']}.{one['name']}": one for one in found["objects"]}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    with stack.running:
        wait_for(lambda: all(one["programmed"] for one in stack.objects().values()), "every object at Envoy")
        yield stack


def test_objects_are_programmed_once_envoy_has_them(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    objects = stack.objects()
    assert sorted(objects) == [
        "consumers.ann",
        "listeners.http",
        "routes.fine",
        "routes.keys",
        "upstreams.backend",
    ]
    assert {(one["accepted"], one["acknowledged"], *one["waiting_for"]) for one in objects.values()} == {
        (True, 1)
    }
    assert objects["routes.fine"]["place"] == "gateway.yaml:6:3"
    assert main(["status", "--objects", "--admin", stack.running.admin]) == 0
    assert "routes.fine  gateway.yaml:6:3  accepted, acknowledged by 1 Envoy" in capsys.readouterr().out


def test_an_object_with_a_mistake_is_not_accepted_and_the_others_are(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    write(stack.folder, more="routes: {bad: {path: /bad, upstrem: backend}}\n")
    wait_for(lambda: "routes.bad" in stack.objects(), "the mistake")
    objects = stack.objects()
    assert (objects["routes.bad"]["accepted"], objects["routes.bad"]["programmed"]) == (False, False)
    assert "did you mean 'upstream'?" in objects["routes.bad"]["problems"][0]
    assert objects["routes.fine"]["programmed"]
    assert main(["status", "--objects", "--output", "json", "--admin", stack.running.admin]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in printed["objects"] if not one["accepted"]] == ["bad"]


def test_a_route_that_envoy_rejects_is_held_back_alone(stack: Stack) -> None:
    bad = "routes: {odd: {path: /odd, upstream: backend, envoy: {route: {weighted_clusters: {clusters: []}, cluster: null}}}}\n"
    write(stack.folder, more=bad)
    wait_for(lambda: stack.objects().get("routes.odd", {}).get("held_back"), "the rejected route")
    odd, fine = stack.objects()["routes.odd"], stack.objects()["routes.fine"]
    assert (odd["accepted"], odd["programmed"]) == (True, False)
    assert odd["held_back"][0]["answers_503"]
    assert fine["held_back"] == []
    wait_for(lambda: stack.objects()["routes.fine"]["programmed"], "the other routes at Envoy")


def test_errors_of_no_object_and_errors_of_served_objects_are_reported(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        stack.folder, {"more.yaml": "routes: {fine: {path: /fine, respond: {body: twice}}}\nnosection: {}\n"}
    )
    wait_for(lambda: not stack.objects()["routes.fine"]["accepted"], "the name that is given twice")
    assert stack.objects()["routes.keys"]["programmed"]
    assert main(["status", "--objects", "--admin", stack.running.admin]) == 1
    printed = capsys.readouterr().out
    assert "the newest gateway has errors; the last good gateway is served" in printed
    assert "nosection" in printed
