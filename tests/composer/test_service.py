"""The rules of the composer: those that are gone, that are not there yet, and that it does not know."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from protos import rules_pb2
from xds_server.composer.answer_memory import USUAL
from xds_server.composer.calls import Answer, CallFailed
from xds_server.composer.messages import Request
from xds_server.composer.service import KEPT, Composer, of_upstream

NAME = "home/1"
EMPTY = {
    "calls": [],
    "response": {"object": [["x", {"value": 1}]]},
    "errors": True,
    "max_answer": 1,
    "timeout": 1,
}


def rule(kind: str = "aggregate") -> dict[str, bytes]:
    content = json.dumps({**EMPTY, "retry": {}, "overrides": {}, "calls": [CALL]}).encode()
    return {NAME: rules_pb2.Composition(name=NAME, kind=kind, content=content).SerializeToString()}


CALL = {
    "name": "a",
    "upstream": "a",
    "method": "GET",
    "safe": True,
    "after": [],
    "path": ["/"],
    "query": [],
    "headers": [],
    "body": None,
    "target": [],
    "shape": {},
    "group": None,
    "optional": True,
    "timeout": 0.1,
}


class Made:
    """A composer without an Envoy, so that its only call fails. `now` is its clock."""

    def __init__(self, folder: Path, arrival: float = 0.0) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.composer = Composer(f"unix:{folder}/nobody", self.registry, lambda: self.now, arrival)
        (self.table,) = self.composer.service().tables

    async def ask(self) -> tuple[int, str]:
        request = Request(method="GET", path="/home", headers={"x-gateway-composition": NAME})
        response = await self.composer.respond(request)
        return response.status, json.loads(response.body).get("reason", "")


async def test_a_rule_that_is_gone_is_known_a_while(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert await made.ask() == (503, "composition_unknown")
    made.table.replace(rule(), ())
    assert await made.ask() == (200, "")
    made.table.replace({}, (NAME,))
    assert await made.ask() == (200, "")
    made.now = KEPT + 1
    made.table.replace({}, ())
    assert await made.ask() == (503, "composition_unknown")
    text = generate_latest(made.registry).decode()
    assert 'xds_composer_requests_total{outcome="partial",route="home"} 2.0' in text
    assert 'xds_composer_calls_total{result="unreachable",upstream="a"} 2.0' in text


async def test_a_request_waits_for_its_rule(tmp_path: Path) -> None:
    made = Made(tmp_path, arrival=60)
    asking = asyncio.create_task(made.ask())
    await asyncio.sleep(0)
    made.table.replace({}, ())
    await asyncio.sleep(0)
    assert not asking.done()
    made.table.replace(rule(), ())
    assert await asking == (200, "")


async def test_a_rule_of_another_version_is_refused(tmp_path: Path) -> None:
    refused = Made(tmp_path).table.replace(rule("other"), ())
    assert "this composer does not know 'other'" in refused[NAME]


async def test_a_process_full_of_answers_rejects_requests(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.table.replace(rule(), ())
    memory = made.composer.memory
    memory.take(USUAL)
    assert await made.ask() == (503, "overloaded")
    memory.give_back(USUAL)
    assert await made.ask() == (200, "")
    assert memory.used == 0


@pytest.mark.parametrize(
    ("reason", "expected"), [("upstream_timeout", "timeout"), ("no_healthy_upstream", "unreachable")]
)
def test_what_envoy_answers_itself_is_no_answer_of_an_upstream(reason: str, expected: str) -> None:
    with pytest.raises(CallFailed) as failure:
        of_upstream(Answer(status=503, headers={"x-gateway-reason": reason}, body=b""))
    assert failure.value.reason == expected
