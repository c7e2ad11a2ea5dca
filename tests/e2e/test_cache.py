"""cache through a real Envoy and a policy server: what is stored, for whom, for how long, and what is purged."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for
from xds_server.cli.main import main

KEYS = {"acme": "k-acme", "beta": "k-beta"}
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
identity: {corp: {issuer: "https://idp.test", audiences: [shop], jwks: {file: keys.json}, claim_headers: {sub: x-user}}}
plans: {gold: {}}
consumers:
  acme: {plan: gold, api_keys: [{sha256: $acme}]}
  beta: {plan: gold, api_keys: [{sha256: $beta}]}
  app: {plan: gold, jwt: {provider: corp, claim: azp, value: app}}
routes:
  told: {path: /told/*, upstream: echo, policies: {cache: {}}}
  ttl:
    path: /ttl/*
    upstream: echo
    rewrite: {path: /rewritten/*}
    response_headers: {add: {x-added: "1"}, set: {x-set: "2"}}
    policies: {cache: 5m}
  short: {path: /short/*, upstream: echo, policies: {cache: {ttl: 1s, stale_while_revalidate: 60s, stale_if_error: 60s}}}
  error: {path: /error/*, upstream: echo, policies: {cache: {ttl: 1s, stale_if_error: 60s}}}
  override: {path: /override/*, upstream: echo, policies: {cache: {ttl: 5m, override: true, obey_clients: false}}}
  vary: {path: /vary/*, upstream: echo, policies: {cache: {ttl: 5m, vary: [x-tenant]}}}
  mine: {path: /mine/*, upstream: echo, policies: {api_key: true, cache: 5m, rate_limit: {requests: 1000000, per: hour}}}
  users: {path: /users/*, upstream: echo, policies: {jwt: corp, cache: 5m}}
  plan: {path: /plan/*, upstream: echo, policies: {api_key: true, cache: {ttl: 5m, by: plan}}}
  tenants: {path: /tenants/*, upstream: echo, policies: {cache: {ttl: 5m, by: "header:x-tenant"}}}
  small: {path: /small/*, upstream: echo, policies: {cache: {ttl: 5m, max_body: 1KB}}}
  limited: {path: /limited/*, upstream: echo, policies: {cache: 5m, rate_limit: {requests: 3, per: hour, exact: true}}}
  fields: {path: /fields/*, upstream: echo, policies: {cache: 5m, fields: {by: "query:view", small: [path]}}}
  packed: {path: /packed/*, upstream: echo, policies: {cache: 5m, compression: true}}
"""


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    return stacks.start(YAML, files={"keys.json": tokens.jwks()}, echo=backend.address, **hashes)


@pytest.fixture
def echo(backend: Backend) -> Iterator[Backend]:
    backend.seen.clear()
    yield backend
    backend.status, backend.body, backend.headers = 200, None, {}


numbers = count()


def fresh(route: str) -> str:
    """A path that no test has asked for."""
    return f"/{route}/{next(numbers)}"


def cache_status(answer: httpx.Response) -> str:
    return answer.headers["cache-status"]


def test_a_response_is_stored_as_long_as_it_says(stack: Stack, echo: Backend) -> None:
    echo.headers = {"cache-control": "max-age=60", "etag": '"v1"', "x-more": "m"}
    path = fresh("told")
    first, second = stack.get(path), stack.get(path)
    assert cache_status(first) == "gateway; fwd=uri-miss; stored"
    assert cache_status(second).startswith("gateway; hit; ttl=")
    assert len(echo.seen) == 1
    assert second.content == first.content
    assert int(second.headers["age"]) >= 0
    assert (second.headers["etag"], second.headers["x-more"]) == ('"v1"', "m")
    assert second.headers["content-type"] == "application/json"
    assert second.headers["content-length"] == str(len(first.content))


NOT_STORED: list[dict[str, str]] = [
    {},
    {"cache-control": "no-store, max-age=60"},
    {"cache-control": "private, max-age=60"},
    {"cache-control": "no-cache, max-age=60"},
    {"cache-control": "max-age=0"},
    {"cache-control": "max-age=60", "age": "60"},
    {"cache-control": "max-age=60", "set-cookie": "a=b"},
    {"cache-control": "max-age=60", "vary": "*"},
    {"cache-control": "max-age=60, max-age=0"},
    {"expires": "0"},
    {"expires": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"cache-control": "s-maxage=0, max-age=60"},
]


@pytest.mark.parametrize("headers", NOT_STORED, ids=str)
def test_what_must_not_be_stored_is_not(stack: Stack, echo: Backend, headers: dict[str, str]) -> None:
    echo.headers = headers
    path = fresh("told")
    for number in (1, 2):
        assert "stored" not in cache_status(stack.get(path))
        assert len(echo.seen) == number


@pytest.mark.parametrize(
    "headers",
    [
        {"cache-control": "s-maxage=60, max-age=0"},
        {"cache-control": 'public, max-age="60"'},
        {"cache-control": "MAX-AGE=60"},
        {"expires": "Fri, 31 Dec 2100 23:59:59 GMT"},
    ],
    ids=str,
)
def test_what_may_be_stored_is(stack: Stack, echo: Backend, headers: dict[str, str]) -> None:
    echo.headers = headers
    path = fresh("told")
    stack.get(path)
    assert "hit" in cache_status(stack.get(path))


def test_a_ttl_holds_for_responses_that_say_nothing(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    first, second = stack.get(path), stack.get(path)
    assert "hit; ttl=29" in cache_status(second)
    assert first.json()["path"].startswith("/rewritten/")
    for answer in (first, second):
        assert (answer.headers.get_list("x-added"), answer.headers.get_list("x-set")) == (["1"], ["2"])
    assert len(echo.seen) == 1
    echo.headers = {"cache-control": "no-store"}
    path = fresh("ttl")
    stack.get(path)
    assert "hit" not in cache_status(stack.get(path))


@pytest.mark.parametrize(
    ("status", "stored"), [(200, True), (404, True), (301, True), (302, False), (500, False), (204, False)]
)
def test_only_some_statuses_are_stored(stack: Stack, echo: Backend, status: int, stored: bool) -> None:
    echo.status, echo.body = status, b"" if status == 204 else b'{"a":1}'
    echo.headers = {"location": "/x"} if status in (301, 302) else {}
    path = fresh("ttl")
    first, second = (stack.get(path, follow_redirects=False) for _ in range(2))
    assert (first.status_code, second.status_code) == (status, status)
    assert ("hit" in cache_status(second)) == stored
    assert second.content == first.content
    assert "x-gateway-reason" not in second.headers
    assert second.headers.get("content-type") == first.headers.get("content-type")


def test_an_override_ignores_what_the_response_says(stack: Stack, echo: Backend) -> None:
    echo.headers = {"cache-control": "no-store"}
    path = fresh("override")
    stack.get(path)
    assert "hit" in cache_status(stack.get(path, headers={"cache-control": "no-cache"}))
    echo.headers = {"set-cookie": "a=b"}
    path = fresh("override")
    stack.get(path)
    assert "hit" not in cache_status(stack.get(path))


def test_clients_may_ask_for_more(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    missing = stack.get(path, headers={"cache-control": "only-if-cached"})
    assert (missing.status_code, missing.json()["reason"]) == (504, "not_cached")
    for headers in (
        {"range": "bytes=0-1"},
        {"authorization": "x"},
        {"if-match": '"x"'},
        {"cache-control": "no-store"},
    ):
        several = [("cache-control", "only-if-cached"), *headers.items()]  # also of what is never stored
        assert stack.get(path, headers=several).status_code == 504
    assert not echo.seen
    stack.get(path)
    assert stack.get(path, headers={"cache-control": "only-if-cached"}).status_code == 200
    assert (
        cache_status(stack.get(path, headers={"cache-control": "no-cache"})) == "gateway; fwd=request; stored"
    )
    assert cache_status(stack.get(path, headers={"cache-control": "no-store"})) == "gateway; fwd=bypass"
    assert cache_status(stack.get(path, headers={"range": "bytes=0-1"})) == "gateway; fwd=bypass"
    assert cache_status(stack.get(path, headers={"authorization": "Bearer x"})) == "gateway; fwd=bypass"
    assert "hit" not in cache_status(stack.get(path, headers={"cache-control": "min-fresh=1000"}))
    assert cache_status(stack.get(path, headers={"cookie": "session=1"})) == "gateway; fwd=bypass"
    assert len(echo.seen) == 7


def test_conditional_requests_are_answered_from_the_cache(stack: Stack, echo: Backend) -> None:
    echo.headers = {"etag": 'W/"v1"', "last-modified": "Fri, 31 Dec 2021 23:59:59 GMT"}
    path = fresh("ttl")
    assert stack.get(path, headers={"if-none-match": '"v1"'}).status_code == 200
    assert "if-none-match" not in echo.seen[-1]["headers"]
    for headers in (
        {"if-none-match": '"v1"'},
        {"if-none-match": '"v0", W/"v1"'},
        {"if-none-match": "*"},
        {"if-modified-since": "Fri, 31 Dec 2021 23:59:59 GMT"},
        {"if-modified-since": "Sat, 01 Jan 2022 00:00:00 GMT"},
    ):
        answer = stack.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (304, b""), headers
        assert answer.headers["etag"] == 'W/"v1"'
    for headers in (
        {"if-none-match": '"v2"'},
        {"if-none-match": '"v2"', "if-modified-since": "Sat, 01 Jan 2022 00:00:00 GMT"},
        {"if-modified-since": "Thu, 30 Dec 2021 00:00:00 GMT"},
        {"if-modified-since": "nonsense"},
    ):
        assert stack.get(path, headers=headers).status_code == 200, headers
    assert len(echo.seen) == 1


def test_head_is_answered_from_a_get(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    head = stack.request("HEAD", path)
    assert "stored" not in cache_status(head)
    body = stack.get(path).content
    head = stack.request("HEAD", path)
    assert "hit" in cache_status(head)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(body)))


def test_responses_vary(stack: Stack, echo: Backend) -> None:
    echo.headers = {"vary": "Accept-Language, X-Unusual"}
    path = fresh("vary")
    asked = [
        {"accept-language": "de", "x-tenant": "a"},
        {"accept-language": "en", "x-tenant": "a"},
        {"accept-language": "de", "x-tenant": "b"},
        {"accept-language": "de", "x-tenant": "a", "x-unusual": "u"},
    ]
    first = stack.get(path, headers=asked[0])  # teaches the name of X-Unusual
    assert cache_status(first) == "gateway; fwd=uri-miss"
    for headers in asked:
        assert cache_status(stack.get(path, headers=headers)) == "gateway; fwd=vary-miss; stored"
    for headers in asked:
        answer = stack.get(path, headers=headers)
        assert "hit" in cache_status(answer)
        seen = answer.json()["headers"]
        assert {name: seen.get(name) for name in headers} == headers


def test_each_consumer_has_its_own(stack: Stack, echo: Backend) -> None:
    path = fresh("mine")
    for name, key in KEYS.items():
        for _ in range(2):
            assert stack.get(path, headers={"x-api-key": key}).json()["headers"]["x-consumer"] == name
    assert len(echo.seen) == 2
    assert stack.get(path).status_code == 401
    hit = stack.get(path, headers={"x-api-key": KEYS["acme"]})
    assert "hit" in cache_status(hit)
    assert hit.headers.get_list("x-ratelimit-limit") == ["1000000"]


def test_each_value_of_a_header_has_its_own(stack: Stack, echo: Backend) -> None:
    path = fresh("tenants")
    for tenant in ("a", "b", "a, b"):
        assert cache_status(stack.get(path, headers={"x-tenant": tenant})) == "gateway; fwd=uri-miss; stored"
        assert "hit" in cache_status(stack.get(path, headers={"x-tenant": tenant}))
    assert "hit" in cache_status(stack.get(path, headers=[("x-tenant", "a"), ("x-tenant", "b")]))
    for _ in range(2):
        assert cache_status(stack.get(path)) == "gateway; fwd=bypass"
    answer = stack.get(path, headers={"cache-control": "only-if-cached"})
    assert (answer.status_code, answer.json()["reason"]) == (504, "not_cached")


def test_users_of_one_consumer_are_kept_apart(stack: Stack, echo: Backend) -> None:
    path = fresh("users")
    for user in ("ann", "bob", "ann", "bob"):
        token = tokens.token(sub=user, azp="app")
        answer = stack.get(path, headers={"authorization": f"Bearer {token}"})
        assert answer.json()["headers"]["x-user"] == user
    assert len(echo.seen) == 2
    nobody = {"authorization": f"Bearer {tokens.token(sub=None, azp='app')}"}
    assert [cache_status(stack.get(path, headers=nobody)) for _ in range(2)] == ["gateway; fwd=bypass"] * 2


def test_a_plan_may_share(stack: Stack, echo: Backend) -> None:
    path = fresh("plan")
    assert "hit" not in cache_status(stack.get(path, headers={"x-api-key": KEYS["acme"]}))
    assert "hit" in cache_status(stack.get(path, headers={"x-api-key": KEYS["beta"]}))


def test_limits_count_hits(stack: Stack, echo: Backend) -> None:
    path = fresh("limited")
    assert [stack.get(path).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert len(echo.seen) == 1


def test_other_policies_change_hits(stack: Stack, echo: Backend) -> None:
    path = fresh("fields")
    whole = stack.get(path)
    stack.get(path + "?view=small")
    assert stack.get(path + "?view=small").json() == {"path": path + "?view=small"}
    assert stack.get(path).content == whole.content
    assert len(echo.seen) == 2


def test_a_hit_is_compressed(stack: Stack, echo: Backend) -> None:
    echo.body = json.dumps("a" * 2000).encode()
    path = fresh("packed")
    for _ in range(2):
        answer = stack.get(path, headers={"accept-encoding": "gzip"})
        assert (answer.headers["content-encoding"], answer.json()) == ("gzip", "a" * 2000)
    assert "hit" in cache_status(answer)
    assert stack.get(path, headers={"accept-encoding": "identity"}).json() == "a" * 2000


def test_a_large_body_is_not_stored(stack: Stack, echo: Backend) -> None:
    echo.body = b"x" * 2000
    path = fresh("small")
    for _ in range(2):
        assert "hit" not in cache_status(stack.get(path))
    assert len(echo.seen) == 2


def test_an_old_response_is_served_while_a_new_one_is_fetched(stack: Stack, echo: Backend) -> None:
    echo.headers = {"etag": '"v1"'}
    path = fresh("short")
    first = stack.get(path)
    wait_for(lambda: "fwd=stale" in cache_status(stack.get(path)), "the response to become old")
    assert echo.seen[-1]["headers"]["if-none-match"] == '"v1"'
    asked = len(echo.seen)
    echo.release = threading.Event()
    try:
        with ThreadPoolExecutor(1) as pool:
            first_again = pool.submit(_until_asked, stack, path)
            wait_for(lambda: len(echo.seen) > asked, "old again, and one request that fetches")
            assert "hit; ttl=-" in cache_status(stack.get(path))
            echo.release.set()
            assert "fwd=stale; stored" in cache_status(first_again.result())
    finally:
        echo.release = None
    assert len(echo.seen) == asked + 1
    assert first.status_code == 200


def _until_asked(stack: Stack, path: str) -> httpx.Response:
    """Ask until a response does not come from the cache."""
    return wait_for(lambda: _unless_hit(stack.get(path)), "a request that fetches")


def test_304_makes_a_response_fresh_again(stack: Stack, echo: Backend) -> None:
    echo.headers = {"etag": '"v1"', "x-number": "1"}
    path = fresh("error")
    first = stack.get(path)
    wait_for(lambda: (stack.get(path), len(echo.seen) > 1)[1], "the response to become old")
    assert echo.seen[-1]["headers"]["if-none-match"] == '"v1"'
    echo.status, echo.headers, echo.body = 304, {"etag": '"v1"', "x-number": "2"}, b""
    answer = wait_for(lambda: _unless_hit(stack.get(path)), "another revalidation")
    assert (answer.status_code, answer.content) == (200, stack.get(path).content)
    assert answer.headers["x-number"] == "2"
    assert "fwd-status=304; stored" in cache_status(answer)
    assert first.headers["x-number"] == "1"


def _unless_hit(answer: httpx.Response) -> httpx.Response | None:
    return None if "hit" in cache_status(answer) else answer


def test_an_old_response_is_better_than_an_error(stack: Stack, echo: Backend) -> None:
    path = fresh("error")
    good = stack.get(path)
    echo.status, echo.body = 503, b"broken"
    answer = wait_for(lambda: _unless_hit(stack.get(path)), "the response to become old")
    assert (answer.status_code, answer.content) == (200, good.content)
    assert "fwd=stale; fwd-status=503; detail=stale-if-error" in cache_status(answer)
    echo.stop()
    try:
        answer = stack.get(path)
        assert (answer.status_code, answer.content) == (200, good.content)
        assert "x-gateway-reason" not in answer.headers
        assert stack.get(fresh("error")).status_code == 503
    finally:
        echo.start()


def test_concurrent_misses_ask_once(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    echo.release = threading.Event()
    try:
        with ThreadPoolExecutor(10) as pool:
            futures = [pool.submit(stack.get, path) for _ in range(10)]
            wait_for(
                lambda: 'outcome="wait"} ' in stack.policy_server.metrics() and len(echo.seen) == 1,
                "all to wait",
            )
            wait_for(lambda: _waiting(stack) >= 9, "nine to wait")
            echo.release.set()
            bodies = {future.result().content for future in futures}
    finally:
        echo.release = None
    assert len(bodies) == 1
    assert len(echo.seen) == 1


def _waiting(stack: Stack) -> float:
    for line in stack.policy_server.metrics().splitlines():
        if line.startswith('xds_cache_lookups_total{outcome="wait"}'):
            return float(line.rpartition(" ")[2])
    return 0


def _purge(stack: Stack, kind: str, value: str = "") -> Any:
    answer = httpx.post(
        f"http://{stack.policy_server.admin}/cache/purge", content=json.dumps({"kind": kind, "value": value})
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_responses_are_purged(stack: Stack, echo: Backend) -> None:
    host = stack.url.removeprefix("http://")
    paths = [fresh("ttl") for _ in range(4)]

    def stored() -> list[bool]:
        asked = [stack.get(path, headers={"cache-control": "only-if-cached"}) for path in paths]
        return [one.status_code == 200 for one in asked]

    for path, tag in zip(paths, ("red", "red, blue", "blue", ""), strict=True):
        echo.headers = {"cache-tag": tag} if tag else {}
        assert "cache-tag" not in stack.get(path).headers
    assert stored() == [True] * 4
    _purge(stack, "tag", "red")
    wait_for(lambda: stored() == [False, False, True, True], "the tag to be purged")
    _purge(stack, "url", host + paths[2])
    wait_for(lambda: stored() == [False, False, False, True], "the URL to be purged")
    _purge(stack, "prefix", host + "/ttl/")
    wait_for(lambda: stored() == [False] * 4, "the prefix to be purged")


def test_a_change_purges_its_url(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    stack.get(path)
    echo.status = 400
    stack.request("POST", path)
    echo.status = 200
    assert "hit" in cache_status(stack.get(path))
    assert cache_status(stack.request("PUT", path)) == "gateway; fwd=method"
    assert "hit" not in cache_status(stack.get(path))


def test_a_cache_lives_without_its_policy_server(stacks: Stacks, echo: Backend) -> None:
    files = {"keys.json": tokens.jwks()}
    stack = stacks.start(YAML, files=files, echo=echo.address, acme="0" * 64, beta="1" * 64)
    path, other = fresh("ttl"), fresh("ttl")
    stack.get(path)
    stack.policy_server.stop()
    assert "hit" in cache_status(stack.get(path))
    assert "stored" in cache_status(stack.get(other))
    assert "hit" in cache_status(stack.get(other))
    stack.policy_server.start()
    stack.policy_server.ready()
    assert stack.get(path).status_code == 200


VARYING = {"a": "", "b": "accept-language", "c": "accept-language, x-unusual", "d": "X-Unusual"}
"""What the responses to each path vary by."""
ASKED = ("no-cache", "max-age=0", "no-store")
PURGES = ("url", "prefix", "tag")


class Model:
    """What the cache may answer for the paths of one run.

    Each response of the upstream has a number. `least` has for each path the number of the last one before it was purged.
    """

    def __init__(self, stack: Stack, echo: Backend) -> None:
        self.stack, self.echo = stack, echo
        self.run = next(numbers)
        self.made = 0
        self.least: dict[str, int] = {}

    def ask(self, method: str, kind: str, headers: dict[str, str]) -> httpx.Response:
        """A request, for which the upstream has a response with the next number."""
        self.made += 1
        self.echo.headers = {"x-number": str(self.made), "cache-tag": f"{self.run}-{kind}"}
        if VARYING.get(kind):
            self.echo.headers["vary"] = VARYING[kind]
        return self.stack.request(method, f"/mine/{self.run}/{kind}", headers=headers)

    def purge(self, how: str, kind: str, headers: dict[str, str]) -> None:
        """Purge a path, and wait until Envoy has followed: it has then purged another path that was purged later too."""
        url = f"{self.stack.url.removeprefix('http://')}/mine/{self.run}/"
        self.ask("GET", "last", headers)
        _purge(self.stack, how, f"{self.run}-{kind}" if how == "tag" else url + kind)
        _purge(self.stack, "url", f"{url}last")
        cached = {**headers, "cache-control": "only-if-cached"}
        wait_for(lambda: self.ask("GET", "last", cached).status_code == 504, "the purge")
        self.least[kind] = self.made


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(KEYS)),
            st.sampled_from(sorted(VARYING)),
            st.sampled_from(["de", "en", None]),
            st.sampled_from(["u", None]),
            st.sampled_from(["", "", "", "", "", "", "HEAD", *ASKED, "change", *PURGES]),
        ),
        min_size=10,
        max_size=40,
    )
)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_nobody_gets_the_response_of_another_nor_a_purged_one(
    stack: Stack, echo: Backend, steps: list[tuple[str, str, str | None, str | None, str]]
) -> None:
    model = Model(stack, echo)
    for name, kind, language, unusual, more in steps:
        headers = {"x-api-key": KEYS[name]}
        headers |= {"accept-language": language} if language else {}
        headers |= {"x-unusual": unusual} if unusual else {}
        if more in PURGES:
            model.purge(more, kind, headers)
        headers |= {"cache-control": more} if more in ASKED else {}
        method = {"change": "PUT", "HEAD": "HEAD"}.get(more, "GET")
        answer = model.ask(method, kind, headers)
        assert answer.status_code == 200
        assert model.least.get(kind, 0) < int(answer.headers["x-number"]) <= model.made
        if more in (*ASKED, "change"):
            assert "hit" not in cache_status(answer)
            assert int(answer.headers["x-number"]) == model.made
        if more == "change":
            model.least[kind] = model.made
        if method != "HEAD":
            seen = answer.json()["headers"]
            assert seen["x-consumer"] == name
            for varying in VARYING[kind].lower().split(", "):
                assert seen.get(varying) == headers.get(varying)


def test_a_get_with_a_body_is_not_stored(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    assert cache_status(stack.request("GET", path, content=b"poison")) == "gateway; fwd=bypass"
    chunks = iter([b"poi", b"son"])
    assert cache_status(stack.request("GET", path, content=chunks)) == "gateway; fwd=bypass"
    assert "poison" not in stack.get(path).text


@pytest.mark.parametrize(
    "value", ["max-age=-1", "max-age=abc", "no-store;", "private; max-age=60", "s-maxage=x, max-age=60"]
)
def test_freshness_that_cannot_be_read_is_none(stack: Stack, echo: Backend, value: str) -> None:
    echo.headers = {"cache-control": value}
    path = fresh("ttl")
    stack.get(path)
    assert "hit" not in cache_status(stack.get(path))


@pytest.mark.parametrize("age", ["-100", "nan", "0x10", "-inf", "1e3"])
def test_an_age_that_cannot_be_read_is_not_trusted(stack: Stack, echo: Backend, age: str) -> None:
    echo.headers = {"cache-control": "max-age=60", "age": age}
    path = fresh("told")
    stack.get(path)
    assert "hit" not in cache_status(stack.get(path))


def test_an_error_is_no_304(stack: Stack, echo: Backend) -> None:
    echo.status, echo.headers = 404, {"etag": '"a"'}
    path = fresh("ttl")
    stack.get(path)
    answer = stack.get(path, headers={"if-none-match": '"a"'})
    assert (answer.status_code, "hit" in cache_status(answer)) == (404, True)


def test_names_are_part_of_what_selects(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    echo.headers = {"vary": "accept"}
    stack.get(path, headers={"accept": "1"})
    echo.headers = {"vary": "accept-language"}
    stack.get(path, headers={"accept": "2", "accept-language": "x"})
    answer = stack.get(path, headers={"accept": "3", "accept-language": "1"})
    assert "hit" not in cache_status(answer)


def test_a_purge_holds_for_what_is_on_its_way(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    held = echo.release = threading.Event()
    try:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(stack.get, path)
            wait_for(lambda: len(echo.seen) == 1, "the request to arrive")
            _purge(stack, "url", stack.url.removeprefix("http://") + path)
            echo.release = None
            held.set()
            assert slow.result().status_code == 200
    finally:
        held.set()
        echo.release = None
    wait_for(lambda: (stack.get(path), len(echo.seen) == 2)[1], "a request for the new response")
    assert "hit" in cache_status(stack.get(path))


def test_what_is_private_is_for_one_caller(stack: Stack, echo: Backend) -> None:
    echo.headers = {"cache-control": "private, max-age=60"}
    path = fresh("plan")
    stack.get(path, headers={"x-api-key": KEYS["acme"]})
    assert "hit" not in cache_status(stack.get(path, headers={"x-api-key": KEYS["beta"]}))
    path = fresh("mine")
    stack.get(path, headers={"x-api-key": KEYS["acme"]})
    assert "hit" in cache_status(stack.get(path, headers={"x-api-key": KEYS["acme"]}))


def test_a_304_is_read_with_the_headers_of_the_stored_response(stack: Stack, echo: Backend) -> None:
    echo.headers = {"etag": '"v1"', "cache-control": "max-age=1"}
    path = fresh("ttl")
    stack.get(path)
    wait_for(lambda: (stack.get(path), len(echo.seen) > 1)[1], "the response to become old")
    echo.status, echo.headers, echo.body = 304, {"etag": '"v1"'}, b""
    answer = wait_for(
        lambda: _unless_hit(stack.get(path, headers={"if-none-match": '"v1"'})), "a revalidation"
    )
    assert (answer.status_code, answer.content) == (304, b"")
    hit = stack.get(path)
    assert hit.status_code == 200
    assert "ttl=2" not in cache_status(hit)


def test_other_policies_are_another_key(stacks: Stacks, echo: Backend) -> None:
    text = """
    listeners: {http: {port: $port, address: 127.0.0.1}}
    upstreams: {echo: {endpoints: ["$echo"]}}
    routes: {a: {path: /a, upstream: echo, policies: {cache: {ttl: 5m$more}}}}
    """
    stack = stacks.start(text, echo=echo.address, more="")
    stack.get("/a", headers={"x-tenant": "a"})
    assert "hit" in cache_status(stack.get("/a", headers={"x-tenant": "b"}))
    stack.write(text, echo=echo.address, more=", vary: [x-tenant]")
    stack.publish()
    wait_for(
        lambda: stack.get("/a", headers={"x-tenant": "b"}).json()["headers"]["x-tenant"] == "b" or None,
        "the key",
    )


def test_spellings_of_a_host_are_one(stack: Stack, echo: Backend) -> None:
    path = fresh("ttl")
    stack.get(path, headers={"host": "Example.com"})
    for host in ("example.com:80", "example.com.", "EXAMPLE.COM"):
        assert "hit" in cache_status(stack.get(path, headers={"host": host})), host
    assert "hit" not in cache_status(stack.get(path, headers={"host": "example.com:8080"}))


def test_the_command_purges_in_several_policy_servers(
    stacks: Stacks, echo: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a Redis each policy server has responses of its own. One that is away holds the others not back."""
    text = """
    listeners: {http: {port: $port, address: 127.0.0.1}}
    upstreams: {echo: {endpoints: ["$echo"]}}
    routes: {a: {path: /*, upstream: echo, policies: {cache: 5m}}}
    """
    found = [stacks.start(text, echo=echo.address) for _ in range(2)]
    admins = [f"--admin={stack.policy_server.admin}" for stack in found]

    def hits(path: str) -> list[bool]:
        return ["hit" in cache_status(stack.get(path, headers={"host": "shop.test"})) for stack in found]

    for more, code in (([], 0), (["--admin=127.0.0.1:1"], 3)):
        path = fresh("purged")
        hits(path)
        assert hits(path) == [True, True]
        assert main(["cache", "purge", f"http://shop.test{path}", *more, *admins]) == code
        for stack in found:
            url = {"host": "shop.test", "cache-control": "only-if-cached"}
            wait_for(lambda: stack.get(path, headers=url).status_code == 504, "the purge")  # noqa: B023
        out, err = capsys.readouterr()
        if code == 0:
            assert out == "2 responses purged in 2 policy servers; Envoys follow within a second\n"
        else:
            assert "no policy server answers at 127.0.0.1:1" in err
            assert "2 others purged" in err
