"""A new version goes to the Envoys of a fleet step by step, through three real Envoys, and back if it does harm."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.envoy import Envoy
from tests.support.prometheus import BINARY, Prometheus
from tests.support.running import Served
from tests.support.wait import wait_for
from xds_server.cli.main import main
from xds_server.control_plane import rollout_steps as steps
from xds_server.proxy.bootstrap import bootstrap
from xds_server.serving.persistence import load
from xds_server.translate.readable import plain

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
rollout:
  steps: [5%, 60%, 100%]
  pause: $pause
  abort_if: {rejections: 1, error_rate: "> 10% and > 2 × before"}
upstreams: {shop: {endpoints: ["$backend"], envoy: {connect_timeout: $timeout}}}
routes:
  shop: {path: /, upstream: shop}
  version: {path: /version, respond: {body: "$version"}}
"""
NODES = ("one", "two", "three")
FIRST = min(NODES, key=steps.position)
"""The node that is always among the first. It speaks state of the world, and the others the incremental protocol."""


class Fleet(Served):
    """A control plane for three Envoys that listen at one port, two backends, and requests to them."""

    def __init__(self, root: Path, good: Backend, bad: Backend) -> None:
        self.good, self.bad, self.root = good, bad, root
        arguments = ("--no-proxy", "--no-prove", "--state", str(root / "state"))
        super().__init__(root, YAML, *arguments, pause="1s", backend=good.address, timeout="1s")
        self.envoys: dict[str, Envoy] = {}

    def connect(self, *nodes: str) -> None:
        for node in nodes:
            made = bootstrap(xds_address=self.xds_address, node_id=node, delta=node != FIRST)
            self.envoys[node] = Envoy(plain(made), self.root)
            self.envoys[node].start()
        wait_for(lambda: all(self.versions().get(node) for node in nodes), "the Envoys")

    def versions(self) -> dict[str, str]:
        """The version that each Envoy has loaded."""
        found: dict[str, str] = {}
        for node, envoy in self.envoys.items():
            text = json.dumps(envoy.config_dump())
            loaded = [one for one in ("v1", "v2", "v3") if f'"inline_string": "{one}"' in text]
            found[node] = "".join(loaded)
        return found

    def has(self, **wanted: int) -> None:
        """Wait until so many Envoys have these versions."""
        wait_for(
            lambda: Counter(self.versions().values()) == Counter(wanted),
            lambda: f"{wanted}, it is {self.versions()}; the log:\n{self.log[-3000:]}",
        )

    def rollout(self, action: str = "status") -> int:
        return main(["rollout", action, "--admin", self.admin])

    def state(self) -> dict[str, object]:
        found: dict[str, object] = httpx.get(f"http://{self.admin}/rollout").json()
        return found

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Requests on a connection each, so that all Envoys get some."""
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                with suppress(httpx.HTTPError):
                    httpx.get(f"{self.url}/", timeout=5)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        good, bad = (stack.enter_context(Backend(name)) for name in ("good", "bad"))
        bad.status = 503
        made = Fleet(tmp_path, good, bad)
        made.write("v1")
        stack.enter_context(made)
        try:
            made.connect(*NODES)
            made.has(v1=3)
            yield made
        finally:
            for envoy in made.envoys.values():
                envoy.stop()


def test_a_good_version_reaches_all_envoys_step_by_step(fleet: Fleet) -> None:
    fleet.write("v2")
    with fleet.traffic():
        fleet.says("rollout begins")
        fleet.says("step=2 of 3")
        fleet.says("step=3 of 3")
        fleet.says("rollout completed")
    fleet.has(v2=3)
    assert "step=1 of 3 envoys=1 of 3" in fleet.log
    assert fleet.rollout() == 0


def test_envoys_that_get_worse_at_step_one_are_rolled_back_without_help(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet.traffic():
        wait_for(lambda: len(fleet.good.seen) > 50, "traffic")
        fleet.write("v2", backend=fleet.bad.address, pause="10m")
        fleet.says("rollout withdrawn")
        fleet.has(v1=3)
    assert "step=1 reason=error rate" in fleet.log
    assert "step=2" not in fleet.log
    assert fleet.rollout() == 1
    told = capsys.readouterr().out
    assert "WITHDRAWN" in told
    assert "error rate" in told
    metrics = httpx.get(f"http://{fleet.admin}/metrics").text
    assert "xds_rollout_withdrawn 1.0" in metrics
    assert 'xds_rollouts_total{outcome="withdrawn"} 1.0' in metrics
    fleet.write("v3", pause="10m")  # another version is tried
    fleet.has(v1=2, v3=1)
    assert fleet.versions()[FIRST] == "v3"


@pytest.mark.parametrize("restart", [False, True])
def test_a_version_that_loses_the_section_goes_by_the_steps_of_before(fleet: Fleet, restart: bool) -> None:
    """Otherwise a mistake in the folder would reach all Envoys at once."""
    if restart:
        wait_for(lambda: b"steps" in (fleet.root / "state").read_bytes(), "the section in the state file")
        fleet.stop(signal.SIGKILL)
    section = fleet.text[fleet.text.index("rollout:") : fleet.text.index("upstreams:")]
    fleet.text = fleet.text.replace(section, "")
    fleet.write("v2")
    if restart:
        fleet.start()
    fleet.says("rollout begins")
    fleet.says("step=2 of 3")
    fleet.says("rollout completed")
    fleet.has(v2=3)
    said = len(fleet.log)
    fleet.write("v3")
    fleet.has(v3=3)
    assert "rollout" not in fleet.log[said:]


def test_a_rollout_holds_while_the_envoys_of_its_step_are_gone(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new version may have ended them, and would end the next one too."""
    fleet.write("v2", pause="1s", backend=fleet.good.address)
    fleet.has(v1=2, v2=1)
    gone = fleet.envoys.pop(FIRST)
    gone.stop()
    fleet.says("rollout holds at step 1: none of the Envoys of this step is connected")
    fleet.rollout()
    assert "none of the Envoys of this step is connected" in capsys.readouterr().out
    fleet.has(v1=2)
    fleet.connect(FIRST)
    with fleet.traffic():
        fleet.has(v2=3)


def test_a_rejection_withdraws_a_version_and_it_stays_withdrawn_over_a_restart(fleet: Fleet) -> None:
    fleet.write("v2", timeout="-1s")
    fleet.says("rollout withdrawn")
    fleet.has(v1=3)
    wait_for(lambda: b'"withdrawn": {' in (fleet.root / "state").read_bytes(), "the state")
    fleet.stop(signal.SIGKILL)
    fleet.start()
    fleet.says("because it was withdrawn: 1 rejections")
    fleet.has(v1=3)


def test_an_operator_pauses_resumes_aborts_and_promotes(fleet: Fleet) -> None:
    assert fleet.rollout("promote") == 2
    fleet.write("v2", pause="10m")
    fleet.has(v1=2, v2=1)
    assert fleet.rollout("pause") == 0
    assert fleet.state()["paused"] is True
    assert fleet.rollout("resume") == 0
    assert fleet.rollout("abort") == 1
    fleet.has(v1=3)
    assert fleet.rollout("promote") == 0
    fleet.has(v2=3)
    fleet.write("v3", pause="10m")
    fleet.has(v2=2, v3=1)
    fleet.write("v2", pause="10m")  # back to the version that the others have
    fleet.has(v2=3)
    assert fleet.rollout() == 0


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_control_plane_that_is_killed_at_a_step_goes_on_there(fleet: Fleet, step: int) -> None:
    fleet.write("v2")
    with fleet.traffic():
        fleet.says(f"step={step} of 3")
        wait_for(lambda: _saved(fleet.root / "state").get("step") == step - 1, "the state on disk")
        fleet.write("v2", pause="10m")
        before = fleet.versions()
        fleet.stop(signal.SIGKILL)
        mark = len(fleet.log)
        fleet.start()
        fleet.says(f"the rollout goes on at step {step}", mark)
        wait_for(lambda: all(fleet.versions().values()), "the Envoys")
        wait_for(lambda: len(fleet.state()["chosen"]) >= 1, "the Envoys of the step")  # type: ignore[arg-type]
        if step < 3:
            assert {node for node, one in fleet.versions().items() if one == "v2"} >= {
                node for node, one in before.items() if one == "v2"
            }
        fleet.write("v2", pause="1s")
        fleet.says("rollout completed", mark)
    fleet.has(v2=3)


def _saved(path: Path) -> dict[str, object]:
    snapshot = load(path)["/rollout/state"]
    (resource,) = (one for type_ in snapshot for one in snapshot[type_].values())
    found: dict[str, object] = json.loads(resource.body)
    return found if found["candidate"] else {}


def test_a_rollout_without_load_reports_holds_and_says_so(fleet: Fleet) -> None:
    fleet.write("v2")
    fleet.says("step=2 of 3")
    for envoy in fleet.envoys.values():
        assert envoy.process is not None
        envoy.process.send_signal(signal.SIGSTOP)
    try:
        fleet.says("rollout holds at step 2: no load report")
    finally:
        for envoy in fleet.envoys.values():
            assert envoy.process is not None
            envoy.process.send_signal(signal.SIGCONT)
    fleet.says("rollout completed")


SLOW = """
listeners: {http: {port: $port, address: 127.0.0.1}}
rollout:
  steps: [5%, 100%]
  pause: 10m
  abort_if: {p99: "> 100ms and > 2 × before"}
  source: {prometheus: {url: "$prometheus", p99: '$query'}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  slow: {path: /, respond: {body: hello}, policies: {fault: {delay: {duration: $delay}}}}
"""
P99 = (
    'histogram_quantile(0.99, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{node=~"%NODES%"}[%WINDOW%])))'
    " / 1000"
)


@pytest.mark.skipif(BINARY is None, reason="there is no Prometheus; make prometheus installs it")
def test_response_times_of_prometheus_withdraw_a_version_and_its_silence_holds_it(fleet: Fleet) -> None:
    targets = {node: envoy.admin.removeprefix("http://") for node, envoy in fleet.envoys.items()}
    rules = fleet.root / "rules.yaml"
    rules.write_text("groups: []\n")
    with Prometheus(fleet.root, "", "/stats/prometheus", rules, targets) as prometheus, fleet.traffic():
        fleet.text, fast = SLOW, {"prometheus": prometheus.url, "query": P99, "delay": "1ms"}
        fleet.write("v2", **fast)
        fleet.has(v1=2, v2=1)
        wait_for(lambda: prometheus.ask(P99.replace("%NODES%", FIRST).replace("%WINDOW%", "10s")), "samples")
        wait_for(lambda: not fleet.state()["waiting"] and fleet.state()["since"], "a healthy step")
        fleet.write("v3", **{**fast, "delay": "300ms"})
        fleet.says("rollout withdrawn")
        fleet.has(v1=3)
        assert "reason=p99 0." in fleet.log
        mark = len(fleet.log)
        fleet.write("v2", **fast)
        fleet.says("rollout begins", mark)
    fleet.says("rollout holds at step 1: Prometheus gives no p99", mark)
    fleet.has(v1=2, v2=1)


LIMITED = """
listeners: {http: {port: $port, address: 127.0.0.1}}
rollout: {steps: [5%, 100%], pause: 10m}
upstreams: {shop: {endpoints: ["$backend"]}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  $route: {path: /$route, upstream: shop, policies: {rate_limit: $limit}}
"""


def test_policy_servers_have_the_rules_of_both_versions_until_a_rollout_ends(fleet: Fleet) -> None:
    def statuses(path: str, count: int = 30) -> Counter[int]:
        return Counter(fleet.get(path).status_code for _ in range(count))

    fleet.text = LIMITED
    fleet.write("v2", route="a", limit="1000/hour")
    fleet.has(v1=2, v2=1)
    assert fleet.rollout("promote") == 0
    fleet.has(v2=3)
    wait_for(lambda: statuses("/a", 10) == {200: 10}, "the limit")
    fleet.write("v3", route="a", limit="5/hour")
    fleet.has(v2=2, v3=1)
    assert statuses("/a") == {200: 30}  # a changed rule changes at the last step
    assert fleet.rollout("abort") == 1
    fleet.has(v2=3)
    assert statuses("/a") == {200: 30}
    fleet.write("v1", route="b", limit="1000/hour")
    fleet.has(v2=2, v1=1)
    wait_for(
        lambda: set(statuses("/a")) | set(statuses("/b")) == {200, 404}, "both routes, each at its Envoys"
    )
    assert fleet.rollout("promote") == 0
    fleet.has(v1=3)
    assert statuses("/b") == {200: 30}
