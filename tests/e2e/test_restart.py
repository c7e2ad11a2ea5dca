"""A control plane that is killed and comes back with `--state`: what was rejected stands, and a broken folder breaks nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from tests.support.envoy import Envoy
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.discovery.types import CLUSTER
from xds_server.proxy.bootstrap import bootstrap
from xds_server.serving.persistence import load
from xds_server.translate.readable import plain

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {one: {endpoints: ["127.0.0.1:1"], envoy: {connect_timeout: $timeout}}}
routes:
  version: {path: /version, respond: {body: "$version"}}
"""
POLICY = "from filters.ext_authz import deny\ndef check(request):\n    return deny(409)\n"
DECIDED = """
listeners: {http: {port: $port, address: 127.0.0.1}}
routes: {a: {path: /a, respond: {body: plain}, policies: {ext_authz: {python: "p.py:check"}}}}
"""


def test_what_was_rejected_before_a_restart_is_served_as_it_was_accepted_after_it(tmp_path: Path) -> None:
    folder, port = tmp_path / "gateway", free_port()
    running = Running(folder, tmp_path, "--no-proxy", "--state", str(tmp_path / "state"))
    envoy = Envoy(plain(bootstrap(xds_address=running.xds_address, node_id="fleet")), tmp_path)

    def change(version: str, timeout: str) -> None:
        write(folder, gateway=filled(YAML, port=port, version=version, timeout=timeout))

    def until(version: str) -> None:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/version").text == version, version)

    def kept() -> str:
        return load(tmp_path / "state")[""][CLUSTER]["one"].version

    def held() -> list[tuple[str, bool]]:
        return [(one["name"], bool(one["served_instead"])) for one in running.status()["held"]]

    change("1", "1s")
    with running, envoy:
        until("1")
        change("2", "-1s")
        until("2")
        wait_for(lambda: held() == [("one", True)], "the rejection")
        (rejected,) = running.status()["held"]
        wait_for(lambda: kept() == rejected["served_instead"], "the state on disk", also=(KeyError,))
        running.stop(signal.SIGKILL)
        running.start()
        wait_for(held, "the rejection after the restart")
        assert held() == [("one", True)]
        assert "cluster.one.membership_total" in envoy.stats("cluster.one.membership_total")


def test_a_folder_that_is_broken_at_the_start_leaves_policies_in_force(tmp_path: Path) -> None:
    folder, port = tmp_path / "gateway", free_port()

    def answers() -> bool:
        return httpx.get(f"http://127.0.0.1:{port}/a", timeout=10).status_code == 409

    write(folder, gateway=filled(DECIDED, port=port))
    (folder / "p.py").write_text(POLICY)
    with Running(folder, tmp_path, "--state", str(tmp_path / "state")) as running:
        wait_for(answers, "the policy")
        wait_for(lambda: (tmp_path / "state").exists(), "the state")
        running.stop()
        write(folder, gateway="listeners: [")
        running.start()
        wait_for(answers, lambda: f"the policy after the restart; the log:\n{running.log[-3000:]}")
        running.says("the last good gateway stays in service")
        assert httpx.get(f"http://{running.admin}/ready").status_code == 200
