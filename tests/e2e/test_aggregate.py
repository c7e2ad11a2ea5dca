"""Aggregates through the real Envoy: the client's request goes to the composer, and its calls go back through Envoy."""

from __future__ import annotations

import hashlib
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import tokens
from tests.support.folder import write
from tests.support.running import Served
from tests.support.scripted_backend import Script, ScriptedBackend

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1, access_log: true}}
upstreams:
  users: {endpoints: [$users]}
  orders: {endpoints: [$orders]}
  away: {endpoints: ["127.0.0.1:9"]}
identity: {corp: {issuer: "https://idp.test", audiences: [shop], jwks: {file: keys.json}, claim_headers: {sub: x-user}}}
plans: {free: {rate_limit: 2/hour}}
consumers:
  acme: {plan: free, api_keys: [{sha256: $acme}]}
  app: {jwt: {provider: corp, claim: azp, value: app}}
errors: {call_failed: {status: 503, title: Later, headers: {x-sorry: "yes"}}}
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
  merged:
    path: /merged
    aggregate:
      errors: off
      calls:
        user: {upstream: users, path: /user, only: [id, name], rename: {name: full_name}}
        orders: {upstream: orders, path: /orders, target: data.items, group: orders}
        away: {upstream: away, path: /, optional: true}
  slow:
    path: /slow
    aggregate:
      calls:
        user: {upstream: users, path: /slow, optional: true, timeout: 50ms}
  waits: {path: /waits, timeout: 0s, aggregate: {calls: {user: {upstream: users, path: /waits}}}}
  repeated: {path: /repeated, retry: {attempts: 3, on: [5xx]}, aggregate: {calls: {user: {upstream: users, path: /repeated}}}}
  signup:
    path: /signup
    methods: [POST]
    aggregate:
      calls:
        account: {upstream: users, path: /accounts, body: {email: {from: body:email}}}
        mail: {upstream: orders, path: /mails, body: {to: {from: body:email}}}
  me:
    path: /me
    policies: {jwt: corp}
    aggregate:
      calls:
        user: {upstream: users, path: "/tenants/{claim:tenant}", headers: {x-ip: {from: ip}, x-name: {from: consumer, default: nobody}}}
  limited:
    path: /limited
    policies: {api_key: true, metering: true}
    aggregate: {calls: {user: {upstream: users, path: /limited}}, response: {who: {from: consumer}, plan: {from: plan}}}
  cached: {path: /cached, policies: {cache: 5m, cors: {allow_origins: ["https://shop.test"]}}, aggregate: {calls: {user: {upstream: users, path: /cached}}}}
  partial: {path: /partial, policies: {cache: 5m}, aggregate: {calls: {away: {upstream: away, path: /x, optional: true}}}}
  views:
    path: /views
    policies: {compression: true, fields: {by: "header:x-client", web: all, mobile: [id, orders.id], tv: [id]}}
    aggregate: {calls: {user: {upstream: users, path: /user}, orders: {upstream: orders, path: /items, group: orders}}}
  echo: {path: /echo, upstream: users}
"""


@pytest.fixture(scope="module")
def users() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        yield running


@pytest.fixture(scope="module")
def orders() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as running:
        yield running


def made(root: Path, users: ScriptedBackend, orders: ScriptedBackend, text: str = GATEWAY) -> Served:
    acme = hashlib.sha256(b"k-acme").hexdigest()
    running = Served(root, text, users=users.address, orders=orders.address, acme=acme)
    write(running.folder, {"keys.json": tokens.jwks()})
    running.write("1")
    return running


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, users: ScriptedBackend, orders: ScriptedBackend
) -> Iterator[Served]:
    with made(tmp_path_factory.mktemp("aggregate"), users, orders) as running:
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


def test_answers_are_merged(served: Served, users: ScriptedBackend, orders: ScriptedBackend) -> None:
    users.answer("/user", {"id": 1, "name": "Ada", "secret": "x"})
    orders.answer("/orders", {"data": {"items": [1, 2]}})
    response = served.get("/merged")
    assert response.json() == {"id": 1, "full_name": "Ada", "orders": [1, 2]}
    assert response.headers["x-gateway-partial"] == "away"
    served.says('"partial":"away"')


def test_an_optional_call_that_fails_is_left_out_and_told(
    served: Served, users: ScriptedBackend, orders: ScriptedBackend
) -> None:
    users.answer("/users/8", {"id": 80, "name": "Bob"})
    orders.answer("/orders", {"secret": "of the backend"}, status=503)
    response = served.get("/home/8")
    assert response.status_code == 200
    assert response.json() == {"name": "Bob", "orders": [], "_errors": [{"call": "orders", "status": 503}]}
    assert response.headers["x-gateway-partial"] == "orders"


def test_an_optional_call_has_its_own_time(served: Served, users: ScriptedBackend) -> None:
    script = users.answer("/slow", {}, release=threading.Event())
    assert served.get("/slow").json() == {"_errors": [{"call": "user", "reason": "timeout"}]}
    assert script.given_up.wait(30)


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Script(json={"secret": 1}, status=404), 404, "call_rejected"),
        (Script(json={"secret": 1}, status=500), 503, "call_failed"),
        (Script(json={"secret": 1}, status=302), 503, "call_failed"),
        (Script(body=b"<p>secret</p>"), 503, "call_failed"),
        (Script(json="secret" * 100, cut_off=True), 503, "call_failed"),
        (Script(json="secret" * 200_000), 503, "call_failed"),
        (Script(json=1, release=threading.Event()), 504, "call_timeout"),
        (Script(json="secret" * 100, held=True), 504, "call_timeout"),
    ],
    ids=["rejected", "failed", "redirected", "no JSON", "cut off", "too large", "slow", "slow body"],
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
    assert (problem["title"] == "Later") is (reason == "call_failed")  # by `errors`, as the status
    assert response.headers.get("x-sorry") == ("yes" if reason == "call_failed" else None)
    assert "secret" not in response.text
    assert "x-gateway-composer-reason" not in response.headers
    served.says(f'"reason":"{reason}"')


def test_the_client_that_leaves_ends_the_calls(served: Served, users: ScriptedBackend) -> None:
    script = users.answer("/waits", {}, release=threading.Event())
    with pytest.raises(httpx.ReadTimeout):
        served.get("/waits", timeout=0.3)
    assert script.given_up.wait(30)


def test_calls_that_change_nothing_are_repeated(served: Served, users: ScriptedBackend) -> None:
    users.answer("/repeated", {}, status=503)
    before = len(users.seen)
    served.get("/repeated")
    assert users.paths()[before:] == ["/repeated"] * 4


def test_a_write_is_reported_and_not_repeated(
    served: Served, users: ScriptedBackend, orders: ScriptedBackend
) -> None:
    users.answer("/accounts", {"id": 5})
    orders.answer("/mails", {}, status=500)
    before = len(orders.seen)
    url = f"{served.url}/signup"
    response = httpx.post(url, json={"email": "a@b.test"}, timeout=30)
    assert response.status_code == 503
    assert response.json()["calls"] == {"account": "done", "mail": "failed"}
    assert [(one.method, json.loads(one.body)) for one in orders.seen[before:]] == [
        ("POST", {"to": "a@b.test"})
    ]
    assert (
        httpx.post(url, content=b"<", headers={"content-type": "application/json"}, timeout=30).json()[
            "reason"
        ]
        == "malformed_body"
    )


def test_who_the_caller_is_comes_from_envoy_alone(served: Served, users: ScriptedBackend) -> None:
    users.answer("/tenants/t1", {"ok": True})
    headers = {
        "authorization": f"Bearer {tokens.token(tenant='t1', azp='app')}",
        "x-gateway-caller": '{"claims": {"tenant": "t2"}, "consumer": "evil"}',
        "x-gateway-composition": "limited",
        "x-gateway-upstream": "orders",
        "x-gateway-client-address": "9.9.9.9",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    response = served.get("/me", headers=headers)
    assert (response.status_code, response.json()) == (200, {"ok": True})
    sent = users.seen[-1].headers
    assert (sent["x-ip"], sent["x-name"], sent["x-user"]) == ("127.0.0.1", "app", "ann")
    assert sent["traceparent"] == headers["traceparent"]
    assert sent["x-request-id"]
    assert not [name for name in sent if name.startswith(("x-gateway-", "x-envoy-"))]
    assert served.get("/me").status_code == 401


def test_limits_and_metering_hold(served: Served, users: ScriptedBackend) -> None:
    users.answer("/limited", {})
    key = {"x-api-key": "k-acme"}
    statuses = [served.get("/limited", headers=key) for _ in range(3)]
    assert [one.status_code for one in statuses] == [200, 200, 429]
    assert statuses[0].json() == {"who": "acme", "plan": "free"}


def test_cache_and_cors_hold_and_nothing_partial_is_kept(served: Served, users: ScriptedBackend) -> None:
    users.answer("/cached", {"x": 1})
    before = len(users.seen)
    answers = [served.get("/cached", headers={"origin": "https://shop.test"}) for _ in range(2)]
    assert [one.json() for one in answers] == [{"x": 1}] * 2
    assert answers[1].headers["access-control-allow-origin"] == "https://shop.test"
    assert len(users.seen) == before + 1
    for _ in range(2):
        response = served.get("/partial")
        assert response.headers["cache-control"] == "no-store"
        assert "age" not in response.headers


def test_what_an_upstream_keeps_to_itself_is_not_cached(served: Served, users: ScriptedBackend) -> None:
    for name in ("alice", "bob"):
        users.answer("/cached", {"x": name}, headers={"cache-control": "private, no-store", "vary": "x-who"})
        response = served.get("/cached?mine", headers={"x-who": name})
        assert (response.json(), response.headers["cache-control"]) == ({"x": name}, "private, no-store")
        assert "x-who" in response.headers["vary"]


def test_each_kind_of_client_has_its_view(
    served: Served, users: ScriptedBackend, orders: ScriptedBackend
) -> None:
    users.answer("/user", {"id": 1, "name": "Ada" * 200})
    orders.answer("/items", [{"id": 1, "text": "x"}, {"id": 2, "text": "y"}])
    views = {name: served.get("/views", headers={"x-client": name}) for name in ("web", "mobile", "tv")}
    assert views["web"].json()["orders"] == [{"id": 1, "text": "x"}, {"id": 2, "text": "y"}]
    assert views["web"].headers["content-encoding"]
    assert views["mobile"].json() == {"id": 1, "orders": [{"id": 1}, {"id": 2}]}
    assert views["tv"].json() == {"id": 1}


def test_only_the_user_of_envoy_can_call_upstreams(served: Served) -> None:
    listeners = socket_of(served)
    mode = stat.S_IMODE(Path(listeners).stat().st_mode)
    assert mode & 0o077 == 0


def socket_of(served: Served) -> str:
    commands = [line for line in processes(served) if "composer" in line and "--calls" in line]
    words = commands[0].split("\0")
    return words[words.index("--calls") + 1].removeprefix("unix:")


def processes(served: Served) -> list[str]:
    """The commands of the processes that `xds run` has started."""
    assert served.process is not None
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]


def test_metrics_of_the_composer_are_those_of_the_control_plane_too(
    served: Served, users: ScriptedBackend
) -> None:
    users.answer("/users/10", {"id": 1})
    served.get("/home/10")
    text = httpx.get(f"http://{served.admin}/metrics/all", timeout=30).text
    assert 'xds_composer_requests_total{outcome="' in text
    assert "xds_composer_calls_total{" in text
