"""Aggregates through the real Envoy: the client's request goes to the composer, and its calls go back through Envoy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import Served
from tests.support.scripted_backend import Script, ScriptedBackend

GATEWAY = """
listeners: {http: {port: $port, access_log: true}}
upstreams:
  users: {endpoints: [$users]}
  orders: {endpoints: [$orders]}
routes:
  version: {path: /version, respond: {body: "$version"}}
  home:
    path: /home/{id}
    timeout: 2s
    aggregate:
      calls:
        user: {upstream: users, path: "/users/{id}"}
        orders: {upstream: orders, path: "/orders?user={call:user.id}", optional: true}
      response:
        name: {from: call:user.name}
        orders: {from: call:orders.items, default: []}
"""


@pytest.fixture(scope="module")
def users() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        yield running


@pytest.fixture(scope="module")
def orders() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, users: ScriptedBackend, orders: ScriptedBackend
) -> Iterator[Served]:
    root = Path(tmp_path_factory.mktemp("aggregate"))
    running = Served(root, GATEWAY, users=users.address, orders=orders.address)
    running.write("1")
    with running:
        running.until("1")
        yield running


def test_a_call_uses_the_answer_of_another(
    served: Served, users: ScriptedBackend, orders: ScriptedBackend
) -> None:
    users.answer("/users/7", {"id": 70, "name": "Ada", "secret": "x"})
    orders.answer("/orders", {"items": [{"id": 1}, {"id": 2.50}]})
    response = served.get("/home/7")
    assert (response.status_code, response.json()) == (
        200,
        {"name": "Ada", "orders": [{"id": 1}, {"id": 2.5}]},
    )
    assert orders.paths()[-1] == "/orders?user=70"
    assert "x-gateway-partial" not in response.headers


def test_an_optional_call_that_fails_is_left_out_and_told(
    served: Served, users: ScriptedBackend, orders: ScriptedBackend
) -> None:
    users.answer("/users/8", {"id": 80, "name": "Bob"})
    orders.answer("/orders", {"secret": "of the backend"}, status=503)
    response = served.get("/home/8")
    assert response.status_code == 200
    assert response.json() == {"name": "Bob", "orders": [], "_errors": [{"call": "orders", "status": 503}]}
    assert response.headers["x-gateway-partial"] == "orders"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Script(json={"secret": 1}, status=404), 404, "call_rejected"),
        (Script(json={"secret": 1}, status=500), 502, "call_failed"),
        (Script(json={"secret": 1}, status=302), 502, "call_failed"),
        (Script(body=b"<p>secret</p>"), 502, "call_failed"),
        (Script(json="secret" * 100, cut_off=True), 502, "call_failed"),
        (Script(json="secret" * 200_000), 502, "call_failed"),
        (Script(json=1, release=threading.Event()), 504, "call_timeout"),
    ],
    ids=["rejected", "failed", "redirected", "no JSON", "cut off", "too large", "slow"],
)
def test_a_required_call_decides_the_status(
    served: Served, users: ScriptedBackend, answer: Script, status: int, reason: str
) -> None:
    users.answers["/users/9"] = answer
    response = served.get("/home/9")
    assert (response.status_code, response.headers["x-gateway-reason"]) == (status, reason)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["reason"], problem["call"]) == (status, reason, "user")
    assert "secret" not in response.text
    assert "x-gateway-composer-reason" not in response.headers
    served.says(f'"reason":"{reason}"')
