"""A commit goes to three real Envoys step by step. What is withdrawn is a failure at the forge, and a rollback has no steps."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_rollout import FIRST, NODES
from tests.support.envoy import Envoy
from tests.support.folder import filled
from tests.support.forge import Forge
from tests.support.git import GitServer, WorkingTree, collected
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
rollout: {steps: [5%, 100%], pause: 10m}
upstreams: {shop: {endpoints: ["127.0.0.1:9"], envoy: {connect_timeout: $timeout}}}
routes:
  shop: {path: /, upstream: shop}
  version: {path: /version, respond: {body: "$version"}}
"""


class Fleet:
    """A control plane on a branch, its forge, and three Envoys."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._port = free_port()
        (root / "served").mkdir()
        server = stack.enter_context(GitServer(root / "served"))
        self.tree = WorkingTree(root / "tree", root / "served" / "shop.git")
        self.forge = stack.enter_context(Forge(root))
        self.commits = {"v1": self.push("v1")}
        flags = ("--no-proxy", "--no-prove", "--state", str(root / "state"), "--git-interval", "0.2")
        address = f"git+{server.url}/shop.git//gateway?ref=main"
        self.running = stack.enter_context(Running(address, root, *flags, *self.forge.flags))
        self.pins = root / "state.git"
        wait_for(lambda: self.running.status()["gateway"]["commit"], "the first commit")
        self.envoys: dict[str, Envoy] = {}
        for node in NODES:
            made = bootstrap(xds_address=self.running.xds_address, node_id=node)
            self.envoys[node] = stack.enter_context(Envoy(plain(made), root))
        self.has(v1=3)

    def push(self, version: str, timeout: str = "1s") -> str:
        text = filled(YAML, port=self._port, version=version, timeout=timeout)
        commit = self.tree.commit(version, **{"gateway/gateway": text})
        self.tree.push()
        return commit

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node, envoy in self.envoys.items():
            text = json.dumps(envoy.config_dump())
            found[node] = "".join(one for one in ("v1", "v2", "v3") if f'"inline_string": "{one}"' in text)
        return found

    def has(self, **wanted: int) -> None:
        wait_for(
            lambda: Counter(self.versions().values()) == Counter(wanted),
            lambda: f"{wanted}, it is {self.versions()}; the log:\n{self.running.log[-3000:]}",
        )

    def call(self, *words: str) -> int:
        return main([*words, "--admin", self.running.admin])

    def fails_at_the_forge(self, commit: str, reason: str) -> None:
        def told() -> bool:
            status = self.forge.status(commit)
            return status.get("state") == "failure" and reason in status["description"]

        wait_for(told, lambda: f"a failure; the forge was told {self.forge.told}")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with collected(), ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_withdrawn_commit_is_a_failure_at_the_forge_and_no_rollback_goes_to_it(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    second = fleet.push("v2")
    fleet.has(v1=2, v2=1)
    assert fleet.call("rollout", "promote") == 0
    fleet.has(v2=3)
    wait_for(lambda: fleet.forge.status(second).get("state") == "success", "the status")
    third = fleet.push("v3", timeout="-1s")
    fleet.running.says(f"(commit {third[:12]}) step=1 reason=1 rejections")
    fleet.fails_at_the_forge(third, "withdrawn by the rollout: 1 rejections")
    fleet.has(v2=3)
    fleet.call("status")
    assert f"(commit {third[:12]}): 1 rejections" in capsys.readouterr().out
    mark = len(fleet.forge.told)
    fleet.running.stop(signal.SIGKILL)
    fleet.running.start()
    wait_for(lambda: len(fleet.forge.told) > mark, "a status after the restart")
    fleet.fails_at_the_forge(third, "withdrawn")
    assert fleet.call("rollback") == 0  # from the second one, which is served, to the one before
    fleet.has(v1=3)
    assert f"serving commit {fleet.commits['v1'][:12]}" in capsys.readouterr().out


def test_a_rollback_and_a_pin_reach_all_envoys_at_once_in_the_middle_of_a_rollout(fleet: Fleet) -> None:
    second = fleet.push("v2")
    fleet.has(v1=2, v2=1)
    assert fleet.versions()[FIRST] == "v2"
    assert fleet.call("rollback") == 0
    fleet.has(v1=3)
    mark = len(fleet.running.log)
    assert fleet.call("pin", second) == 0
    fleet.has(v2=3)
    fleet.push("v3")
    assert fleet.call("rollback", fleet.commits["v1"]) == 0
    fleet.has(v1=3)
    assert "rollout begins" not in fleet.running.log[mark:]
    assert fleet.call("pin", "--off") == 0  # the newest commit goes step by step again
    fleet.has(v1=2, v3=1)


def test_no_rollback_goes_to_a_commit_that_differs_from_a_withdrawn_one_in_comments(fleet: Fleet) -> None:
    fleet.push("v2")
    fleet.has(v1=2, v2=1)
    again = fleet.tree.commit("Only a note", **{"gateway/note": "# nothing\n"})
    fleet.tree.push()
    fleet.running.says(f"serving commit={again}")
    assert fleet.call("rollout", "abort") == 1
    fleet.has(v1=3)
    assert fleet.call("rollback") == 2  # there is none before the first
    fleet.has(v1=3)


def test_a_commit_that_is_promoted_after_it_was_withdrawn_is_a_success_again(fleet: Fleet) -> None:
    second = fleet.push("v2")
    fleet.has(v1=2, v2=1)
    assert fleet.call("rollout", "abort") == 1
    fleet.fails_at_the_forge(second, "by order of an operator")
    assert fleet.call("rollout", "promote") == 0
    fleet.has(v2=3)
    wait_for(lambda: fleet.forge.status(second).get("state") == "success", "the status")
