"""Several workers behind one address, as processes: they share the work, are started again, and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2

from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread
from xds_server.cli.main import main
from xds_server.compiler import Compiler
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
SHARED = ("--counters", "redis://127.0.0.1:1")
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
            f"127.0.0.1:{xds.port}", listen, folder, "--workers", str(WORKERS), *SHARED, *arguments
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


def test_a_worker_that_dies_is_started_again_and_none_outlives_a_supervisor_that_is_killed(
    tmp_path: Path,
) -> None:
    address = f"unix:{tmp_path}/policy.sock"
    with serving(tmp_path, address) as server:
        before = processes(server)
        dead = min(before)
        os.kill(dead, signal.SIGKILL)
        assert ask(address) in before - {dead} or dead not in processes(server)
        wait_for(lambda: len(processes(server) - {dead}) == WORKERS, "another worker")
        assert len(processes(server) & before) == 1
        assert "ended with -9" in server.log
        after = processes(server)
        assert ask(address) in after
        server.stop(signal.SIGKILL)
        wait_for(lambda: not any(lives(one) for one in after), "the workers to end")


def test_a_port_that_cannot_be_had_ends_them_all(tmp_path: Path) -> None:
    with control(tmp_path) as xds, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = PolicyServerProcess(f"127.0.0.1:{xds.port}", address, tmp_path, "--workers", "2", *SHARED)
        server.start()
        assert server.process is not None
        assert server.process.wait(30) == 3
        assert f"cannot listen on {address}" in server.log


def test_workers_on_a_socket_that_another_server_has_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"{tmp_path}/policy.sock")
        taken.listen()
        server = PolicyServerProcess(
            "127.0.0.1:1", f"unix:{tmp_path}/policy.sock", tmp_path, "--workers", "2", *SHARED
        )
        server.start()
        assert server.process is not None
        assert server.process.wait(30) == 3
        assert "choose another address" in server.log


def test_workers_that_would_each_count_for_themselves_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy-server", "--workers", "2"]) == 2
    said = capsys.readouterr().err
    assert "--counters redis://HOST:PORT" in said
    assert "--workers 1" in said


@pytest.mark.parametrize("kind", ["native", "grpcio"])
def test_a_second_process_on_the_port_that_counts_for_itself_says_so(tmp_path: Path, kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with control(tmp_path) as xds:
        asked = (f"127.0.0.1:{xds.port}", address, tmp_path, "--grpc", kind)
        with PolicyServerProcess(*asked) as first, PolicyServerProcess(*asked) as second:
            assert f"another process listens on {address} too" in second.log
            assert "another process listens" not in first.log
            with PolicyServerProcess(*asked, *SHARED) as third:
                assert "another process listens" not in third.log


def test_the_state_of_none_is_not_connected() -> None:
    assert together([])["control_plane_connected"] is False
