"""Processors while something changes or fails: new versions under load, the policy server down, frozen or restarted."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {backend: {endpoints: ["$backend"]}}
routes:
  users: {path: /users, upstream: backend, policies: {ext_proc: {python: "p.py:Users", timeout: 5s}}}
  open: {path: /open, upstream: backend, policies: {ext_proc: {python: "p.py:Users", on_error: allow}}}
"""
HEAD = """
from filters.ext_proc import Processor, change


class Users(Processor):
    async def request_headers(self, request):
        return change({"x-version": "VERSION"})
"""
BODY = """
    async def request_body(self, request, body):
        return b"VERSION:" + body
"""
RESPONSE = """
    def response_body(self, request, response, body):
        return change({"x-version": "VERSION"}, body=body)
"""


def _source(version: str, *methods: str) -> dict[str, str]:
    return {"p.py": (HEAD + "".join(methods)).replace("VERSION", version)}


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Backend() as backend, Stacks(tmp_path_factory.mktemp("changes")) as stacks:
        one = stacks.start(GATEWAY, files=_source("one", RESPONSE), backend=backend.address)
        _works(one)
        yield one


def _works(stack: Stack) -> None:
    wait_for(lambda: _post(stack).status_code == 200, "the processor")


def _post(stack: Stack, path: str = "/users") -> httpx.Response:
    return httpx.post(stack.url + path, content=b"x", timeout=30)


@contextmanager
def _asking(stack: Stack, ask: Callable[[httpx.Client], str]) -> Iterator[Counter[str]]:
    """Ask from several threads meanwhile. The counter has what came back, when the block has ended."""
    done, seen = threading.Event(), Counter[str]()

    def loop() -> list[str]:
        answers = []
        with httpx.Client(timeout=30) as client:
            while not done.is_set():
                answers.append(ask(client))
        return answers

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(loop) for _ in range(4)]
        try:
            yield seen
        finally:
            done.set()
        for future in asking:
            seen.update(future.result())


def test_a_new_version_loses_no_request_and_mixes_with_none(stack: Stack) -> None:
    """The methods change too: with the second version the body belongs to the header, or neither of them does."""

    def ask(client: httpx.Client) -> str:
        answer = client.post(stack.url + "/users", content=b"x")
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text}"
        got = answer.json()
        return f"{got['headers']['x-version']} {got['body']}"

    versions = [
        ("two", (BODY,), "two two:x"),
        ("three", (BODY, RESPONSE), "three three:x"),
        ("four", (), "four x"),
        ("five", (BODY,), "five five:x"),
    ]
    with httpx.Client(timeout=30) as client, _asking(stack, ask) as seen:
        for version, methods, answer in versions:
            stack.write(GATEWAY, _source(version, *methods), backend=_address(stack))
            stack.publish()
            wait_for(lambda answer=answer: ask(client) == answer, f"version {version}")
    assert set(seen) <= {"one x", *(answer for _, _, answer in versions)}


def _address(stack: Stack) -> str:
    text = (stack.folder / "gateway.yaml").read_text()
    return text.partition('endpoints: ["')[2].partition('"')[0]


def test_a_version_that_cannot_be_imported_leaves_the_last_good_one(stack: Stack) -> None:
    broken = {"p.py": _source("two", BODY)["p.py"] + "\nraise RuntimeError('no luck')\n"}
    stack.write(GATEWAY, broken, backend=_address(stack))
    stack.publish()
    stack.policy_server.says("no luck")
    assert _post(stack).json()["headers"]["x-version"] == "one"


def test_down_closes_the_route_or_lets_pass_and_is_over_when_it_is_back(stack: Stack) -> None:
    def ask(client: httpx.Client) -> str:
        closed = client.post(stack.url + "/users", content=b"x")
        opened = client.post(stack.url + "/open", content=b"x")
        assert opened.status_code in (200, 500), opened.text
        reason = closed.headers.get("x-gateway-reason", "")
        return f"{closed.status_code} {reason}"

    with _asking(stack, ask) as seen:
        stack.policy_server.stop(signal.SIGKILL)
        refused = _post(stack)
        assert (refused.status_code, refused.json()["reason"]) == (503, "processor_unavailable")
        passed = _post(stack, "/open")
        assert passed.status_code == 200
        assert "x-version" not in passed.json()["headers"]
        stack.policy_server.start()
        _works(stack)
    assert set(seen) <= {"200 ", "503 processor_unavailable"}
    assert _post(stack).json()["headers"]["x-version"] == "one"


def test_frozen_closes_the_route_in_time(stack: Stack) -> None:
    stack.policy_server.signal(signal.SIGSTOP)
    try:
        refused = _post(stack)
        assert (refused.status_code, refused.json()["reason"]) == (503, "processor_unavailable")
        assert _post(stack, "/open").status_code == 200
    finally:
        stack.policy_server.signal(signal.SIGCONT)
    _works(stack)


def test_a_restart_finishes_what_is_under_way(stack: Stack) -> None:
    slow = HEAD.replace("        return", "        await asyncio.sleep(1)\n        return").replace(
        "VERSION", "slow"
    )
    stack.write(GATEWAY, {"p.py": f"import asyncio\n{slow}"}, backend=_address(stack))
    stack.publish()
    wait_for(lambda: _post(stack).json()["headers"]["x-version"] == "slow", "the slow version")
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(_post, stack)
        wait_for(lambda: stack.policy_server.status()["under_way"] == 1, "the request to be under way")
        assert stack.policy_server.stop() == 0
        assert asking.result().status_code == 200
    stack.policy_server.start()
    _works(stack)
