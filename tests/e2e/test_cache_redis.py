"""The cache with Redis: two Envoys with a policy server each, which share responses and purges through a real Valkey."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.valkey import Cluster, Valkey
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  public: {path: /public/*, upstream: echo, policies: {cache: 5m}}
  varied: {path: /varied/*, upstream: echo, policies: {cache: {ttl: 5m, vary: [x-lang]}}}
"""
HOST = {"host": "shop.test"}


class Pair(NamedTuple):
    """Two gateways that share a Redis, and their upstream."""

    one: Stack
    two: Stack
    valkey: Valkey
    echo: Backend

    def fetched(self, path: str) -> int:
        """How often the upstream was asked for a path with a GET."""
        return sum(seen["path"] == path and seen["method"] == "GET" for seen in self.echo.seen)


def start(stacks: Stacks, url: str, echo: Backend) -> Stack:
    return stacks.start(YAML, arguments=("--cache", url), echo=echo.address)


@pytest.fixture
def pair(tmp_path: Path, backend: Backend) -> Iterator[Pair]:
    backend.seen.clear()
    with Valkey(tmp_path) as valkey, Stacks(tmp_path) as stacks:
        found = Pair(start(stacks, valkey.url, backend), start(stacks, valkey.url, backend), valkey, backend)
        wait_for(lambda: shared(found, "/public/ready"), "the first shared response")
        yield found
    backend.headers, backend.status, backend.delay = {}, 200, 0  # type: ignore[attr-defined]


def get(stack: Stack, path: str, **headers: str) -> httpx.Response:
    return stack.get(path, headers={**HOST, **headers})


def hit(answer: httpx.Response) -> bool:
    assert answer.status_code == 200
    return answer.headers["cache-status"].startswith("gateway; hit")


def shared(pair: Pair, path: str) -> bool:
    """True if the second Envoy has a response that the first one has asked for."""
    get(pair.one, path)
    return hit(get(pair.two, path))


def outcomes(stack: Stack) -> dict[str, float]:
    lines = stack.policy_server.metrics().splitlines()
    found = (line.split() for line in lines if line.startswith("xds_cache_redis_lookups_total"))
    return {name.partition('"')[2].partition('"')[0]: float(value) for name, value in found}


def purge(stack: Stack, kind: str, value: str) -> None:
    answer = httpx.post(
        f"http://{stack.policy_server.admin}/cache/purge", json={"kind": kind, "value": value}, timeout=30
    )
    assert answer.status_code == 200, answer.text


def test_what_one_gateway_has_fetched_the_other_need_not(pair: Pair) -> None:
    first = get(pair.one, "/public/a")
    wait_for(lambda: len(values(pair)) >= 2, "the response in Redis")
    second = get(pair.two, "/public/a")
    assert hit(second)
    assert second.content == first.content
    assert pair.fetched("/public/a") == 1
    assert hit(get(pair.two, "/public/a"))
    assert outcomes(pair.two)["found"] == 2  # this one and that of the fixture: the memory has the rest


def values(pair: Pair) -> list[bytes]:
    found = pair.valkey.ask("KEYS", "xds:cache:*")
    assert isinstance(found, list)
    return [key for key in found if b"{purges}" not in key and not key.endswith(b":names")]


def test_responses_vary_there_too(pair: Pair) -> None:
    for lang in ("de", "fr"):
        get(pair.one, "/varied/a", **{"x-lang": lang})
    wait_for(lambda: len(values(pair)) >= 3, "both responses in Redis")
    for lang in ("de", "fr"):
        answer = get(pair.two, "/varied/a", **{"x-lang": lang})
        assert hit(answer)
        assert answer.json()["headers"]["x-lang"] == lang
    assert not hit(get(pair.two, "/varied/a", **{"x-lang": "es"}))


def test_every_value_expires(pair: Pair) -> None:
    get(pair.one, "/public/ttl")
    wait_for(lambda: len(values(pair)) >= 2, "the response in Redis")
    found = pair.valkey.ask("KEYS", "xds:cache:*")
    assert isinstance(found, list)
    left = {key: pair.valkey.ask("PTTL", key) for key in found if b"{purges}" not in key}
    assert all(isinstance(one, int) and 0 < one <= 300_000 for one in left.values()), left


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("url", "shop.test/public/p"),
        ("prefix", "shop.test/public/"),
        ("tag", "red"),
        ("all", ""),
    ],
)
def test_a_purge_holds_for_all_gateways(pair: Pair, kind: str, value: str) -> None:
    pair.echo.headers = {"cache-tag": "red, blue"}
    wait_for(lambda: shared(pair, "/public/p"), "the shared response")
    before = pair.fetched("/public/p")
    purge(pair.two, kind, value)
    for stack in (pair.one, pair.two):  # neither a worker's memory nor Redis has it any more
        wait_for(
            lambda stack=stack: not hit(get(stack, "/public/p")) or pair.fetched("/public/p") > before,
            "the purge",
        )
    assert before < pair.fetched("/public/p") <= before + 2
    wait_for(lambda: shared(pair, "/public/p"), "the new response")


def test_a_change_is_a_purge_for_all_gateways(pair: Pair) -> None:
    wait_for(lambda: shared(pair, "/public/c"), "the shared response")
    before = pair.fetched("/public/c")
    assert pair.one.request("POST", "/public/c", headers=HOST).status_code == 200
    assert not hit(get(pair.one, "/public/c"))
    wait_for(
        lambda: (get(pair.two, "/public/c"), pair.fetched("/public/c") > before)[1], "the change at the other"
    )


def test_another_purge_keeps_the_response(pair: Pair) -> None:
    wait_for(lambda: shared(pair, "/public/k"), "the shared response")
    purge(pair.one, "url", "shop.test/public/other")
    purge(pair.one, "tag", "other")
    purge(pair.one, "prefix", "shop.test/publicly")
    wait_for(lambda: pair.valkey.ask("XLEN", "xds:cache:{purges}:log") == 3, "the purges in Redis")
    assert hit(get(pair.one, "/public/k"))
    assert hit(get(pair.two, "/public/k"))


@pytest.mark.parametrize("how", ["cut", "other", "junk", "large", "other names", "junk of names"])
def test_a_value_that_is_not_whole_or_belongs_to_another_is_ignored(pair: Pair, how: str) -> None:
    known = set(values(pair))
    get(pair.one, "/public/poison")
    wait_for(lambda: len(values(pair)) > len(known), "the response in Redis")
    [key] = set(values(pair)) - known
    whole, other = pair.valkey.ask("GET", key), pair.valkey.ask("GET", next(iter(known)))
    names = key.rpartition(b":")[0] + b":names"
    assert isinstance(whole, bytes)
    assert isinstance(other, bytes)
    changed: dict[str, tuple[bytes, bytes]] = {
        "cut": (key, whole[:-1]),
        "other": (key, other),
        "junk": (key, b"\0" * 100),
        "large": (key, whole + b"x" * (5 << 20)),
        "other names": (names, b'["accept", "accept-encoding"]'),
        "junk of names": (names, b"{"),
    }
    place, value = changed[how]
    pair.valkey.ask("SET", place.decode(), value.decode("latin-1") if value.isascii() else value)  # type: ignore[arg-type]
    answer = get(pair.two, "/public/poison")
    assert answer.status_code == 200
    assert not hit(answer)
    assert pair.fetched("/public/poison") == 2


def test_a_redis_that_has_lost_everything_is_filled_again(pair: Pair) -> None:
    wait_for(lambda: shared(pair, "/public/l"), "the shared response")
    pair.valkey.ask("FLUSHALL")
    wait_for(lambda: pair.valkey.ask("GET", "xds:cache:{purges}:epoch"), "the new log")
    before = pair.fetched("/public/l")
    # A purge in the lost log may not have been seen, so both forget what they have.
    wait_for(lambda: (get(pair.two, "/public/l"), pair.fetched("/public/l") > before)[1], "the loss")
    wait_for(lambda: shared(pair, "/public/new"), "a shared response")


class Load:
    """Requests to both gateways from four threads; `failed` are those without the status 200."""

    def __init__(self, pair: Pair) -> None:
        self._pair, self._end = pair, threading.Event()
        self.failed: list[object] = []
        self.done = 0
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        stack, at = (self._pair.one, self._pair.two)[number % 2], 0
        with httpx.Client(base_url=stack.url, headers=HOST, timeout=30) as client:
            while not self._end.is_set():
                at += 1
                try:
                    answer = client.get(f"/public/load-{at % 50}-{at // 500}")
                except httpx.HTTPError as error:
                    self.failed.append(error)
                else:
                    self.done += 1
                    if answer.status_code != 200:
                        self.failed.append(answer)

    def more(self, number: int = 300) -> None:
        """Wait for so many more responses."""
        until = self.done + number
        wait_for(lambda: self.done >= until, "more responses")


def test_no_request_fails_while_redis_is_paused_or_gone(pair: Pair) -> None:
    with Load(pair) as load:
        load.more()
        pair.valkey.signal(signal.SIGSTOP)
        load.more()
        pair.one.policy_server.says("redis of the cache does not answer")
        load.more()
        pair.valkey.signal(signal.SIGCONT)
        pair.one.policy_server.says("redis of the cache answers again")
        load.more()
        pair.valkey.kill()
        load.more()
        purge(pair.one, "all", "")
        load.more()
        pair.valkey.start()
        wait_for(lambda: pair.valkey.ask("XLEN", "xds:cache:{purges}:log"), "the purge that had to wait")
        load.more()
    assert load.failed == []
    wait_for(lambda: shared(pair, "/public/again"), "a shared response")


def test_a_cluster_is_a_redis_too(tmp_path: Path, backend: Backend) -> None:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tmp_path))
        stacks = stack.enter_context(Stacks(tmp_path))
        pair = Pair(*(start(stacks, cluster.url, backend) for _ in range(2)), cluster.nodes[0], backend)
        for number in range(6):
            wait_for(lambda number=number: shared(pair, f"/public/{number}"), "the shared response")
        before = pair.fetched("/public/1")
        purge(pair.one, "url", "shop.test/public/1")
        wait_for(lambda: (get(pair.two, "/public/1"), pair.fetched("/public/1") > before)[1], "the purge")
