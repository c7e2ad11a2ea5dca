"""The policy server as it fails and comes back: what becomes of requests is told by `on_error` and nothing else."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from envoy.service.auth.v3 import external_auth_pb2

from tests.support.backend import Backend
from tests.support.policy_server import Stack
from tests.support.ports import free_port
from tests.support.wait import wait_for
from xds_server.serving.events import Connected

POLICY = """
import asyncio
import pathlib
from filters.ext_authz import allow

def check(request):
    return allow({"x-version": "VERSION"})

async def slow(request):
    while not pathlib.Path("RELEASE").exists():
        await asyncio.sleep(0.2)
    return allow()
"""
CHECK = "/envoy.service.auth.v3.Authorization/Check"


YAML = """
listeners: {http: {port: $port}}
upstreams:
  echo: {endpoints: [$echo]}
  authz-grpc: {endpoints: [127.0.0.1:$authz_port], protocol: grpc}
  authz-http: {endpoints: [127.0.0.1:$authz_port]}
routes:
$routes"""
ROUTES = {
    "closed": '{python: "p.py:check", timeout: 1s}',
    "open": '{python: "p.py:check", timeout: 1s, on_error: allow}',
    "patient": '{python: "p.py:check", timeout: 20s}',
    "slow": '{python: "p.py:slow", timeout: 60s}',
    "grpc": "{grpc: authz-grpc, timeout: 20s, context: {team: blue}}",
    "grpc-open": "{grpc: authz-grpc, timeout: 20s, on_error: allow}",
    "http": "{http: {upstream: authz-http, path: /auth, upstream_headers: [x-user, x-team-*]}, timeout: 20s}",
    "http-body": "{http: authz-http, timeout: 20s, body: true}",
}


def given(backend: Backend, authz_port: int = 1) -> dict[str, object]:
    """The values for the names in the YAML."""
    routes = "".join(
        f"  {name}: {{path: /{name}, upstream: echo, policies: {{ext_authz: {settings}}}}}\n"
        for name, settings in ROUTES.items()
    )
    return {"echo": backend.address, "authz_port": authz_port, "routes": routes}


def policy(folder: Path, version: str) -> None:
    (folder / "p.py").write_text(
        POLICY.replace("VERSION", version).replace("RELEASE", str(folder / "release"))
    )


@pytest.fixture(scope="module")
def authz_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend, authz_port: int) -> Iterator[Stack]:
    with _stack(tmp_path_factory.mktemp("gw"), backend, authz_port) as stack:
        yield stack


def _stack(folder: Path, backend: Backend, authz_port: int) -> Stack:
    stack = Stack(folder, arguments=("--state", str(folder / "rules.state")))
    policy(stack.folder, "1")
    stack.write(YAML, **given(backend, authz_port))
    return stack


def unavailable(answer: httpx.Response) -> None:
    found = (answer.status_code, answer.headers.get("x-gateway-reason"))
    assert found == (503, "ext_authz_unavailable"), answer.text


def works(stack: Stack) -> None:
    wait_for(lambda: stack.get("/closed").status_code == 200, "the policy server to decide again")


@contextmanager
def replaced(stack: Stack, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something else where the policy server listened, one thread for each connection."""
    stack.policy_server.stop()
    path = Path(stack.socket.removeprefix("unix:"))
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
    path.unlink(missing_ok=True)
    stack.policy_server.start()
    stack.policy_server.ready()


def test_down_closes_the_route_or_lets_pass_and_is_over_when_it_is_back(stack: Stack) -> None:
    works(stack)
    stack.policy_server.stop(signal.SIGKILL)
    unavailable(stack.get("/closed"))
    assert stack.get("/open").status_code == 200
    stack.policy_server.start()
    works(stack)


def test_frozen_closes_the_route_in_time(stack: Stack) -> None:
    works(stack)
    stack.policy_server.signal(signal.SIGSTOP)
    try:
        unavailable(stack.get("/closed"))
        assert stack.get("/open").status_code == 200
    finally:
        stack.policy_server.signal(signal.SIGCONT)
    works(stack)


def test_garbage_closes_the_route(stack: Stack) -> None:
    def garbage(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"\x00\xffgarbage" * 1000)

    with replaced(stack, garbage):
        unavailable(stack.get("/closed"))
        assert stack.get("/open").status_code == 200
    works(stack)


def test_silence_closes_the_route(stack: Stack) -> None:
    ended = threading.Event()

    def silence(connection: socket.socket) -> None:
        with connection:
            ended.wait(30)

    with replaced(stack, silence):
        unavailable(stack.get("/closed"))
        ended.set()
    works(stack)


def test_a_change_of_a_policy_drops_no_request(stack: Stack) -> None:
    works(stack)
    done = threading.Event()

    def ask() -> list[tuple[int, str]]:
        seen = []
        with httpx.Client(timeout=30) as client:
            while not done.is_set():
                answer = client.get(f"{stack.url}/patient")
                seen.append((answer.status_code, answer.json()["headers"]["x-version"]))
        return seen

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for version in ("2", "3", "4"):
                policy(stack.folder, version)
                stack.publish()
                wait_for(lambda version=version: _version(stack) == version, f"version {version}")
        finally:
            done.set()
        seen = [one for future in asking for one in future.result()]
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} >= {"2", "3"}


def _version(stack: Stack) -> str:
    return str(stack.get("/patient").json()["headers"]["x-version"])


def test_a_graceful_end_drops_no_request_where_another_shares_the_port(
    tmp_path: Path, backend: Backend
) -> None:
    stack = Stack(tmp_path, tcp=True)
    policy(tmp_path, "1")
    stack.write(YAML, **given(backend))
    with stack:
        _take_over(stack)


def _take_over(stack: Stack) -> None:
    works(stack)
    done = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not done.is_set():
                statuses.append(client.get(f"{stack.url}/patient").status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: len(statuses) > 10, "requests")
    with stack.server():
        assert stack.policy_server.stop() == 0
        before = len(statuses)
        wait_for(lambda: len(statuses) > before + 10, "requests that the other decides")
        done.set()
        asking.join()
        assert set(statuses) == {200}


async def test_a_thousand_slow_decisions_hold_nobody_else_back(stack: Stack) -> None:
    works(stack)
    slow = [asyncio.create_task(_status(stack.listener, "/slow")) for _ in range(1000)]
    await asyncio.to_thread(
        wait_for, lambda: stack.policy_server.status()["under_way"] == 1000, "all to be under way"
    )
    assert {await _status(stack.listener, "/patient") for _ in range(20)} == {200}
    assert not any(one.done() for one in slow)
    (stack.folder / "release").touch()
    assert set(await asyncio.gather(*slow)) == {200}
    (stack.folder / "release").unlink()


async def _status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


def test_a_service_of_ones_own_over_grpc(stack: Stack, authz_port: int) -> None:
    answers: list[grpc.StatusCode | int] = []

    def check(
        request: external_auth_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> external_auth_pb2.CheckResponse:
        answer = answers[-1]
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "not now")
        response = external_auth_pb2.CheckResponse()
        response.status.code = 0 if answer == 200 else 7
        if answer == 200:
            team = request.attributes.context_extensions["team"]
            response.ok_response.headers.add().header.MergeFrom(_header("x-team", team))
        else:
            response.denied_response.status.code = answer  # type: ignore[assignment]
            response.denied_response.body = "my own words"
        return response

    with _grpc_server(authz_port, check):
        answers.append(200)
        wait_for(lambda: stack.get("/grpc").status_code == 200, "the service")
        assert stack.get("/grpc").json()["headers"]["x-team"] == "blue"
        answers.append(403)
        refused = stack.get("/grpc")
        assert (refused.status_code, refused.text) == (403, "my own words")
        answers.append(grpc.StatusCode.UNAVAILABLE)
        unavailable(stack.get("/grpc"))
        assert stack.get("/grpc-open").status_code == 200


def _header(name: str, value: str):  # type: ignore[no-untyped-def]
    from envoy.config.core.v3 import base_pb2

    return base_pb2.HeaderValue(key=name, value=value)


@contextmanager
def _grpc_server(port: int, check: Callable[..., object]) -> Iterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(
        check,
        external_auth_pb2.CheckRequest.FromString,
        external_auth_pb2.CheckResponse.SerializeToString,
    )
    name = CHECK.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Check": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    yield
    server.stop(None).wait()


def test_a_service_of_ones_own_over_http(stack: Stack, authz_port: int) -> None:
    unavailable(stack.get("/http"))
    with Backend("authz", authz_port) as authz:
        authz.headers = {"x-user": "ann", "x-other": "1"}
        wait_for(lambda: stack.get("/http").status_code == 200, "the service")
        seen = stack.get("/http?a=b", headers={"authorization": "Bearer x", "cookie": "a=b"}).json()[
            "headers"
        ]
        assert (seen["x-user"], seen.get("x-other")) == ("ann", None)
        asked = authz.seen[-1]
        assert (asked["path"], asked["headers"]["authorization"], asked["headers"]["cookie"]) == (
            "/auth/http?a=b",
            "Bearer x",
            "a=b",
        )
        assert httpx.post(f"{stack.url}/http-body", content=b"abc").status_code == 200
        assert authz.seen[-1]["body"] == "abc"
        spoofed = {"X-User": "root", "x-team": "root", "x-Team-lead": "root"}
        seen = stack.get("/http", headers=spoofed).json()["headers"]
        assert (seen["x-user"], seen["x-team"]) == ("ann", "root")
        authz.headers = {"x-team-size": "3"}
        seen = stack.get("/http", headers=spoofed).json()["headers"]
        assert {name for name in seen if name.startswith(("x-user", "x-team"))} == {"x-team", "x-team-size"}
        authz.status, authz.body, authz.headers = 401, b"who are you", {"www-authenticate": "Custom"}
        refused = stack.get("/http")
        assert (refused.status_code, refused.text) == (401, "who are you")
        assert refused.headers["www-authenticate"] == "Custom"
        authz.status = 500
        assert stack.get("/http").status_code in (500, 503)


def test_without_the_control_plane_the_last_good_rules_decide_after_a_restart_too(
    tmp_path: Path, backend: Backend, authz_port: int
) -> None:
    with _stack(tmp_path, backend, authz_port) as stack:
        works(stack)
        stack.lose_control_plane()
        stack.policy_server.says("lost the control plane")
        assert stack.get("/patient").status_code == 200
        assert httpx.get(f"http://{stack.policy_server.admin}/ready").status_code == 200
        assert stack.policy_server.status()["control_plane_connected"] is False
        assert [one.node.cluster for one in stack.control.seen(Connected) if one.node.id == "policy-server"]
        stack.policy_server.stop(signal.SIGKILL)
        unavailable(stack.get("/closed"))
        stack.policy_server.start()
        stack.policy_server.ready()
        works(stack)
        assert stack.policy_server.status()["restored"] is True
        stack.policy_server.says("the control plane does not respond; deciding by the last good rules")
        assert Path(stack.folder, "rules.state").stat().st_mode & 0o777 == 0o600
