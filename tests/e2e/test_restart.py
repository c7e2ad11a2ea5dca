"""A control plane that is killed and comes back with `--state`: what was rejected stands, and a broken folder breaks nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.support.envoy import Envoy
from tests.support.folder import write
from tests.support.running import Served
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
    served = Served(tmp_path, YAML, "--no-proxy", "--state", str(tmp_path / "state"))
    envoy = Envoy(plain(bootstrap(xds_address=served.xds_address, node_id="fleet")), tmp_path)

    def kept() -> str:
        return load(tmp_path / "state")[""][CLUSTER]["one"].version

    def held() -> list[tuple[str, bool]]:
        return [(one["name"], bool(one["served_instead"])) for one in served.status()["held"]]

    served.write("1", timeout="1s")
    with served, envoy:
        served.until("1")
        served.write("2", timeout="-1s")
        served.until("2")
        wait_for(lambda: held() == [("one", True)], "the rejection")
        (rejected,) = served.status()["held"]
        wait_for(lambda: kept() == rejected["served_instead"], "the state on disk", also=(KeyError,))
        served.stop(signal.SIGKILL)
        served.start()
        wait_for(held, "the rejection after the restart")
        assert held() == [("one", True)]
        assert "cluster.one.membership_total" in envoy.stats("cluster.one.membership_total")


@pytest.mark.parametrize("delta", [True, False])
def test_an_envoy_that_needs_nothing_after_a_restart_counts_as_current(tmp_path: Path, delta: bool) -> None:
    """The incremental protocol has no response to acknowledge then."""
    served = Served(
        tmp_path, YAML, "--no-proxy", "--no-prove", "--state", str(tmp_path / "state"), timeout="1s"
    )
    made = bootstrap(xds_address=served.xds_address, node_id="fleet", delta=delta)
    served.write("1")

    def current() -> bool:
        metrics = httpx.get(f"http://{served.admin}/metrics").text
        envoys = served.status()["envoys"]
        told = bool(envoys) and envoys[0]["waiting_for"] == []
        return told and 'xds_envoys{state="current"} 1.0' in metrics

    with served, Envoy(plain(made), tmp_path):
        served.until("1")
        wait_for(current, "the acknowledgement")
        wait_for(lambda: b"version" in (tmp_path / "state").read_bytes(), "the state on disk")
        served.stop(signal.SIGKILL)
        served.start()
        wait_for(current, lambda: f"the Envoy after the restart: {served.status()['envoys']}")


def test_a_folder_that_is_broken_at_the_start_leaves_policies_in_force(tmp_path: Path) -> None:
    served = Served(tmp_path, DECIDED, "--state", str(tmp_path / "state"))
    write(served.folder, {"p.py": POLICY})
    served.write("1")

    def answers() -> bool:
        return served.get("/a").status_code == 409

    with served:
        wait_for(answers, "the policy")
        wait_for(lambda: (tmp_path / "state").exists(), "the state")
        served.stop()
        write(served.folder, gateway="listeners: [")
        served.start()
        wait_for(answers, lambda: f"the policy after the restart; the log:\n{served.log[-3000:]}")
        served.says("the last good gateway stays in service")
        assert httpx.get(f"http://{served.admin}/ready").status_code == 200
