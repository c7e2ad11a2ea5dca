"""Addresses of a command: each form of them is served, and if one is taken the command ends at once and names the process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folder import write
from tests.support.policy_server import PolicyServerProcess
from tests.support.ports import free_port
from tests.support.running import ROOT, Running
from tests.support.wait import wait_for
from xds_server.cli.main import main

LISTEN = """
import socket, sys
family, address = (socket.AF_INET, ("127.0.0.1", int(sys.argv[1]))) if sys.argv[1].isdigit() else (socket.AF_UNIX, sys.argv[1])
with socket.socket(family) as one:
    one.bind(address)
    one.listen()
    print("listening", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def stranger(address: str) -> Iterator[int]:
    """Another program that listens at a port of 127.0.0.1 or at a path; its process."""
    command = [sys.executable, "-c", LISTEN, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "gateway", gateway="routes: {}\n")


def refused(*words: object, code: int = 3) -> list[str]:
    """What the command says before it ends, which it does without any signal."""
    done = subprocess.run(
        [sys.executable, "-m", "xds_server", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()


def taken(flag: str, address: str, whom: str) -> str:
    form = "unix:/PATH" if address.startswith("unix:") else "HOST:PORT (port 0: any free port)"
    return f"{flag} {address} is taken by {whom}; end that process, or choose another address: {flag} {form}"


def test_a_second_run_names_the_first_for_each_address(folder: Path, tmp_path: Path) -> None:
    with Running(folder, tmp_path, "--no-proxy", "--no-prove") as first:
        assert first.process is not None
        whom = f"xds run (process {first.process.pid})"
        xds, admin = (
            taken("--xds", first.xds_address, whom),
            taken("--admin", first.admin, whom),
        )
        addresses = ("--xds", first.xds_address, "--admin", first.admin)
        assert refused("run", folder, *addresses) == [f"xds: {xds}", admin]
        assert refused("run", folder, *addresses[:2], "--admin", "127.0.0.1:0") == [f"xds: {xds}"]
        assert refused("run", folder, *addresses[2:], "--xds", "127.0.0.1:0") == [f"xds: {admin}"]


@pytest.mark.parametrize("flag", ["--xds", "--admin"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", ""])
def test_run_names_another_program(flag: str, host: str, folder: Path) -> None:
    port = free_port()
    other = "--admin" if flag == "--xds" else "--xds"
    with stranger(str(port)) as process:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        expected = taken(flag, f"{host}:{port}", f"{name} (process {process})")
        assert refused("run", folder, flag, f"{host}:{port}", other, "127.0.0.1:0") == [f"xds: {expected}"]


def test_run_takes_over_no_socket_of_a_program_that_listens(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "taken.sock"
    with stranger(str(path)) as process:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        for flag in ("--xds", "--admin"):
            expected = taken(flag, f"unix:{path}", f"{name} (process {process})")
            others = ("--xds", "127.0.0.1:0", "--admin", "127.0.0.1:0")
            assert refused("run", folder, *others, flag, f"unix:{path}") == [f"xds: {expected}"]


def test_a_process_that_cannot_be_found_is_another_process(folder: Path) -> None:
    with socket.socket() as bound:  # and not listening, so that the system does not list it
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        found = refused("run", folder, "--xds", address, "--admin", "127.0.0.1:0")
    assert found == [f"xds: {taken('--xds', address, 'another process')}"]


def test_run_has_no_address_twice(folder: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (found,) = refused("run", folder, "--xds", address, "--admin", address, code=2)
    assert found == f"xds: --xds and --admin are both {address}; change one of them"


def test_an_address_of_no_machine_here_is_said_to_be_none(folder: Path) -> None:
    (found,) = refused("run", folder, "--xds", "192.0.2.1:0", "--admin", "127.0.0.1:0")
    assert found.startswith("xds: cannot listen at --xds 192.0.2.1:0: Cannot assign requested address")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_server_names_another_program(workers: int) -> None:
    port = free_port()
    with stranger(str(port)) as process:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        for flag, other in (("--listen", ()), ("--admin", ("--listen", "127.0.0.1:0"))):
            expected = taken(flag, f"127.0.0.1:{port}", f"{name} (process {process})")
            found = refused("policy-server", flag, f"127.0.0.1:{port}", *other, "--workers", workers)
            assert found == [f"xds: {expected}"]


def test_a_composer_listens_for_this_machine_only() -> None:
    (found,) = refused("composer", "--listen", "0.0.0.0:18003", code=2)
    assert "is not of this machine only" in found


def test_the_workers_of_a_policy_server_are_named_by_the_process_that_ends_them(tmp_path: Path) -> None:
    descriptors = write(tmp_path / "limits", limits="domain: a\ndescriptors: [{key: k}]\n")
    more = ("--workers", "2", "--descriptors", str(descriptors))
    with PolicyServerProcess("none", f"127.0.0.1:{free_port()}", tmp_path, *more) as server:
        assert server.process is not None
        expected = taken("--admin", server.admin, f"xds policy-server (process {server.process.pid})")
        found = refused("policy-server", "--listen", "127.0.0.1:0", "--admin", server.admin)
        assert found == [f"xds: {expected}"]


@pytest.mark.parametrize(
    "form", ["127.0.0.1:PORT", "[::1]:PORT", "localhost:PORT", ":PORT", "unix:FOLDER/SOCKET"]
)
def test_each_form_of_an_address_is_served(form: str, folder: Path, tmp_path: Path) -> None:
    xds, admin = (
        form.replace("PORT", str(free_port())).replace("FOLDER", str(tmp_path)).replace("SOCKET", name)
        for name in ("xds", "admin")
    )
    command = [sys.executable, "-m", "xds_server", "run", str(folder), "--no-proxy", "--no-prove"]
    with subprocess.Popen([*command, "--xds", xds, "--admin", admin], cwd=ROOT) as process:
        try:
            wait_for(lambda: main(["status", "--admin", admin]) == 0, "the admin address")
            client = f"127.0.0.1{xds}" if xds.startswith(":") else xds
            assert main(["watch", "cluster", "--once", "--xds", client]) == 0
        finally:
            process.kill()
