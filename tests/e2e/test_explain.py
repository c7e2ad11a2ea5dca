"""`xds explain` says what Envoy does: random gateways and random requests, told by both."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest
import yaml

from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from xds_server.translate.explain import Explanation, Request, explain

SEEDS = range(8)
REQUESTS = 60
SEGMENTS = ["a", "b", "ab", "x1"]
HOSTS = ["api.example.com", "www.example.com", "example.com", "deep.api.example.com", "other.test"]


def _path(rng: random.Random) -> str:
    base = "".join(f"/{rng.choice(SEGMENTS)}" for _ in range(rng.randint(1, 3)))
    kinds = [base, f"{base}/*", f"{base}/{{id}}", f"{base}/{{id}}/b", f"~^{base}/[ab]+$", f"~{base}", "/*"]
    return rng.choice(kinds)


def _match(rng: random.Random) -> dict[str, Any]:
    value = rng.choice(["1", "one", "x1"])
    return rng.choice([
        {"exact": value}, {"prefix": value[0]}, {"suffix": value[-1]}, {"contains": value}, {"present": True},
        {"present": False}, {"regex": "[0-9]+"}, {"exact": value, "not": True},
        {"prefix": value[0], "not": True}, {"suffix": value[-1], "not": True}, {"contains": value, "not": True},
    ])  # fmt: skip


def _listeners(seed: int) -> dict[str, Any]:
    """One listener, or several that share its port by their hosts."""
    address = {"port": free_port(), "address": "127.0.0.1"}
    if seed % 2 == 0:
        return {f"l{seed}": address}
    hosts = random.Random(seed).sample([*HOSTS, "*.example.com", "*.api.example.com"], 4)
    found = {f"l{seed}": {**address, "hosts": hosts[:2]}, f"l{seed}-more": {**address, "hosts": hosts[2:]}}
    return found if seed % 4 == 1 else {**found, f"l{seed}-rest": address}


def _route(rng: random.Random, listeners: list[str], name: str) -> dict[str, Any]:
    of_listeners = random.Random(name)
    listeners = of_listeners.sample(listeners, of_listeners.randint(1, len(listeners)))
    route: dict[str, Any] = {"path": _path(rng), "listeners": listeners, "respond": {"body": name}}
    if rng.random() < 0.4:
        hosts = [*HOSTS, "*.example.com", "*.api.example.com"]
        route["hosts"] = rng.sample(hosts, rng.randint(1, 2))
    if rng.random() < 0.4:
        route["methods"] = rng.sample(["GET", "POST", "PUT", "DELETE"], rng.randint(1, 2))
    if rng.random() < 0.25:
        route["headers"] = {"x-one": _match(rng)}
    if rng.random() < 0.25:
        route["query"] = {"q": _match(rng)}
    return route


def _unique(routes: dict[str, Any]) -> dict[str, Any]:
    """Without those that no request can tell from another one."""
    seen: dict[str, str] = {}
    for name, route in list(routes.items()):
        shape = {key: value for key, value in route.items() if key not in ("respond", "hosts", "listeners")}
        key = repr(sorted(shape.items(), key=str))
        if key in seen:
            del routes[name]
        seen.setdefault(key, name)
    return routes


def _request(rng: random.Random, port: int) -> tuple[str, str, dict[str, str]]:
    path = "".join(f"/{rng.choice([*SEGMENTS, 'aa', 'abab', '..', ''])}" for _ in range(rng.randint(1, 4)))
    query = rng.choice(["", "", "?q=1", "?q=one", "?q=x1&q=2", "?q=2&q=x1", "?q=11", "?p=1", "?q"])
    headers = {"host": f"{rng.choice(HOSTS)}:{port}"}
    if rng.random() < 0.5:
        headers["x-one"] = rng.choice(["1", "one", "x1", ""])
    return rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH"]), path + query, headers


@pytest.fixture(scope="module")
def gateway(gateways: Gateways) -> Gateway:
    listeners: dict[str, Any] = {}
    routes: dict[str, Any] = {}
    for seed in SEEDS:
        rng = random.Random(seed)
        here = _listeners(seed)
        listeners |= here
        made = {f"g{seed}-r{number}": _route(rng, [*here], f"g{seed}-r{number}") for number in range(14)}
        routes |= _unique(made)
    return gateways.start("$all", all=yaml.safe_dump({"listeners": listeners, "routes": routes}))


@pytest.mark.parametrize("seed", SEEDS)
def test_explain_agrees_with_envoy(gateway: Gateway, seed: int) -> None:
    rng = random.Random(1000 + seed)
    compiled = gateway.compiled.gateway
    port = compiled.sections.listeners[f"l{seed}"].port
    matched = 0
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        for _ in range(REQUESTS):
            method, target, headers = _request(rng, port)
            answer = _raw(client, method, target, headers)
            request = Request(method=method, url=f"http://{headers['host']}{target}", headers=headers)
            told = explain(compiled, request)
            assert _seen(answer) == _told(told), (method, target, headers, told)
            matched += told.route is not None
    assert matched > REQUESTS // 10


def _raw(client: httpx.Client, method: str, target: str, headers: dict[str, str]) -> httpx.Response:
    """A request whose path is sent as it is."""
    url = httpx.URL(client.base_url).copy_with(raw_path=target.encode())
    return client.send(httpx.Request(method, url, headers=headers))


def _seen(answer: httpx.Response) -> str:
    if answer.status_code == 405:
        return f"405 with Allow: {answer.headers['allow']}"
    return answer.text if answer.status_code == 200 else str(answer.status_code)


def _told(told: Explanation) -> str:
    if told.route is not None:
        return told.route
    return told.action if told.action.startswith("405") else told.action[:3]
