"""What one bad object breaks beyond itself: nothing. The rows of docs/reference/what-breaks.md, at start and while running."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.backend import Backend
from tests.support.certificates import authority
from tests.support.folder import write
from tests.support.ports import free_port
from tests.support.running import Served
from tests.support.wait import wait_for

BASE = """
listeners:
  http: {port: $port, address: 127.0.0.1}
upstreams:
  good: {endpoints: ["$backend"]}
routes:
  version: {path: /version, respond: {body: "$version"}}
  good: {path: /good, upstream: good}
"""


@dataclass(frozen=True)
class Bad:
    """One object in a file of its own, bad and mended; `answers` is what it answers while it is bad, by path."""

    bad: str
    mended: str
    name: str
    place: str
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)


REJECTED = {
    "cluster": Bad(
        "upstreams: {odd: {endpoints: [], envoy: {connect_timeout: -1s}}}\n"
        "routes: {odd: {path: /odd, upstream: odd}}\n",
        'upstreams: {odd: {endpoints: ["127.0.0.1:1"]}}\nroutes: {odd: {path: /odd, upstream: odd}}\n',
        "odd",
        "more.yaml:1:13",
        {"/odd": (503, "no_upstream")},
    ),
    "route": Bad(
        "routes: {odd: {path: /odd, upstream: good, envoy: {route: {hash_policy: [{}]}}}}\n",
        "routes: {odd: {path: /odd, upstream: good}}\n",
        "odd",
        "more.yaml:1:10",
        {"/odd": (503, "route_rejected")},
    ),
    "listener": Bad(
        "listeners: {odd: {port: PORT, address: 127.0.0.1, envoy: {listener_filters: [{name: none}]}}}\n",
        "listeners: {odd: {port: PORT, address: 127.0.0.1}}\n",
        "127.0.0.1:PORT",
        "more.yaml:1:13",
    ),
}
MISTAKEN = {
    "certificate": Bad(
        "secrets: {odd: {certificate: {file: odd.crt}, private_key: {file: other.key}}}\n"
        "listeners: {odd: {port: PORT, tls: {certificates: [odd]}}}\n",
        "secrets: {odd: {certificate: {file: odd.crt}, private_key: {file: odd.key}}}\n"
        "listeners: {odd: {port: PORT, tls: {certificates: [odd]}}}\n",
        "the private key does not belong to the certificate",
        "more.yaml:1:30",
    ),
    "policy": Bad(
        "routes: {odd: {path: /odd, upstream: good, policies: {ext_authz: {python: bad.py:check}}}}\n",
        "routes: {odd: {path: /odd, upstream: good, policies: {ext_authz: {python: good.py:check}}}}\n",
        "correct the policy",
        "more.yaml:1:75",
    ),
    "file": Bad("routes: {odd: {path: /odd\n", "routes: {}\n", "not YAML", "more.yaml:2:1"),
}


class Stack(Served):
    """`xds run` on a folder with one good file and perhaps a bad one beside it."""

    def __init__(self, root: Path, backend: Backend, *arguments: str) -> None:
        super().__init__(root, BASE, *arguments, backend=backend.address)
        self.odd_port = free_port()
        (certificate, key), (_, other) = authority().issue("odd.test"), authority().issue("other.test")
        policy = "from filters.ext_authz import allow\n\n\ndef check(request):\n    return allow()\n"
        files = {"odd.crt": certificate, "odd.key": key, "other.key": other, "good.py": policy}
        write(self.folder, {**files, "bad.py": "def check(request:\n"})
        self.write("1")

    def change(self, version: str, more: str) -> None:
        """Write both files at once; the control plane takes them as one change, or as two of which the last counts."""
        write(self.folder, more=more.replace("PORT", str(self.odd_port)))
        self.write(version)

    def answer(self, path: str) -> tuple[int, str]:
        got = self.get(path)
        return got.status_code, got.headers.get("x-gateway-reason", "")

    def until(self, version: str) -> None:
        """Wait until this version is served, and see that the upstream beside it answers."""
        super().until(version)
        assert self.answer("/good") == (200, "")

    def held(self) -> dict[str, str]:
        return {one["name"]: one["place"] for one in self.status()["held"]}


@pytest.fixture
def stack(tmp_path: Path, backend: Backend) -> Stack:
    return Stack(tmp_path, backend)


@pytest.mark.parametrize("when", ["at start", "while running"])
@pytest.mark.parametrize("kind", REJECTED)
def test_what_envoy_rejects_is_left_out_alone_and_the_rest_is_served_and_changes(
    stack: Stack, kind: str, when: str
) -> None:
    case = REJECTED[kind]
    if when == "at start":
        stack.change("1", case.bad)
    with stack:
        stack.until("1")
        stack.change("2", case.bad)
        stack.until("2")
        held = stack.held()
        (name,) = held
        assert name == case.name.replace("PORT", str(stack.odd_port))
        assert held[name].endswith(case.place)
        for path, expected in case.answers.items():
            assert stack.answer(path) == expected
        stack.change("3", case.mended)
        stack.until("3")
        wait_for(lambda: not stack.held(), "the mended object")
        for path in case.answers:
            wait_for(lambda path=path: stack.answer(path)[1] != case.answers[path][1], "its answer")


@pytest.mark.parametrize("kind", MISTAKEN)
def test_at_start_a_mistake_keeps_the_gateway_back_until_it_is_mended(stack: Stack, kind: str) -> None:
    case = MISTAKEN[kind]
    stack.change("1", case.bad)
    with stack:
        stack.says("nothing is served yet")
        assert f"{case.place}: error:" in stack.log
        assert case.name in stack.log
        stack.change("2", case.mended)
        stack.until("2")


@pytest.mark.parametrize("kind", MISTAKEN)
def test_while_running_a_mistake_keeps_what_is_served_until_it_is_mended(stack: Stack, kind: str) -> None:
    case = MISTAKEN[kind]
    with stack:
        stack.until("1")
        stack.change("2", case.bad)
        stack.says("the last good gateway stays in service")
        assert f"{case.place}: error:" in stack.log
        stack.until("1")
        stack.change("3", case.mended)
        stack.until("3")


def test_after_a_restart_with_a_mistake_the_last_good_gateway_is_served(
    tmp_path: Path, backend: Backend
) -> None:
    stack = Stack(tmp_path, backend, "--state", str(tmp_path / "state"))
    with stack:
        stack.until("1")
    stack.change("2", MISTAKEN["file"].bad)
    with stack:
        stack.until("1")
        stack.says("the last good gateway stays in service")
        stack.change("3", MISTAKEN["file"].mended)
        stack.until("3")
