"""The service without a server: requests of Envoy in, answers for Envoy out."""

from __future__ import annotations

import asyncio

import pytest
from envoy.service.auth.v3 import external_auth_pb2
from prometheus_client import CollectorRegistry

from filters.check.lingering import LINGER
from filters.check.service import Authorization
from filters.ext_authz.names import POLICY, PolicySource
from filters.unary import RpcError

SOURCE = b"""
import copy, dataclasses
from filters.ext_authz import Decision, allow, deny
def seen(r):
    return allow({"x-id": r.path_params.get("id", "-"), "x-peer": r.peer.principal if r.peer else "-",
                  "x-pem": r.peer.certificate if r.peer else "-", "x-body": repr(r.body), "x-q": r.query_string})
def metadata(r): return allow(metadata={"a": [1, {"b": None}]})
def bad_metadata(r): return allow(metadata={"a": object()})
def no(r): return deny()
def bad_header(r): return Decision(allowed=True, headers={"x": 1})
async def quick(r): return allow({"x-path": r.path})
def who(r): return allow({"x-who": repr((r.consumer, r.plan, dict(sorted(r.claims.items()))))})
def copies(r):
    return allow({"x-path": copy.copy(r).path, "x-other": dataclasses.replace(r, path="/b").path,
                  "x-none": str(hasattr(r, "nothing"))})
async def slow(r):
    import asyncio
    await asyncio.sleep(60)
"""


def authorization(*functions: str) -> Authorization:
    result = Authorization(CollectorRegistry())
    bodies = {
        one: POLICY.build(one, PolicySource("p.py", one, SOURCE)).SerializeToString() for one in functions
    }
    assert result.functions.replace(bodies, ()) == {}
    return result


def asked(policy: str, url: str = "/", **said: str) -> external_auth_pb2.CheckRequest:
    request = external_auth_pb2.CheckRequest()
    request.attributes.request.http.path = url
    request.attributes.request.http.method = "GET"
    request.attributes.context_extensions.update({"timeout": "30", **said, "policy": policy})
    return request


async def answer(
    service: Authorization, request: external_auth_pb2.CheckRequest
) -> external_auth_pb2.CheckResponse:
    found = service.check(request)
    body = found if isinstance(found, bytes) else await found
    return external_auth_pb2.CheckResponse.FromString(body)


def headers(response: external_auth_pb2.CheckResponse) -> dict[str, str]:
    return {one.header.key: one.header.value for one in response.ok_response.headers}


async def test_what_envoy_says_becomes_a_request() -> None:
    request = asked("seen", "/users/a%2Fb/x?c=d", path=r"/users/(?P<id>[^/]+)/x", body="true")
    request.attributes.source.principal = "spiffe://x/y"
    request.attributes.source.certificate = "-----BEGIN%20CERTIFICATE-----"
    request.attributes.request.http.raw_body = b"\xff"
    assert headers(await answer(authorization("seen"), request)) == {
        "x-id": "a/b",
        "x-peer": "spiffe://x/y",
        "x-pem": "-----BEGIN CERTIFICATE-----",
        "x-body": r"b'\xff'",
        "x-q": "c=d",
    }


async def test_metadata_of_a_decision_is_told() -> None:
    response = await answer(authorization("metadata"), asked("metadata"))
    assert dict(response.dynamic_metadata)["a"][0] == 1


@pytest.mark.parametrize("policy", ["bad_metadata", "missing"])
async def test_what_cannot_be_decided_is_refused(policy: str) -> None:
    limit = "0.01" if policy == "missing" else "30"
    response = await answer(authorization("bad_metadata"), asked(policy, timeout=limit))
    assert (response.status.code, response.denied_response.status.code) == (7, 503)
    assert response.dynamic_metadata["failed"] is True


async def test_a_request_that_names_no_policy_is_refused() -> None:
    response = await answer(authorization(), external_auth_pb2.CheckRequest())
    assert response.denied_response.status.code == 503


async def test_a_decision_that_takes_too_long_is_a_status_of_grpc_for_envoy_to_judge() -> None:
    with pytest.raises(RpcError) as error:
        await answer(authorization("slow"), asked("slow", timeout="0.01"))
    assert error.value.code == 4


async def test_a_refusal_without_a_body_leaves_it_to_the_gateway() -> None:
    response = await answer(authorization("no"), asked("no"))
    assert (response.denied_response.status.code, response.denied_response.body) == (403, "")
    assert response.dynamic_metadata["problem"] is True


async def test_a_policy_that_arrives_after_its_route_still_decides() -> None:
    service = authorization()
    waiting = asyncio.create_task(answer(service, asked("no")))
    await asyncio.sleep(0)
    body = POLICY.build("no", PolicySource("p.py", "no", SOURCE)).SerializeToString()
    service.functions.replace({"no": body}, ())
    assert (await waiting).denied_response.status.code == 403


def test_a_key_is_looked_up_without_waiting() -> None:
    body = authorization().check(asked("", api_key='{"headers":["x-api-key"],"query":[],"cookies":[]}'))
    assert isinstance(body, bytes)
    assert external_auth_pb2.CheckResponse.FromString(body).dynamic_metadata["api_key"]["unknown"] is True


def test_a_coroutine_that_waits_for_nothing_decides_at_once() -> None:
    body = authorization("quick").check(asked("quick", "/a"))
    assert isinstance(body, bytes)
    assert headers(external_auth_pb2.CheckResponse.FromString(body)) == {"x-path": "/a"}


async def test_a_decision_that_no_response_can_hold_is_refused_however_it_was_made() -> None:
    response = await answer(authorization("bad_header"), asked("bad_header"))
    assert response.denied_response.status.code == 503


async def test_the_same_answer_is_the_same_bytes_and_another_is_not() -> None:
    service = authorization("quick")
    said = [service.check(asked("quick", url)) for url in ("/a", "/a", "/b")]
    assert said[0] is said[1] != said[2]


async def test_what_is_known_of_the_caller_is_read() -> None:
    request = asked("who")
    who = request.attributes.metadata_context.filter_metadata["xds.identity"]
    who.update({"consumer": "a", "claims": {"n": 1, "f": 1.5, "list": [True, None], "text": "x"}})
    found = headers(await answer(authorization("who"), request))
    assert found["x-who"] == "('a', None, {'f': 1.5, 'list': [True, None], 'n': 1, 'text': 'x'})"
    assert headers(await answer(authorization("who"), asked("who")))["x-who"] == "(None, None, {})"


async def test_a_request_can_be_copied_and_changed() -> None:
    found = headers(await answer(authorization("copies"), asked("copies", "/a")))
    assert found == {"x-path": "/a", "x-other": "/b", "x-none": "False"}


HOSTILE = """
import asyncio
from filters.ext_authz import Decision, allow, deny

class Mute(Exception):
    def __str__(self): raise RuntimeError

class Nobody(BaseException): ...

def raises_what_cannot_be_shown(r): raise Mute
async def raises_it_as_a_coroutine(r): raise Mute
def raises_the_base_of_all(r): raise Nobody
async def says_that_it_was_cancelled(r): raise asyncio.CancelledError
def goes_too_deep(r): return goes_too_deep(r)
def is_a_generator(r): yield allow()
async def is_an_asynchronous_generator(r): yield allow()
def has_half_a_letter(r): return allow({"x": "\\ud800"})
def answers_with_half_a_letter(r): return deny(403, headers={"x": "\\ud800"})
def splits_a_header(r): return Decision(allowed=True, headers={"x": "a\\r\\nx-consumer: root"})
def has_no_headers(r): return Decision(allowed=True, headers=None)
def has_no_status(r): return Decision(allowed=False, status="403")
def has_a_text_as_its_body(r): return Decision(allowed=False, status=403, body="no")
def removes_a_number(r): return Decision(allowed=True, remove=(3,))
def is_nearly_allowed(r): return Decision(allowed="no")
def holds_itself(r):
    metadata = {}
    metadata["again"] = metadata
    return allow(metadata=metadata)
"""
HOSTILE_NAMES = [line.split("def ")[1].split("(")[0] for line in HOSTILE.splitlines() if "(r)" in line]


@pytest.mark.parametrize("policy", HOSTILE_NAMES)
async def test_whatever_a_policy_does_is_a_refusal_and_no_status_that_envoy_may_let_pass(policy: str) -> None:
    service = Authorization(CollectorRegistry())
    body = POLICY.build(policy, PolicySource("p.py", policy, HOSTILE.encode())).SerializeToString()
    assert service.functions.replace({policy: body}, ()) == {}
    response = await answer(service, asked(policy))
    assert (response.status.code, response.denied_response.status.code) == (7, 503)
    assert response.dynamic_metadata["failed"] is True


async def test_a_path_that_would_backtrack_for_ever_is_matched_as_envoy_does() -> None:
    path = "/" + "a" * 5000
    for end, found in (("", "a" * 5000), ("!", "-")):
        request = asked("seen", path + end, path=r"/(?P<id>(a+)+)")
        assert headers(await answer(authorization("seen"), request))["x-id"] == found


def test_a_rule_that_fails_in_no_known_way_takes_no_other_away() -> None:
    service = authorization("no")
    source = b"x = " + b"-" * 100_000 + b"1\ndef check(r): ..."
    refused = service.functions.replace(
        {"deep": POLICY.build("deep", PolicySource("p.py", "check", source)).SerializeToString()}, ()
    )
    assert "too deeply" in refused["deep"]
    assert list(service.functions.current) == ["no"]


async def test_a_policy_that_is_gone_still_decides_for_an_envoy_that_has_not_heard_of_it() -> None:
    now = [0.0]
    service = Authorization(CollectorRegistry(), clock=lambda: now[0])
    body = POLICY.build("no", PolicySource("p.py", "no", SOURCE)).SerializeToString()
    service.functions.replace({"no": body}, ())
    service.functions.replace({}, ["no"])
    statuses = []
    # the last is waited for in vain, for as long as Envoy waits
    for now[0], timeout in ((1.0, "30"), (LINGER - 1, "30"), (LINGER + 1, "0.01")):
        refused = await answer(service, asked("no", timeout=timeout))
        statuses.append(refused.denied_response.status.code)
    assert statuses == [403, 403, 503]
