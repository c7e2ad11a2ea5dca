"""The life of the composer: rules that change under load, a worker and a supervisor that die, and who starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.collector import Collector
from tests.support.load import Load
from tests.support.running import Served
from tests.support.scripted_backend import ScriptedBackend
from tests.support.wait import wait_for
from xds_server.cli.main import main

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {users: {endpoints: [$users]}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  home:
    path: /home
    $home
"""
AGGREGATE = "aggregate: {calls: {user: {upstream: users, path: '/VERSION'}}, response: {version: 'VERSION', user: {from: call:user.version}}}"

GRAPHQL = """graphql:
      schema:
        inline: |
          type Query { user: User @rest(upstream: "users", path: "/1") }
          type User { version: String }"""
ASKED = "/home?query=%7Buser%7Bversion%7D%7D"


@pytest.fixture
def users() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        for version in ("1", "2", "3"):
            running.answer(f"/{version}", {"version": version})
        yield running


class Composed(Served):
    """`xds run` whose only route is an aggregate of a version, or none."""

    def __init__(self, root: Path, users: ScriptedBackend) -> None:
        super().__init__(root, YAML, users=users.address, home="upstream: users")

    def write_version(self, version: str) -> None:
        self.write(version, home=AGGREGATE.replace("VERSION", version))

    def composers(self) -> dict[str, int]:
        """The processes of the composer by name: its supervisor and its children."""
        assert self.process is not None
        supervisor = next(
            (pid for pid in _children(self.process.pid) if "composer" in _command(pid).split("\0")), None
        )
        if supervisor is None:
            return {}
        found = {Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in _children(supervisor)}
        return {"supervisor": supervisor, **found}


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.fixture
def served(tmp_path: Path, users: ScriptedBackend) -> Iterator[Composed]:
    running = Composed(tmp_path, users)
    running.write("0")
    with running:
        running.until("0")
        yield running


def answer(served: Composed) -> object:
    response = served.get("/home")
    return response.json() if response.status_code == 200 else response.status_code


def test_a_change_under_load_loses_no_request_and_mixes_no_versions(served: Composed) -> None:
    assert served.composers() == {}
    served.write_version("1")
    wait_for(lambda: answer(served) == {"version": "1", "user": "1"}, "the aggregate")
    with Load(served.port, "/home") as load:
        for version in ("2", "1", "3"):
            served.write_version(version)
            served.until(version)
            done = load.done
            wait_for(lambda done=done: load.done > done + 50, "more requests")
    assert not load.failures
    assert answer(served) == {"version": "3", "user": "3"}


@pytest.mark.parametrize("which", ["xds-worker-0", "supervisor"])
def test_a_composer_that_is_killed_is_started_again(served: Composed, which: str) -> None:
    served.write_version("1")
    wait_for(lambda: answer(served) == {"version": "1", "user": "1"}, "the aggregate")
    before = served.composers()
    with Load(served.port, "/home") as load:
        wait_for(lambda: load.done > 50, "load")
        os.kill(before[which], signal.SIGKILL)
        wait_for(lambda: served.composers().get(which, before[which]) != before[which], "another process")
        wait_for(
            lambda: answer(served) == {"version": "1", "user": "1"}, lambda: f"answers\n{served.log[-3000:]}"
        )
    told = {failure.partition(" ")[0] for failure in load.failures}
    assert told <= {"502", "503"}, load.failures
    for failure in load.failures:
        assert "upstream_reset" in failure or "upstream_unreachable" in failure


def test_the_proving_envoy_leaves_the_socket_of_calls_to_the_one_that_serves(served: Composed) -> None:
    served.write_version("1")
    wait_for(lambda: answer(served) == {"version": "1", "user": "1"}, "the aggregate")
    command = _command(served.composers()["supervisor"]).split("\0")
    socket = Path(command[command.index("--calls") + 1].removeprefix("unix:"))
    before = socket.stat().st_ino
    proving = served.envoy(proving=True)
    os.kill(proving, signal.SIGKILL)
    wait_for(lambda: _proving(served) not in (None, proving), "another proving Envoy")
    served.write_version("2")
    wait_for(lambda: answer(served) == {"version": "2", "user": "2"}, "the change")
    assert socket.stat().st_ino == before


def _proving(served: Composed) -> int | None:
    try:
        return served.envoy(proving=True)
    except (StopIteration, OSError):
        return None


def test_a_composer_of_graphql_that_is_killed_loses_only_requests_under_way(served: Composed) -> None:
    def answers() -> bool:
        response = served.get(ASKED)
        return response.status_code == 200 and response.json() == {"data": {"user": {"version": "1"}}}

    served.write("1", home=GRAPHQL)
    wait_for(answers, lambda: f"the query\n{served.log[-3000:]}")
    before = served.composers()
    worker = "xds-worker-0"
    with Load(served.port, ASKED) as load:
        wait_for(lambda: load.done > 50, "load")
        os.kill(before[worker], signal.SIGKILL)
        wait_for(lambda: served.composers().get(worker, before[worker]) != before[worker], "another process")
        wait_for(answers, lambda: f"answers\n{served.log[-3000:]}")
    for failure in load.failures:
        assert failure.startswith(("502 ", "503 ")), load.failures
        assert "upstream_reset" in failure or "upstream_unreachable" in failure


def test_the_last_good_gateway_finds_its_composer_after_a_restart(
    tmp_path: Path, users: ScriptedBackend
) -> None:
    running = Composed(tmp_path, users)
    running._command += ["--state", str(tmp_path / "state")]
    running.write_version("1")
    with running:
        wait_for(lambda: answer(running) == {"version": "1", "user": "1"}, "the aggregate")
        running.stop()
        (running.folder / "gateway.yaml").write_text("routes: {x: 1}")
        running.start()
        wait_for(
            lambda: answer(running) == {"version": "1", "user": "1"}, lambda: f"it\n{running.log[-3000:]}"
        )


TRACED = """
listeners: {http: {port: $port, address: 127.0.0.1}}
telemetry: {tracing: {upstream: otlp, sample: 100%}}
upstreams: {users: {endpoints: [$users]}, otlp: {endpoints: [$otlp], protocol: grpc}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  home: {path: /home, aggregate: {calls: {a: {upstream: users, path: /1}, b: {upstream: users, path: /2}}}}
"""


def test_calls_are_spans_of_the_trace_of_their_request(tmp_path: Path, users: ScriptedBackend) -> None:
    with Collector() as collector:
        running = Served(tmp_path, TRACED, users=users.address, otlp=collector.address)
        running.write("1")
        with running:
            running.until("1")
            response = running.get("/home", headers={"x-request-id": "abc"})
            assert response.json() == {"version": "2"}
            wait_for(
                lambda: (
                    sorted(one.name for one in collector.spans if one.name in ("users", "home"))
                    == ["home", "users", "users"]
                ),
                lambda: f"spans {[one.name for one in collector.spans]}",
            )
        calls = [one for one in collector.spans if one.name == "users"]
        (request,) = [one for one in collector.spans if one.name == "home"]
        assert {one.trace for one in calls} == {request.trace}
        parents = {one.span: one for one in collector.spans}
        for one in calls:
            first = one
            while first.parent in parents:
                first = parents[first.parent]
            assert first == request
        assert {seen.headers["traceparent"].split("-")[1] for seen in users.seen} == {request.trace}
        assert len({seen.headers["x-request-id"] for seen in users.seen}) == 1


def test_head_has_no_body(served: Composed) -> None:
    served.write_version("1")
    wait_for(lambda: answer(served) == {"version": "1", "user": "1"}, "the aggregate")
    response = httpx.head(f"{served.url}/home", timeout=30)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == "26"


REDIRECTED = """
listeners:
  outbound: {port: $port, protocol: tcp, original_destination: true}
  users: {port: $port, original_destination: true, destination_port: $port}
upstreams:
  users: {endpoints: [$users]}
  outbound: {endpoints: [], original_destination: true, protocol: tcp}
stream_routes: {outbound: {listeners: [outbound], upstream: outbound}}
routes:
  version: {path: /version, listeners: [users], respond: {body: "$version"}}
  home: {path: /home, listeners: [users], aggregate: {calls: {user: {upstream: users, path: /nobody}}}}
"""


def test_errors_of_redirected_connections_have_their_reason(tmp_path: Path, users: ScriptedBackend) -> None:
    users.answer("/nobody", {}, status=404)
    running = Served(tmp_path, REDIRECTED, users=users.address)
    running.write("1")
    with running:
        running.until("1")
        response = running.get("/home")
    assert (response.status_code, response.headers["x-gateway-reason"]) == (404, "call_rejected")
    assert "x-gateway-composer-reason" not in response.headers


def test_a_client_cannot_say_which_version_of_the_gateway_problems_have(
    served: Composed, users: ScriptedBackend
) -> None:
    users.answer("/4", {}, status=404)
    served.write_version("4")
    wait_for(lambda: "call_rejected" in served.get("/home").text, "the aggregate")
    problem = served.get("/home", headers={"x-gateway-version": '{"version": "mine"}'}).json()
    assert (problem["reason"], "version" in problem) == ("call_rejected", False)


def test_a_composer_of_its_own_beside_envoy(tmp_path: Path, users: ScriptedBackend) -> None:
    listen, calls = f"unix:{tmp_path}/composer.sock", f"unix:{tmp_path}/calls.sock"
    running = Composed(tmp_path, users)
    running._command += ["--composer", listen, "--composer-calls", calls]
    running.write_version("1")
    with running:
        running.until("1")
        assert answer(running) == 503
        assert running.composers() == {}
        command = (sys.executable, "-m", "xds_server", "composer", "--xds", running.xds_address)
        with subprocess.Popen((*command, "--listen", listen, "--calls", calls, "--workers", "2")) as composer:
            try:
                wait_for(lambda: answer(running) == {"version": "1", "user": "1"}, "the aggregate")
                running.write_version("2")
                wait_for(lambda: answer(running) == {"version": "2", "user": "2"}, "the next one")
            finally:
                composer.terminate()
        assert composer.returncode == 0
        assert "composer@" in running.log


def test_calls_are_taken_at_a_unix_socket_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", ".", "--composer-calls", "127.0.0.1:18004"]) == 2
    assert "only a Unix socket keeps others away from upstreams; write unix:/PATH" in capsys.readouterr().err
