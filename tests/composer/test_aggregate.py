"""The calls of an aggregate: their order, what they have of the request, and what becomes of failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.composer.plans import planned
from tests.support.wait import eventually
from xds_server.composer.aggregate import AggregateRoute
from xds_server.composer.aggregate_plan import load
from xds_server.composer.calls import Answer, Call, CallFailed
from xds_server.composer.messages import Request, Response

Reply = Any
"""JSON, an Answer, an exception, or an event to wait for before {} or before another reply."""


class Calls:
    """A caller with an answer for each upstream. `made` has the calls in their order, `ended` those that were cancelled."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        self.made: list[Call] = []
        self.cancelled: list[str] = []
        self.began: Callable[[str], None] = lambda _upstream: None

    async def call(self, call: Call) -> Answer:
        self.made.append(call)
        self.began(call.upstream)
        reply = self.replies.get(call.upstream, {})
        after: Reply = {}
        if isinstance(reply, tuple):
            reply, after = reply
        if isinstance(reply, asyncio.Event):
            try:
                await reply.wait()
            except asyncio.CancelledError:
                self.cancelled.append(call.upstream)
                raise
            reply = after
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Answer):
            return reply
        return Answer(status=200, headers={}, body=json.dumps(reply).encode())

    def paths(self) -> list[str]:
        return [call.path for call in self.made]


def status(number: int) -> Answer:
    return Answer(status=number, headers={}, body=b'{"secret": 1}')


HEADERS = {"host": "h", "x-request-id": "r", "content-type": "application/json; charset=utf-8"}


async def answer(
    aggregate: dict[str, Any], calls: Calls, path: str = "/x/7", body: bytes = b"", **headers: str
) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(method="POST", path=path, headers={**HEADERS, **names}, body=body)
    return await AggregateRoute(planned(aggregate)).respond(request, calls)


async def until(condition: Callable[[], object]) -> None:
    await eventually(condition, "the calls")


def problem(response: Response) -> tuple[int, str, str]:
    body = json.loads(response.body)
    return response.status, body["reason"], body["call"]


async def test_calls_are_made_at_once_and_those_that_use_answers_after_them() -> None:
    calls = Calls(a=asyncio.Event(), b=asyncio.Event(), c={"n": 1})
    began = asyncio.Event()
    seen: list[str] = []

    def note(upstream: str) -> None:
        seen.append(upstream)
        if {"a", "b"} <= set(seen):
            began.set()

    calls.began = note
    plan = {
        "calls": {
            "d": {"path": "/d?x={call:c.n}&y={call:a.z}", "optional": True},
            "e": {"path": "/e?x={call:c.n}"},
            "a": {},
            "b": {},
            "c": {},
        }
    }
    running = asyncio.create_task(answer(plan, calls))
    await asyncio.wait({running, asyncio.create_task(began.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert "d" not in seen
    calls.replies["a"].set()
    calls.replies["b"].set()
    response = await running
    assert "/e?x=1" in calls.paths()
    assert json.loads(response.body)["_errors"] == [{"call": "d", "reason": "no_value"}]


async def test_values_of_the_request() -> None:
    calls = Calls()
    plan = {
        "calls": {
            "a": {
                "path": "/u/{id}/{claim:tenant}?q={query:q}&b={body:user.id}",
                "query": {
                    "page": {"from": "query:page", "default": 1},
                    "none": {"from": "query:no", "default": None},
                },
                "headers": {"x-who": {"from": "consumer"}, "x-ip": {"from": "ip"}},
                "body": {"name": {"from": "body:user.name"}, "n": [1, {"from": "header:x-a"}]},
            }
        }
    }
    caller = json.dumps({"consumer": "acme", "claims": {"tenant": "t/1"}})
    headers = {
        "x_gateway_caller": caller,
        "x_gateway_client_address": "1.2.3.4",
        "x_a": "é".encode().decode("latin-1"),
    }
    body = json.dumps({"user": {"id": 5, "name": "Ada"}}).encode()
    response = await answer(plan, calls, "/x/a%2Fb?q=1%262+3", body, cookie="c=1", **headers)
    assert response.status == 200
    (call,) = calls.made
    assert call.path == "/u/a%2Fb/t%2F1?q=1%262%203&b=5&page=1"
    assert (call.method, json.loads(call.body)) == ("POST", {"name": "Ada", "n": [1, "é"]})
    assert (call.headers["x-who"], call.headers["x-ip"], call.headers["cookie"]) == ("acme", "1.2.3.4", "c=1")
    assert not any(name.startswith("x-gateway-") for name in call.headers)


@pytest.mark.parametrize("segment", ["..", ".", "%2e%2e", "%2E", ""])
async def test_no_value_changes_which_path_it_is(segment: str) -> None:
    calls = Calls()
    response = await answer({"calls": {"a": {"path": "/u/{id}/x"}}}, calls, f"/x/{segment}")
    assert problem(response) == (400, "value_missing", "a")
    assert calls.made == []


async def test_a_header_of_an_answer_cannot_begin_another() -> None:
    calls = Calls(a={"x": "1\r\nhost: evil"})
    plan = {"calls": {"a": {}, "b": {"headers": {"x-a": {"from": "call:a.x"}}}}}
    assert problem(await answer(plan, calls)) == (502, "call_failed", "b")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "text/json"])
async def test_a_body_of_another_type_is_rejected_before_any_call(kind: str) -> None:
    calls = Calls()
    plan = {"calls": {"a": {"body": {"x": {"from": "body:x"}}}}}
    response = await answer(plan, calls, body=b'{"x": 1}', content_type=kind)
    assert (response.status, json.loads(response.body)["reason"]) == (415, "unsupported_media_type")
    assert calls.made == []
    assert (await answer(plan, calls, body=b"{}", content_type="application/x+json")).status == 200


async def test_a_body_that_is_no_json_is_rejected_before_any_call() -> None:
    calls = Calls()
    response = await answer({"calls": {"a": {"body": {"x": {"from": "body:x"}}}}}, calls, body=b"<")
    assert (response.status, json.loads(response.body)["reason"], calls.made) == (400, "malformed_body", [])


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (status(404), {"status": 404}),
        (status(500), {"status": 500}),
        (status(304), {"status": 304}),
        (CallFailed("timeout", ""), {"reason": "timeout"}),
        (CallFailed("unreachable", ""), {"reason": "unreachable"}),
        (CallFailed("too_large", ""), {"reason": "too_large"}),
        (Answer(status=200, headers={}, body=b"<p>"), {"reason": "not_json"}),
    ],
    ids=str,
)
async def test_an_optional_call_that_fails_is_told(failure: Reply, told: dict[str, Any]) -> None:
    plan: dict[str, Any] = {"calls": {"a": {}, "b": {"optional": True}}}
    response = await answer(plan, Calls(a={"x": 1}, b=failure))
    assert json.loads(response.body) == {"x": 1, "_errors": [{"call": "b", **told}]}
    assert ("x-gateway-partial", "b") in list(response.headers)
    response = await answer({**plan, "errors": "off"}, Calls(a={"x": 1}, b=failure))
    assert json.loads(response.body) == {"x": 1}
    assert ("x-gateway-partial", "b") in list(response.headers)


async def test_the_first_failed_call_of_the_file_decides_the_status() -> None:
    calls = Calls(a=asyncio.Event(), b=asyncio.Event(), c=status(404))
    running = asyncio.create_task(
        answer({"calls": {"a": {}, "b": {"path": "/b?x={call:a.x}"}, "c": {}}}, calls)
    )
    await until(lambda: len(calls.made) == 2)
    calls.replies["a"].set()
    assert problem(await running) == (502, "call_failed", "b")  # it is before c, which has failed first


async def test_calls_that_end_before_they_begin_are_not_made() -> None:
    aggregate = {
        "calls": {
            "write": {"method": "POST"},
            "bad": {"path": "/bad?n={query:t}"},
            "later": {"method": "POST"},
            "after": {"method": "POST", "path": "/after?x={call:later.id}"},
        }
    }
    calls = Calls()
    response = await answer(aggregate, calls)
    assert problem(response) == (400, "value_missing", "bad")
    report = {"write": "done", "bad": "not_made", "later": "not_made", "after": "not_made"}
    assert json.loads(response.body)["calls"] == report
    assert calls.paths() == ["/write"]


async def test_a_call_does_not_wait_for_one_that_was_not_made() -> None:
    aggregate = {
        "calls": {"c": {"path": "/users/{call:d.id}"}, "x": {"path": "/users/{query:t}"}, "d": {}},
    }
    calls = Calls()
    async with asyncio.timeout(30):
        response = await answer(aggregate, calls)
    assert problem(response) == (400, "value_missing", "x")
    assert calls.made == []


@pytest.mark.parametrize("optional", [False, True])
async def test_the_cause_decides_and_not_the_call_that_uses_its_answer(optional: bool) -> None:
    aggregate = {
        "calls": {
            "first": {"path": "/first/{call:second.id}"},
            "second": {"path": "/second/{call:third.id}", "optional": optional},
            "third": {},
        },
    }
    response = await answer(aggregate, Calls(third=status(404)))
    assert problem(response) == (404, "call_rejected", "third")


async def test_calls_that_change_nothing_are_given_up_and_others_awaited() -> None:
    first, late = asyncio.Event(), asyncio.Event()
    calls = Calls(a=(first, status(403)), read=asyncio.Event(), write=late)
    plan: dict[str, Any] = {
        "calls": {
            "a": {},
            "read": {},
            "write": {"method": "POST"},
            "later": {"method": "POST", "headers": {"x-a": {"from": "call:write.id", "default": "1"}}},
        }
    }
    running = asyncio.create_task(answer(plan, calls))
    await until(lambda: len(calls.made) == 3)
    first.set()
    await until(lambda: calls.cancelled)
    assert calls.cancelled == ["read"]
    assert not running.done()
    late.set()
    response = await running
    assert problem(response) == (403, "call_rejected", "a")
    report = {"a": "failed", "read": "given_up", "write": "done", "later": "not_made"}
    assert json.loads(response.body)["calls"] == report


async def test_a_write_without_an_answer_may_have_been_done() -> None:
    plan: dict[str, Any] = {"calls": {"a": {"method": "POST"}, "b": {"method": "PUT"}}}
    response = await answer(plan, Calls(a=CallFailed("timeout", "")))
    assert problem(response) == (504, "call_timeout", "a")
    assert json.loads(response.body)["calls"] == {"a": "unknown", "b": "not_made"}


async def test_the_client_that_leaves_cancels_the_calls() -> None:
    calls = Calls(a=asyncio.Event(), b=asyncio.Event())
    running = asyncio.create_task(answer({"calls": {"a": {}, "b": {}}}, calls))
    await until(lambda: len(calls.made) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: len(calls.cancelled) == 2)


async def test_the_time_of_a_call_is_at_most_what_is_left() -> None:
    calls = Calls()
    plan = planned({"calls": {"a": {}, "b": {"timeout": "300ms"}, "c": {"timeout": "1h"}}}, timeout="2s")
    request = Request(method="GET", path="/x/1", headers={})
    await AggregateRoute(plan).respond(request, calls)
    left = {call.upstream: call.timeout for call in calls.made}
    assert left["b"] == 0.3
    assert all(one is not None and 0 < one <= 2 for one in left.values())


def test_overrides_of_errors_have_no_sources() -> None:
    rule = {"calls": [], "response": None, "errors": True, "max_answer": 1, "timeout": None, "retry": {}}
    overrides = {"call_failed": {"body": {"kind": "header", "title": "x"}}}
    plan = load(json.dumps({**rule, "overrides": overrides}).encode())
    assert (plan.request_headers, plan.reads_body) == ((), False)
