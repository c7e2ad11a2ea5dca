"""The API server of the tests: its network namespace, its start once for a session, and its end."""

from __future__ import annotations

import socket
import subprocess
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.kubernetes import build
from tests.support.kubernetes.objects import Objects
from tests.support.kubernetes.shared import SharedServer, shared_server
from tests.support.wait import wait_for


def _processes(folder: Path) -> list[str]:
    """Return the processes that have a folder in their command."""
    found = psutil.process_iter(["cmdline", "name"])
    return [
        one.info["name"] for one in found if any(str(folder) in word for word in one.info["cmdline"] or ())
    ]


def test_the_server_is_started_once_and_ends_with_the_session(tmp_path: Path) -> None:
    if line := build.missing():
        pytest.skip(line)
    folder = tmp_path / "shared"
    session = subprocess.Popen(["sleep", "infinity"])
    try:
        server = shared_server(folder, "experimental", session.pid)
        assert shared_server(folder, "experimental", session.pid) == server
        assert sorted(_processes(folder)) == ["kas", "python"]
        with server.objects() as objects:
            groups = [group["name"] for group in objects.request("GET", "/apis")["groups"]]
        assert "gateway.networking.x-k8s.io" in groups
    finally:
        session.kill()
        session.wait()
    wait_for(
        lambda: not _processes(folder) and not folder.exists(), lambda: f"the end of {_processes(folder)}"
    )


def test_addresses_of_pods_are_in_the_namespace_and_reached_through_a_port_of_the_host(
    kubernetes: SharedServer, objects: Objects, namespace: str
) -> None:
    with kubernetes.namespace() as network, closing(network.listen("10.244.7.1")) as pod:
        port = pod.getsockname()[1]
        endpoints = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "pod", "namespace": namespace},
            "addressType": "IPv4",
            "ports": [{"port": port}],
            "endpoints": [{"addresses": ["10.244.7.1"]}],
        }
        (accepted,) = objects.apply([endpoints])
        assert accepted["endpoints"][0]["addresses"] == ["10.244.7.1"]
        assert "10.244.0.0/16" in network.call("ip", "route", "show", "table", "local")
        forwarded = network.forward("10.244.7.1", port)
        with socket.create_connection(("127.0.0.1", forwarded), 10) as connection, pod.accept()[0] as other:
            connection.sendall(b"?")
            assert other.recv(1) == b"?"
            other.sendall(b"!")
            assert connection.recv(1) == b"!"


def test_ipv6_addresses_of_pods_are_there_too(kubernetes: SharedServer) -> None:
    with (
        kubernetes.namespace() as network,
        closing(network.listen("fd00:10:244::1")) as pod,
        network.connect("fd00:10:244::1", pod.getsockname()[1]) as connection,
    ):
        pod.accept()[0].close()
        assert connection.recv(1) == b""
