"""Several workers behind one address, as processes: they share the work, are started again, and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.ratelimit.v3 import rls_pb2

from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread
from xds_server.cli.main import main
from xds_server.control_plane.compiler import Compiler
from xds_server.policy_server.workers import together
from xds_server.sources.folder import read_folder

POLICY = """
import os
from filters.ext_authz import allow

async def check(request):
    return allow({"x-process": str(os.getpid())})
"""
GATEWAY = """
listeners: {http: {port: 1}}
routes: {r: {path: /, respond: {body: ok}, policies: {ext_authz: {python: "p.py:check"}}}}
"""
CHECK = "/envoy.service.auth.v3.Authorization/Check"
WORKERS = 2
REDIS = ("--counters", "redis://127.0.0.1:1")
"""Nothing is limited here, so that nobody asks it."""


def ask(address: str) -> int:
    """One decision on a connection of its own; the process that made it."""
    request = external_auth_pb2.CheckRequest()
    request.attributes.context_extensions["policy"] = "p.py:check"
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(
            CHECK, request.SerializeToString, external_auth_pb2.CheckResponse.FromString
        )
        response = call(request, timeout=30, wait_for_ready=True)
    return int(response.ok_response.headers[0].header.value)


@contextmanager
def control(folder: Path) -> Iterator[XdsThread]:
    (folder / "p.py").write_text(POLICY)
    (folder / "gateway.yaml").write_text(GATEWAY)
    with XdsThread() as xds:
        xds.publish(Compiler({}).compile(read_folder(folder)).snapshot)
        yield xds


@contextmanager
def serving(folder: Path, listen: str, *arguments: str) -> Iterator[PolicyServerProcess]:
    with control(folder) as xds:
        started = PolicyServerProcess(
            f"127.0.0.1:{xds.port}", listen, folder, "--workers", str(WORKERS), *arguments
        )
        with started as server:
            wait_for(lambda: len(processes(server)) == WORKERS, "both workers to be ready")
            yield server


def processes(server: PolicyServerProcess) -> set[int]:
    """The workers that have their rules."""
    return {int(one["process"]) for one in server.status()["workers"] if one["ready"]}


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", ["native", "grpcio"])
def test_workers_share_a_port_show_their_metrics_as_one_and_end_together(tmp_path: Path, kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with serving(tmp_path, address, "--grpc", kind) as server:
        answered: Counter[int] = Counter()
        wait_for(lambda: answered.update([ask(address)]) or len(answered) == WORKERS, "both to answer")
        assert set(answered) == processes(server)
        found = re.search(r'xds_policy_decisions_total\{outcome="allowed".*\} (\S+)', server.metrics())
        assert found is not None
        assert float(found[1]) == answered.total()
        status = server.status()
        assert status["control_plane_connected"]
        assert status["rules"]["python_policy"] == 1
        assert server.stop() == 0
        assert not any(lives(one) for one in answered)


def test_a_worker_that_dies_is_started_again(
    tmp_path: Path,
) -> None:
    """No worker outlives a supervisor that is killed."""
    address = f"unix:{tmp_path}/policy.sock"
    with serving(tmp_path, address) as server:
        before = processes(server)
        dead = min(before)
        os.kill(dead, signal.SIGKILL)
        assert ask(address) in before - {dead} or dead not in processes(server)
        wait_for(lambda: len(processes(server) - {dead}) == WORKERS, "another worker")
        assert len(processes(server) & before) == 1
        assert "code=-9" in server.log
        after = processes(server)
        assert ask(address) in after
        server.stop(signal.SIGKILL)
        wait_for(lambda: not any(lives(one) for one in after), "the workers to end")


def test_a_port_that_cannot_be_had_ends_them_all(tmp_path: Path) -> None:
    with control(tmp_path) as xds, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = PolicyServerProcess(f"127.0.0.1:{xds.port}", address, tmp_path, "--workers", "2")
        server.start()
        assert server.process is not None
        assert server.process.wait(30) == 3
        assert f"--listen {address} is taken by" in server.log


def test_workers_on_a_socket_that_another_server_has_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"{tmp_path}/policy.sock")
        taken.listen()
        server = PolicyServerProcess(
            "127.0.0.1:1", f"unix:{tmp_path}/policy.sock", tmp_path, "--workers", "2"
        )
        server.start()
        assert server.process is not None
        assert server.process.wait(30) == 3
        assert "choose another address" in server.log


@pytest.mark.parametrize("kind", ["native", "grpcio"])
def test_a_second_process_on_the_port_that_counts_for_itself_says_so(tmp_path: Path, kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with control(tmp_path) as xds:
        asked = (f"127.0.0.1:{xds.port}", address, tmp_path, "--grpc", kind)
        with PolicyServerProcess(*asked) as first, PolicyServerProcess(*asked) as second:
            assert f"another process listens on {address} too" in second.log
            assert "another process listens" not in first.log
            with PolicyServerProcess(*asked, *REDIS) as third:
                assert "another process listens" not in third.log


def test_the_state_of_none_is_not_connected() -> None:
    assert together([])["control_plane_connected"] is False


LIMITED = "domain: a\ndescriptors: [{key: k, rate_limit: {unit: month, requests_per_unit: 50}}]"
OK = rls_pb2.RateLimitResponse.OK


def count(address: str, value: str) -> rls_pb2.RateLimitResponse:
    """One decision on a connection of its own."""
    request = rls_pb2.RateLimitRequest(domain="a")
    request.descriptors.add().entries.add(key="k", value=value)
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
            request.SerializeToString,
            rls_pb2.RateLimitResponse.FromString,
        )
        answer: rls_pb2.RateLimitResponse = call(request, timeout=30, wait_for_ready=True)
        return answer


def counted(response: rls_pb2.RateLimitResponse) -> bool:
    """Whether it comes from counters: who cannot ask them in time has no figures."""
    return response.statuses[0].HasField("current_limit")


@contextmanager
def limiting(folder: Path, address: str, kind: str = "native") -> Iterator[PolicyServerProcess]:
    (folder / "limits.yaml").write_text(LIMITED)
    arguments = ("--descriptors", str(folder / "limits.yaml"), "--workers", "3", "--grpc", kind)
    with PolicyServerProcess("none", address, folder, *arguments) as server:
        wait_for(lambda: len(processes(server)) == 3, "the workers to be ready")
        yield server


def used(server: PolicyServerProcess, value: str) -> int:
    """What the admin address says is used."""
    shown = httpx.get(f"http://{server.admin}/limits").json()
    assert shown["store"] == "memory"
    return sum(one["used"] for one in shown["counters"] if one["key"].endswith(f"|k={value}"))


@pytest.mark.parametrize("kind", ["native", "grpcio"])
def test_workers_count_together_in_memory_and_an_operator_sees_it(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with limiting(tmp_path, address, kind) as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: count(address, "x"), range(80)))
        admitted = [one for one in answers if counted(one) and one.overall_code == OK]
        assert len(admitted) <= 50
        assert len(admitted) + sum(not counted(one) for one in answers) >= 50
        assert used(server, "x") == 50
        assert main(["limits", "domain/a|month|k=x", "--admin", server.admin]) == 0
        assert "50 of 50 used, 0 left" in capsys.readouterr().out
        assert main(["limits", "domain/a|", "--reset", "--admin", server.admin]) == 0
        assert "1 counter reset" in capsys.readouterr().out
        assert used(server, "x") == 0
        assert "another process listens" not in server.log
        assert server.stop() == 0


def test_counters_outlive_a_worker_and_are_lost_with_their_owner(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/policy.sock"
    with limiting(tmp_path, address) as server:
        wait_for(lambda: counted(count(address, "x")), "the first count")
        before = used(server, "x")
        for worker in processes(server):
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: len(processes(server)) == 3, "another worker")
        assert used(server, "x") == before
        owner = server.children()["xds-counters"]
        os.kill(owner, signal.SIGKILL)
        server.says("xds-counters ended; it is started again code=-9")
        wait_for(lambda: counted(count(address, "y")), "the next owner")
        assert used(server, "x") == 0
        assert server.children()["xds-counters"] != owner


def test_every_worker_gets_connections_of_a_port_and_of_a_socket(tmp_path: Path) -> None:
    port = free_port()
    for listen in (f"127.0.0.1:{port}", f"unix:{tmp_path}/policy.sock"):
        with limiting(tmp_path, listen) as server, ExitStack() as stack:
            opened = 0

            def everybody_has_one(
                server: PolicyServerProcess = server, stack: ExitStack = stack, listen: str = listen
            ) -> bool:
                nonlocal opened
                opened += 1
                assert opened < 30
                connect(listen, stack)
                found = [connections(worker, listen) for worker in processes(server)]
                assert sum(found) <= opened
                return min(found) > 0

            wait_for(everybody_has_one, "each worker to have a connection")


def connect(listen: str, stack: ExitStack) -> None:
    """Open a connection that a worker has taken."""
    if listen.startswith("unix:"):
        one = stack.enter_context(socket.socket(socket.AF_UNIX))
        one.connect(listen.removeprefix("unix:"))
    else:
        host, _, port = listen.rpartition(":")
        one = stack.enter_context(socket.create_connection((host, int(port))))
    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert one.recv(9)


def connections(process: int, listen: str) -> int:
    """How many connections of clients a worker has, from Linux's own tables."""
    inodes = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    if listen.startswith("unix:"):
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return sum(row[5] == "03" and row[6] in inodes and row[7:] == [listen[5:]] for row in rows)
    port = f":{int(listen.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] == "01" and row[9] in inodes for row in rows)
