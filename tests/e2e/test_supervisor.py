"""The supervised Envoy: started, restarted when it dies, drained at the end, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.folder import compiled, filled
from tests.support.ports import free_port
from tests.support.wait import eventually, wait_for
from xds_server.proxy.binary import envoy_binary
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.translate.static import bootstrap

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1}}
routes: {ping: {path: /ping, respond: {body: pong}}}
"""
LAUNCH = """
import os, subprocess, sys, time
command = [sys.executable, "-m", "xds_server.processes.launch", str(os.getpid()), "/bin/sleep", "600"]
print(subprocess.Popen(command).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def supervisor(tmp_path: Path, port: int) -> EnvoySupervisor:
    (tmp_path / "gateway.yaml").write_text(filled(GATEWAY, port=port))
    config = bootstrap(compiled(tmp_path).snapshot)
    config.admin.address.socket_address.address = "127.0.0.1"
    config.admin.address.socket_address.port_value = 0
    binary = envoy_binary()
    assert binary is not None
    return EnvoySupervisor(binary, config, arguments=("--concurrency", "1"), drain=1)


async def _answers(port: int) -> None:
    def ask() -> bool:
        return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).text == "pong"

    await asyncio.to_thread(wait_for, ask, "the gateway to answer")


async def test_an_envoy_that_is_killed_is_started_again(supervisor: EnvoySupervisor, port: int) -> None:
    await supervisor.start()
    try:
        await _answers(port)
        first = supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: supervisor.pid not in (None, first), "another Envoy")
        await _answers(port)
        assert supervisor.restarts == 1
    finally:
        await supervisor.stop()


async def test_stopping_ends_envoy_and_frees_the_port(supervisor: EnvoySupervisor, port: int) -> None:
    await supervisor.start()
    await _answers(port)
    await supervisor.stop()
    assert supervisor.pid is None
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncio.open_connection("127.0.0.1", port)


def test_envoy_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", LAUNCH], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        wait_for(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes(), "the child to become it")
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_for(lambda: not _alive(child), "the child to end with its parent")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
