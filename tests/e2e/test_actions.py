"""What becomes of a request: forwarding, splitting, redirecting, answering, rewriting, retrying, limiting."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Self

import pytest
import websockets.asyncio.client
import websockets.asyncio.server

from tests.support.backend import Backend
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from tests.support.wait import wait_for

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams:
  one: {endpoints: ["$one"]}
  two: {endpoints: ["$two"]}
  pair: {endpoints: ["$one", "$two"], load_balancing: round_robin}
  ring: {endpoints: ["$one", "$two"], load_balancing: ring_hash}
  named: {endpoints: ["localhost:$one_port"], dns_family: v4}
  half: {endpoints: ["127.0.0.1:$dead", "$two"], load_balancing: round_robin}
  socket: {endpoints: ["127.0.0.1:$ws"]}
routes:
  prefix: {path: /api/users/*, upstream: one, rewrite: {path: /v1/*}}
  to-root: {path: /root/*, upstream: one, rewrite: {path: /*}}
  template: {path: "/users/{id}/orders/{order}", upstream: one, rewrite: {path: "/o/{order}/of/{id}"}}
  regex: {path: "/re/*", upstream: one, rewrite: {regex: "^/re/(\\\\d+)", substitution: "/n/\\\\1"}}
  named-group: {path: '~^/t/(?P<tenant>[a-z]+)/x$$', upstream: one, rewrite: {path: "/tenants/{tenant}"}}
  host: {path: /host, upstream: one, rewrite: {host: internal.example.com}}
  auto-host: {path: /auto-host, upstream: named, rewrite: {host: auto}}
  split: {path: /split, split: {one: 75, two: 25}}
  all-in-one: {path: /all-in-one, split: {one: 100, two: 0}}
  weighted:
    path: /weighted
    split:
      - {upstream: one, weight: 3, request_headers: {set: {x-share: one}}, response_headers: {set: {x-from: one}}}
      - {upstream: two, rewrite: {host: two.example.com}}
  shares:
    path: /shares/*
    request_headers: {set: {x-share: route}}
    split:
      - {upstream: one, weight: 2, rewrite: {path: /v1/*}, request_headers: {set: {x-share: one}}}
      - {upstream: two, rewrite: {host: two.example.com}}
      - {respond: {status: 503, body: closed}}
      - {upstream: two, weight: 0}
  no-405: {path: /no-405, methods: [GET], wrong_method: 404, upstream: one}
  mirror: {path: /mirror/*, upstream: one, mirror: two}
  url: {path: /docs, redirect: {to: "https://docs.example.com/x?y=1", status: 301}}
  keep: {path: /old/*, redirect: {path: /new/*, status: 308}}
  to-top: {path: /top/*, redirect: {path: /*}}
  other-site: {path: /site/*, redirect: {to: "https://other.example.com/*"}}
  named: {path: "/t/{tenant}/of/{id}", redirect: {path: "/{id}/by/{tenant}", status: 307}}
  secure: {path: /secure, redirect: {scheme: https, port: 8443, strip_query: true}}
  https: {path: /to-https/*, redirect: {scheme: https}}
  https-path: {path: /to-https-path, redirect: {scheme: https, path: /new, status: 308}}
  https-host: {path: /to-https-host, redirect: {scheme: https, host: b.example.com}}
  text: {path: /ping, respond: {body: pong, headers: {x-share: "100%"}}}
  json: {path: /json, respond: {status: 201, body: {a: 1, b: [true, null], c: "50%"}}}
  empty: {path: /empty, respond: {status: 204}}
  slow: {path: /slow, upstream: one, timeout: 200ms}
  idle: {path: /idle, upstream: one, timeout: 0s, idle_timeout: 200ms}
  retried: {path: /retried, upstream: half, retry: {attempts: 3, on: [connect-failure], backoff: 1ms}}
  by-status: {path: /by-status, upstream: one, retry: {attempts: 2, on: ["503"], backoff: 1ms}}
  per-try: {path: /per-try, upstream: one, timeout: 20s, retry: {attempts: 1, on: [5xx], per_try_timeout: 500ms}}
  hedged: {path: /hedged, upstream: pair, timeout: 20s, hedge: {}, retry: {attempts: 1, on: [5xx], per_try_timeout: 300ms}}
  cookie: {path: /cookie, upstream: pair, session_affinity: {cookie: node}}
  by-header: {path: /by-header, upstream: ring, session_affinity: {header: x-user}}
  by-query: {path: /by-query, upstream: ring, session_affinity: {query: user}}
  by-address: {path: /by-address, upstream: ring, session_affinity: {client_address: true}}
  small: {path: /small, upstream: one, max_body: 1KiB}
  websocket: {path: /ws, upstream: socket, websocket: true, timeout: 3s}
  both: {path: /both, upstream: one, websocket: true, max_body: 1KiB}
  limited-websocket: {path: /limited-ws, upstream: socket, websocket: true, max_body: 1KiB}
  no-websocket: {path: /no-ws, upstream: socket}
"""


class Echo:
    """A WebSocket server that echoes, in a thread of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        self._server = await websockets.asyncio.server.serve(echo, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture(scope="module")
def one() -> Iterator[Backend]:
    with Backend("one") as backend:
        yield backend


@pytest.fixture(scope="module")
def two() -> Iterator[Backend]:
    with Backend("two") as backend:
        yield backend


@pytest.fixture(scope="module")
def gateway(gateways: Gateways, one: Backend, two: Backend) -> Iterator[Gateway]:
    with Echo() as echo:
        yield gateways.start(
            YAML, one=one.address, two=two.address, one_port=one.port, ws=echo.port, dead=free_port()
        )


@pytest.fixture(autouse=True)
def fresh(one: Backend, two: Backend) -> Iterator[None]:
    yield
    for backend in (one, two):
        if backend.release is not None:
            backend.release.set()
        backend.release, backend.status = None, 200
        backend.seen.clear()


@pytest.mark.parametrize(
    ("host", "path", "location"),
    [
        ("a.example.com:8080", "/to-https/x?y=1", "https://a.example.com:443/to-https/x?y=1"),
        ("a.example.com", "/to-https/x?y=1", "https://a.example.com/to-https/x?y=1"),
        ("[::1]:8080", "/to-https/", "https://[::1]:443/to-https/"),
        ("[::1]", "/to-https/", "https://[::1]/to-https/"),
        ("a.example.com:8080", "/to-https-path", "https://a.example.com:443/new"),
        ("a.example.com:8080", "/to-https-host", "https://b.example.com/to-https-host"),
        ("a.example.com:8080", "/secure", "https://a.example.com:8443/secure"),
    ],
)
def test_a_redirect_to_another_scheme_goes_to_its_port(
    gateway: Gateway, host: str, path: str, location: str
) -> None:
    answer = gateway.get(path, headers={"host": host})
    assert answer.headers["location"] == location


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/api/users/7?x=1", "/v1/7?x=1"),
        ("/api/users", "/v1"),
        ("/api/users/", "/v1/"),
        ("/root/a/b", "/a/b"),
        ("/root", "/"),
        ("/users/7/orders/9", "/o/9/of/7"),
        ("/re/12/x", "/n/12/x"),
        ("/t/acme/x", "/tenants/acme"),
    ],
)
def test_paths_are_rewritten(gateway: Gateway, path: str, seen: str) -> None:
    assert gateway.get(path).json()["path"] == seen


def test_hosts_are_rewritten(gateway: Gateway) -> None:
    rewritten = gateway.get("/host", headers={"x-forwarded-host": "evil.test"}).json()["headers"]
    assert rewritten["host"] == "internal.example.com"
    assert rewritten["x-forwarded-host"] == gateway.url.removeprefix("http://")
    assert gateway.get("/auto-host").json()["headers"]["host"] == "localhost"
    assert gateway.get("/mirror/x").json()["headers"]["host"].startswith("127.0.0.1:")


def test_a_split_follows_its_weights(gateway: Gateway) -> None:
    with gateway.client() as client:
        seen = Counter(client.get("/split").json()["backend"] for _ in range(400))
        assert 220 < seen["one"] < 380
        assert seen["one"] + seen["two"] == 400
        assert {client.get("/all-in-one").json()["backend"] for _ in range(20)} == {"one"}


def test_each_backend_of_a_split_changes_its_own_requests(gateway: Gateway) -> None:
    with gateway.client() as client:
        weighted = [client.get("/weighted") for _ in range(200)]
        for response in weighted:
            seen = response.json()
            one = seen["backend"] == "one"
            assert (seen["headers"].get("x-share"), response.headers.get("x-from")) == (
                ("one",) * 2 if one else (None,) * 2
            )
            assert (seen["headers"]["host"] == "two.example.com") is not one
        assert 110 < sum(one.json()["backend"] == "one" for one in weighted) < 190


def test_a_share_of_a_split_has_a_path_or_a_response_of_its_own(gateway: Gateway) -> None:
    with gateway.client() as client:
        responses = [client.get("/shares/x?y=1") for _ in range(400)]
    closed = [one for one in responses if one.status_code == 503]
    forwarded = [one.json() for one in responses if one.status_code == 200]
    assert {one.text for one in closed} == {"closed"}
    assert {(one["backend"], one["path"], one["headers"]["x-share"]) for one in forwarded} == {
        ("one", "/v1/x?y=1", "one"),
        ("two", "/shares/x?y=1", "route"),
    }
    assert len(closed) + len(forwarded) == 400
    assert 60 < len(closed) < 140
    assert 150 < sum(one["backend"] == "one" for one in forwarded) < 250


def test_a_route_may_leave_other_methods_unknown(gateway: Gateway) -> None:
    assert gateway.request("POST", "/no-405").status_code == 404


def test_a_mirror_sees_a_copy_and_its_answer_is_thrown_away(gateway: Gateway, two: Backend) -> None:
    two.status = 500
    answer = gateway.request("POST", "/mirror/x", content=b"body")
    assert answer.status_code == 200
    assert answer.json()["backend"] == "one"
    (copy,) = wait_for(lambda: list(two.seen), "the copy")
    assert (copy["method"], copy["path"], copy["body"]) == ("POST", "/mirror/x", "body")


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/docs", 301, "https://docs.example.com/x?y=1"),
        ("/old/a?b=1", 308, "{url}/new/a?b=1"),
        ("/old", 308, "{url}/new"),
        ("/top", 302, "{url}/"),
        ("/top/a?b=1", 302, "{url}/a?b=1"),
        ("/site/a?b=1", 302, "https://other.example.com/a?b=1"),
        ("/t/acme/of/7", 307, "{url}/7/by/acme"),
        ("/secure?x=1", 302, "https://127.0.0.1:8443/secure"),
    ],
)
def test_redirects_name_the_other_address(gateway: Gateway, path: str, status: int, location: str) -> None:
    answer = gateway.get(path)
    assert answer.status_code == status
    assert answer.headers["location"] == location.format(url=gateway.url)


def test_the_gateway_answers_itself(gateway: Gateway) -> None:
    text, json, empty = gateway.get("/ping"), gateway.get("/json"), gateway.get("/empty")
    assert (text.status_code, text.text, text.headers["content-type"]) == (
        200,
        "pong",
        "text/plain; charset=utf-8",
    )
    assert text.headers["x-share"] == "100%"
    assert "x-gateway-reason" not in text.headers
    assert (json.status_code, json.json()) == (201, {"a": 1, "b": [True, None], "c": "50%"})
    assert json.headers["content-type"] == "application/json"
    assert (empty.status_code, empty.content) == (204, b"")


@pytest.mark.parametrize("path", ["/slow", "/idle"])
def test_an_answer_that_does_not_come_is_504(gateway: Gateway, one: Backend, path: str) -> None:
    one.release = threading.Event()
    answer = gateway.get(path)
    assert answer.status_code == 504
    assert answer.json()["status"] == 504
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_connection_that_fails_is_tried_elsewhere(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert {client.get("/retried").json()["backend"] for _ in range(8)} == {"two"}


def test_a_status_may_be_retried(gateway: Gateway, one: Backend) -> None:
    one.status = 503
    assert gateway.get("/by-status").status_code == 503
    assert len(one.seen) == 3


def test_each_try_has_its_own_time_limit(gateway: Gateway, one: Backend) -> None:
    one.release = threading.Event()
    assert gateway.get("/per-try").status_code == 504
    wait_for(lambda: len(one.seen) == 2, "both tries to be read")


def test_a_hedge_takes_the_answer_that_comes_first(gateway: Gateway, one: Backend) -> None:
    one.release = threading.Event()
    with gateway.client() as client:
        assert {client.get("/hedged").json()["backend"] for _ in range(3)} == {"two"}
    assert one.seen


def test_a_cookie_keeps_a_client_at_one_endpoint(gateway: Gateway) -> None:
    with gateway.client() as client:
        first = client.get("/cookie").json()["backend"]
        assert "node" in client.cookies
        assert {client.get("/cookie").json()["backend"] for _ in range(10)} == {first}


def test_a_value_keeps_a_client_at_one_endpoint(gateway: Gateway) -> None:
    with gateway.client() as client:
        by_header = {
            user: {client.get("/by-header", headers={"x-user": user}).json()["backend"] for _ in range(4)}
            for user in map(str, range(12))
        }
        by_query = {
            user: {client.get("/by-query", params={"user": user}).json()["backend"] for _ in range(4)}
            for user in map(str, range(12))
        }
        by_address = {client.get("/by-address").json()["backend"] for _ in range(8)}
    for found in (by_header, by_query):
        assert all(len(backends) == 1 for backends in found.values())
        assert set().union(*found.values()) == {"one", "two"}
    assert len(by_address) == 1


def test_a_body_above_the_limit_is_413(gateway: Gateway, one: Backend) -> None:
    assert gateway.request("POST", "/small", content=b"x" * 1000).status_code == 200
    one.seen.clear()
    answer = gateway.request("POST", "/small", content=b"x" * 2000)
    assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
    assert one.seen == []


async def test_websocket_messages_pass_both_ways_beyond_the_routes_timeout(gateway: Gateway) -> None:
    uri = gateway.url.replace("http", "ws")
    async with websockets.asyncio.client.connect(f"{uri}/ws", open_timeout=30) as connection:
        for message in ("one", "two"):
            await connection.send(message)
            assert await connection.recv() == message
        await asyncio.sleep(3.2)  # longer than the route's timeout, which must not count for an upgrade
        await connection.send("three")
        assert await connection.recv() == "three"


async def test_a_limit_on_bodies_does_not_hold_an_upgrade_back(gateway: Gateway) -> None:
    uri = gateway.url.replace("http", "ws")
    async with websockets.asyncio.client.connect(f"{uri}/limited-ws", open_timeout=30) as connection:
        for message in ("one", "x" * 5000):
            await connection.send(message)
            assert await connection.recv() == message


async def test_an_upgrade_is_refused_where_the_route_does_not_allow_it(gateway: Gateway) -> None:
    uri = gateway.url.replace("http", "ws")
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await websockets.asyncio.client.connect(f"{uri}/no-ws", open_timeout=30)
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["x-gateway-reason"] == "upgrade_not_allowed"


def test_no_header_of_an_upgrade_lifts_the_limits_of_other_requests(gateway: Gateway, one: Backend) -> None:
    answer = gateway.request("POST", "/both", content=b"x" * 2000, headers={"upgrade": "websocket"})
    assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
    assert one.seen == []
