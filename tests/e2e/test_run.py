"""`xds run`: a folder is served, changes are followed, mistakes never replace what is good, Envoy may die."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running, Served
from tests.support.wait import wait_for
from xds_server.cli.main import main

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  echo: {path: /echo/*, upstream: echo}
  version: {path: /version, respond: {body: "$version"}}
"""


@pytest.fixture
def served(tmp_path: Path, backend: Backend) -> Iterator[Served]:
    served = Served(tmp_path, YAML, echo=backend.address)
    served.write("1")
    with served:
        served.until("1")
        yield served


def test_a_change_of_the_folder_reaches_envoy(served: Served) -> None:
    served.write("2")
    served.until("2")


def test_a_mistake_is_told_with_its_place_while_the_last_good_gateway_goes_on(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    write(served.folder, more="routes:\n  broken: {path: /x, upstrem: echo}\n")
    served.says("more.yaml:2:")
    served.says("did you mean 'upstream'?")
    served.says("the last good gateway stays in service")
    assert served.get("/version").text == "1"
    assert main(["status", "--admin", served.admin]) == 1
    assert "more.yaml:2:" in capsys.readouterr().out
    (served.folder / "more.yaml").unlink()
    served.says("the gateway has no errors any more")
    assert main(["status", "--admin", served.admin]) == 0


def test_a_port_that_another_gateway_has_too_is_told(served: Served, tmp_path: Path) -> None:
    served.says(f"ready http://127.0.0.1:{served.port}")
    assert "another process" not in served.log
    with Running(served.folder, tmp_path) as second:
        second.says(f"listener 'http': another process listens on port {served.port} too")


def test_a_port_that_is_taken_is_told_and_opened_once_it_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, other = taken.getsockname()[1], free_port()
        listeners = f"listeners: {{http: {{port: {port}, address: 127.0.0.1}}, more: {{port: {other}}}}}\n"
        write(folder, gateway=listeners + "routes: {all: {path: /*, respond: {body: fine}}}\n")
        running = Running(folder, tmp_path)
        running.start()
        running.says("port in use: stop the other process or change the listener's port; retrying")
        running.says("gateway.yaml:1:")
        assert running.status()["held"] == []
    try:
        running.says(f"ready http://127.0.0.1:{port}")
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "fine"
        assert httpx.get(f"http://127.0.0.1:{other}/").text == "fine"
    finally:
        running.stop()


def test_a_folder_that_vanishes_takes_nothing_away_and_is_followed_when_it_returns(served: Served) -> None:
    served.folder.rename(served.folder.with_name("away"))
    served.says("does not exist")
    assert served.get("/version").text == "1"
    served.folder.with_name("away").rename(served.folder)
    served.write("back")
    served.until("back")


def test_a_folder_in_the_middle_of_a_change_takes_nothing_away(served: Served) -> None:
    """Files that are emptied, cut short or gone for a moment, as editors and git leave them."""
    whole = (served.folder / "gateway.yaml").read_text()
    statuses = set()
    for number in range(5):
        with (served.folder / "gateway.yaml").open("w") as file:
            file.flush()
            statuses.add(served.get("/version").status_code)
            file.write(whole[: len(whole) // 2])
            file.flush()
            statuses.add(served.get("/version").status_code)
            file.write(whole[len(whole) // 2 :])
        (served.folder / "gateway.yaml").unlink()
        statuses.add(served.get("/version").status_code)
        served.write(f"c{number}")
        served.until(f"c{number}")
    assert statuses == {200}
    assert "routes=0" not in served.log


def test_what_envoy_rejects_is_named_with_the_line_that_made_it(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    write(served.folder, more="upstreams:\n  odd: {endpoints: [], envoy: {connect_timeout: -1s}}\n")
    served.says("rejected by Envoy")
    line = next(line for line in served.log.splitlines() if "rejected by Envoy" in line)
    assert "more.yaml:2:" in line
    assert served.get("/version").text == "1"
    assert main(["status", "--admin", served.admin]) == 1
    assert "more.yaml:2:" in capsys.readouterr().out


def test_requests_go_on_without_a_failure_while_the_gateway_changes(served: Served) -> None:
    stop, failures, answered = threading.Event(), [], [0]

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.get("/echo/x")
                answered[0] += 1
                if answer.status_code != 200:
                    failures.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            served.write(f"v{number}")
            served.until(f"v{number}")
        wait_for(lambda: answered[0] > 20, "some requests")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_an_envoy_that_is_killed_comes_back_with_the_same_configuration(served: Served) -> None:
    before = served.status()["envoys"][0]["versions"]
    os.kill(served.envoy(), signal.SIGKILL)
    served.says(" Envoy ended; it is started again")
    served.until("1")
    wait_for(
        lambda: served.status()["envoys"][0]["versions"] == before,
        "the same versions",
        also=(IndexError,),
    )


def test_a_request_under_way_is_answered_when_the_gateway_stops(tmp_path: Path) -> None:
    with Backend() as echo:
        served = Served(tmp_path, YAML, "--drain", "30", echo=echo.address)
        served.write("1")
        served.start()
        served.until("1")
        echo.release = threading.Event()
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(served.get("/echo/slow", timeout=60).status_code)
        )
        asking.start()
        wait_for(lambda: echo.seen, "the request to reach the backend")
        assert served.process is not None
        served.process.send_signal(signal.SIGINT)
        served.says("stopping")
        echo.release.set()
        asking.join()
        assert served.process.wait(60) == 0
        assert answers == [200]


PYTHON = """
from filters.ext_authz import Decision, Request, allow, deny

def check(request: Request) -> Decision:
    return allow(headers={"x-policy": "$version"}) if request.headers.get("x-key") == "open" else deny(403)
"""


def test_the_first_python_policy_of_a_gateway_fails_no_request_that_it_allows(served: Served) -> None:
    (served.folder / "policies").mkdir()
    (served.folder / "policies" / "door.py").write_text(filled(PYTHON, version="1"))
    policy = "routes:\n  door:\n    path: /echo/door\n    upstream: echo\n    policies: {ext_authz: {python: policies/door.py:check, timeout: 20s}}\n"
    write(served.folder, door=policy)
    statuses = set()

    def decided() -> bool:
        answer = served.get("/echo/door", headers={"x-key": "open"}, timeout=30)
        statuses.add(answer.status_code)
        return answer.json()["headers"].get("x-policy") == "1"

    wait_for(decided, lambda: f"the policy; the log:\n{served.log[-2000:]}")
    assert statuses == {200}
    assert served.get("/echo/door", timeout=30).status_code == 403
    (served.folder / "policies" / "door.py").write_text(filled(PYTHON, version="2"))

    def reloaded() -> bool:
        answer = served.get("/echo/door", headers={"x-key": "open"}, timeout=30)
        statuses.add(answer.status_code)
        return answer.json()["headers"].get("x-policy") == "2"

    wait_for(reloaded, "the changed policy")
    assert statuses == {200}


def test_the_last_good_gateway_survives_a_restart_with_a_broken_folder(
    tmp_path: Path, backend: Backend
) -> None:
    served = Served(tmp_path, YAML, "--state", str(tmp_path / "state"), echo=backend.address)
    served.write("1")
    with served:
        served.until("1")
    write(served.folder, more="routes: [\n")
    with served:
        served.until("1")
        served.says("the gateway has errors")
        assert served.status()["gateway"]["healthy"] is False


def test_the_log_as_json_has_one_object_in_each_line(tmp_path: Path, backend: Backend) -> None:
    text = """
listeners: {http: {port: $port, address: 127.0.0.1, access_log: true}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  limited: {path: /limited, upstream: echo, policies: {rate_limit: 100/minute}}
"""
    with Served(tmp_path, text, "--log-format", "json", echo=backend.address) as served:
        served.write("1")
        served.until("1")
        assert served.get("/limited").status_code == 200
        served.write("2")
        served.until("2")
        served.says("in service")
        (served.folder / "gateway.yaml").write_text("routes: {a: {pth: /}}\n")
        served.says("stays in service")
    lines = [json.loads(line) for line in served.log.splitlines()]
    messages = [line["message"] for line in lines if "message" in line]
    assert any("changed='~routes.version" in message for message in messages)
    assert any("requesting rules" in message for message in messages), "the policy server's"
    assert any(line.get("logger", "").startswith("envoy.") for line in lines)
