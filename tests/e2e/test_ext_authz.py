"""Policies in Python through the real Envoy, decided by a policy server process, fed by the real xDS server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.policy_server import Stack, Stacks
from tests.support.wait import wait_for

POLICIES = """
import asyncio
import sys
import time

from filters.ext_authz import Decision, Request, allow, deny


def read_only(request: Request) -> Decision:
    if request.claims.get("department") != "ops" and request.method != "GET":
        return deny(403, body="read only")
    return allow(headers={"x-policy": "seen"}, remove=["x-secret"], response_headers={"x-checked": "yes"})


async def seen(request: Request) -> Decision:
    await asyncio.sleep(0)
    values = {
        "x-method": request.method, "x-host": request.host, "x-path": request.path, "x-scheme": request.scheme,
        "x-query": request.query.get("q", ""), "x-id": request.path_params.get("id", ""),
        "x-address": request.client_address, "x-consumer-seen": str(request.consumer),
        "x-plan-seen": str(request.plan), "x-route": request.route, "x-agent": request.headers["User-Agent"],
        "x-sub": str(request.claims.get("sub")), "x-roles": str(request.claims.get("roles")),
        "x-body": str(request.body), "x-by": str(request.authenticated_by),
    }
    return allow(values, metadata={"tier": "gold"})


def refuse(request: Request) -> Decision:
    return deny()


def teapot(request: Request) -> Decision:
    return deny(429, headers={"retry-after": "7"}, body={"error": "100% no"})


def login(request: Request) -> Decision:
    return deny(302, headers={"location": "https://login.test/"})


def crash(request: Request) -> Decision:
    raise RuntimeError("no luck")


def leave(request: Request) -> Decision:
    sys.exit(3)


def nothing(request):
    return True


def any_status(request):
    return deny(int(request.query["status"]), body="no")


def bad_header(request):
    return allow(headers={"x": "a\\nb"})


def slow(request: Request) -> Decision:
    time.sleep(1)
    return allow()


async def shown(request: Request) -> Decision:
    sent = request._attributes.request.http.headers
    return allow({"x-shown": ",".join(sorted(request.headers)), "x-sent": ",".join(sorted(sent)), "x-id": request.id})


async def slow_async(request: Request) -> Decision:
    await asyncio.sleep(30)
    return allow()
"""


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
identity: {corp: {issuer: $issuer, audiences: [shop], jwks: {file: jwks.json}}}
plans: {pro: {}}
consumers: {acme: {plan: pro, jwt: {provider: corp, claim: azp, value: acme-app}}}
routes:
  open: {path: /open, upstream: echo}
  read-only: {path: /read-only, upstream: echo, policies: {ext_authz: {python: "policies/all.py:read_only", timeout: 20s}}}
  ops: {path: /ops, upstream: echo, policies: {jwt: corp, ext_authz: {python: "policies/all.py:read_only", timeout: 20s}}}
  seen:
    path: "/seen/{id}"
    upstream: echo
    policies:
      jwt: {provider: corp, optional: true}
      ext_authz: {python: "policies/all.py:seen", timeout: 20s, body: {max: 16, partial: true}}
  limited: {path: /limited, upstream: echo, policies: {ext_authz: {python: "policies/all.py:seen", timeout: 20s, body: {max: 16}}}}
$more"""
DECIDED = {
    **{
        one: f'{{python: "policies/all.py:{one}", timeout: 20s, on_error: {on_error}}}'
        for one, on_error in (
            ("refuse", "deny"),
            ("teapot", "deny"),
            ("login", "deny"),
            ("any_status", "deny"),
            ("crash", "allow"),
            ("leave", "allow"),
            ("nothing", "allow"),
            ("bad_header", "allow"),
        )
    },
    "shown": '{python: "policies/all.py:shown", timeout: 20s, headers: [X-One, user-agent]}',
    "shown-too": '{python: "policies/all.py:shown", timeout: 20s, headers: [x-two]}',
    "shown-open": '{python: "policies/all.py:shown", timeout: 20s, headers: [x-one], on_error: allow}',
    "slow": '{python: "policies/all.py:slow"}',
    "slow_async": '{python: "policies/all.py:slow_async"}',
    "slow-open": '{python: "policies/all.py:slow", timeout: 50ms, on_error: allow}',
}


def routes() -> str:
    """A route for each that is decided by a policy alone."""
    return "".join(
        f"  {name}: {{path: /{name}, upstream: echo, policies: {{ext_authz: {settings}}}}}\n"
        for name, settings in DECIDED.items()
    )


def given(backend: Backend, more: str = "") -> dict[str, str]:
    """The values for the names in the YAML."""
    return {"echo": backend.address, "issuer": tokens.ISSUER, "more": routes() + more}


def files(source: str = POLICIES) -> dict[str, str]:
    return {"policies/all.py": source, "jwks.json": tokens.jwks()}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    return stacks.start(YAML, files=files(), **given(backend))


def headers(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    seen: dict[str, str] = answer.json()["headers"]
    return seen


def problem(answer: httpx.Response, status: int, reason: str) -> None:
    assert (answer.status_code, answer.headers.get("x-gateway-reason")) == (status, reason), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["reason"]) == (status, reason)


def test_allowed_headers_are_set_and_removed_on_the_request_and_set_on_the_response(stack: Stack) -> None:
    answer = stack.get("/read-only", headers={"x-secret": "1", "x-policy": "forged"})
    seen = headers(answer)
    assert (seen["x-policy"], seen.get("x-secret"), answer.headers["x-checked"]) == ("seen", None, "yes")


def test_a_refusal_has_the_status_and_the_body_that_the_policy_gave(stack: Stack) -> None:
    answer = httpx.post(stack.url + "/read-only", content=b"x")
    assert (answer.status_code, answer.text) == (403, "read only")
    assert answer.headers["x-gateway-reason"] == "ext_authz_denied"


def test_a_refusal_as_json_with_headers(stack: Stack) -> None:
    answer = stack.get("/teapot")
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
        429,
        {"error": "100% no"},
        "7",
    )
    assert answer.headers["content-type"] == "application/json"


def test_a_refusal_without_a_body_is_a_problem_of_the_gateway(stack: Stack) -> None:
    problem(stack.get("/refuse"), 403, "ext_authz_denied")


def test_a_refusal_may_send_somewhere_else(stack: Stack) -> None:
    answer = stack.get("/login", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://login.test/")


def test_claims_reach_the_policy(stack: Stack) -> None:
    ops = {"authorization": f"Bearer {tokens.token(department='ops')}"}
    assert httpx.post(stack.url + "/ops", headers=ops).status_code == 200
    other = {"authorization": f"Bearer {tokens.token(department='sales')}"}
    assert httpx.post(stack.url + "/ops", headers=other).status_code == 403


def test_everything_of_the_request_reaches_the_policy(stack: Stack) -> None:
    token = tokens.token(azp="acme-app", roles=["a", {"b": 1}])
    answer = httpx.post(
        f"{stack.url}/seen/a%20b?q=1&q=2",
        headers={"authorization": f"Bearer {token}", "user-agent": "me"},
        content=b"12345678901234567890",
    )
    seen = headers(answer)
    assert {name: seen[name] for name in (
        "x-method", "x-host", "x-path", "x-query", "x-id", "x-address", "x-consumer-seen", "x-plan-seen",
        "x-route", "x-agent", "x-sub", "x-roles", "x-body", "x-by", "x-scheme",
    )} == {
        "x-method": "POST", "x-host": f"127.0.0.1:{stack.listener}", "x-path": "/seen/a%20b", "x-query": "1",
        "x-id": "a b", "x-address": "127.0.0.1", "x-consumer-seen": "acme", "x-plan-seen": "pro",
        "x-route": "seen", "x-agent": "me", "x-sub": "ann", "x-roles": "['a', {'b': 1}]",
        "x-body": "b'1234567890123456'", "x-by": "jwt", "x-scheme": "http",
    }  # fmt: skip
    assert answer.json()["body"] == "12345678901234567890"


def test_who_is_not_known_is_none(stack: Stack) -> None:
    seen = headers(stack.get("/seen/1"))
    assert (seen["x-consumer-seen"], seen["x-plan-seen"], seen["x-sub"], seen["x-by"]) == ("None",) * 4


@pytest.mark.parametrize(
    ("path", "shown"), [("/shown", "user-agent,x-one"), ("/shown-too", "x-two"), ("/shown-open", "x-one")]
)
def test_a_policy_sees_the_headers_that_it_names_and_no_others(stack: Stack, path: str, shown: str) -> None:
    sent = {"x-one": "1", "x-two": "2", "x-three": "3", "cookie": "secret", "user-agent": "me"}
    seen = headers(stack.get(path, headers=sent))
    assert seen["x-shown"] == shown
    assert seen["x-id"] == seen["x-request-id"]
    if path != "/shown-open":  # that filter has policies that see all
        assert seen["x-sent"] == "user-agent,x-envoy-external-address,x-one,x-request-id,x-two"


def test_a_body_beyond_the_limit_is_413_unless_a_part_is_enough(stack: Stack) -> None:
    answer = httpx.post(stack.url + "/limited", content=b"x" * 17)
    problem(answer, 413, "body_too_large")
    assert headers(httpx.post(stack.url + "/limited", content=b"x" * 16))["x-body"] == str(b"x" * 16)


@pytest.mark.parametrize("status", [402, 410, 418, 425, 428, 451, 499, 599])
def test_every_final_status_reaches_the_client(stack: Stack, status: int) -> None:
    answer = stack.get(f"/any_status?status={status}")
    assert (answer.status_code, answer.text) == (status, "no")


@pytest.mark.parametrize("path", ["/crash", "/leave", "/nothing", "/bad_header"])
def test_a_policy_that_fails_opens_no_route_whatever_on_error_says(stack: Stack, path: str) -> None:
    problem(stack.get(path), 503, "ext_authz_failed")
    assert stack.get("/read-only").status_code == 200


@pytest.mark.parametrize("path", ["/slow", "/slow_async"])
def test_a_policy_that_takes_too_long_closes_its_route(stack: Stack, path: str) -> None:
    problem(stack.get(path), 503, "ext_authz_unavailable")


def test_a_policy_that_takes_too_long_lets_pass_where_that_is_wanted(stack: Stack) -> None:
    assert stack.get("/slow-open").status_code == 200


def test_a_route_without_the_policy_asks_nobody(stack: Stack) -> None:
    # Envoy does not wait for the end of a decision that takes too long.
    wait_for(lambda: stack.policy_server.status()["under_way"] == 0, "the decisions of other tests")
    before = stack.policy_server.metrics()
    assert stack.get("/open").status_code == 200
    assert stack.policy_server.metrics() == before


def test_decisions_are_counted_by_policy_and_outcome(stack: Stack) -> None:
    stack.get("/refuse")
    stack.get("/crash")
    metrics = stack.policy_server.metrics()
    for outcome, name in (("denied", "refuse"), ("failed", "crash")):
        assert f'xds_policy_decisions_total{{outcome="{outcome}",policy="policies/all.py:{name}"}}' in metrics
    assert 'xds_policy_seconds_count{policy="policies/all.py:refuse"}' in metrics
    stack.policy_server.says("RuntimeError: no luck")


@pytest.fixture
def mended(stack: Stack, backend: Backend) -> Iterator[None]:
    """Whatever a test changes, the next one finds the gateway as it was."""
    yield
    stack.write(YAML, files(), **given(backend))
    stack.publish()

    def as_it_was() -> bool:
        policy = headers(stack.get("/read-only")).get("x-policy") == "seen"
        return (
            policy and stack.get("/shared").status_code == 404 and not stack.policy_server.status()["refused"]
        )

    wait_for(as_it_was, "the gateway to be as it was")


@pytest.mark.usefixtures("mended")
def test_a_changed_policy_is_in_force_without_a_listener_change(stack: Stack, backend: Backend) -> None:
    before = stack.envoy.stats("listener_manager.listener_(modified|added)")
    stack.write(YAML, files(POLICIES.replace('"seen"', '"changed"')), **given(backend))
    stack.publish()
    wait_for(lambda: headers(stack.get("/read-only"))["x-policy"] == "changed", "the changed policy")
    assert stack.envoy.stats("listener_manager.listener_(modified|added)") == before


@pytest.mark.usefixtures("mended")
def test_a_changed_file_that_a_policy_imports_is_in_force_too(stack: Stack, backend: Backend) -> None:
    common = stack.folder / "policies" / "common.py"
    route = '  shared: {path: /shared, upstream: echo, policies: {ext_authz: {python: "policies/shared.py:check", timeout: 20s}}}\n'
    source = "from filters.ext_authz import allow\nfrom policies.common import word\n"
    (stack.folder / "policies" / "shared.py").write_text(
        source + "def check(r): return allow({'x-word': word})\n"
    )
    for word in ("one", "two"):
        common.write_text(f"word = {word!r}\n")
        stack.write(YAML, files(), **given(backend, route))
        stack.publish()
        wait_for(
            lambda word=word: stack.get("/shared").json()["headers"]["x-word"] == word,
            f"the word {word}",
            also=(KeyError,),
        )
    mark = len(stack.policy_server.log)
    common.write_text("word = 1 / 0\n")
    stack.publish()
    stack.policy_server.says("policies/common.py:1: ZeroDivisionError", mark)
    assert stack.get("/shared").json()["headers"]["x-word"] == "two"
    common.write_text("word = 'three'\n")
    stack.publish()
    wait_for(lambda: stack.get("/shared").json()["headers"]["x-word"] == "three", "the mended file")


@pytest.mark.usefixtures("mended")
def test_a_policy_that_fails_at_import_is_rejected_by_name(stack: Stack, backend: Backend) -> None:
    """The last good policy stays in force."""
    mark = len(stack.policy_server.log)
    stack.write(YAML, files("import no_such_module\n" + POLICIES), **given(backend))
    stack.publish()
    stack.policy_server.says("all.py:1: ModuleNotFoundError", mark)
    assert stack.get("/read-only").status_code == 200
    assert "policies/all.py:read_only" in stack.policy_server.status()["refused"]
