"""Attacks on the real Envoy over loopback: the attacker is stopped, and a well-behaved client is served all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.support import attacks
from tests.support.backend import Backend
from tests.support.running import Served

GATEWAY = """
listeners:
  http: {port: $port, address: 127.0.0.1, timeouts: {headers: 1s}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  plain: {path: /plain, upstream: echo}
  cached: {path: /cached, upstream: echo, policies: {cache: 1h}}
  version: {path: /version, respond: {body: "$version"}}
"""
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Served]:
    running = Served(Path(tmp_path_factory.mktemp("attacks")), GATEWAY, echo=backend.address)
    running.write("1")
    with running:
        running.until("1")
        yield running


async def beside_a_client(served: Served, attack: Awaitable[Result], path: str = "/plain") -> Result:
    """What an attack returns. Meanwhile a client asks again and again, and is answered each time."""
    attacking = asyncio.ensure_future(attack)
    answered = 0
    async with httpx.AsyncClient(base_url=served.url, timeout=20) as client:
        while not attacking.done() or answered < 20:
            response = await client.get(path)
            assert response.status_code == 200, response.text
            answered += 1
            await asyncio.sleep(0.01)
    return await attacking


async def test_slow_headers_are_ended(served: Served) -> None:
    answers = await beside_a_client(served, attacks.slow_headers(served.port, 200))
    assert {one.partition(b"\r\n")[0] for one in answers} == {b"HTTP/1.1 408 Request Timeout"}


async def test_a_connection_of_resets_is_closed(served: Served, backend: Backend) -> None:
    backend.seen.clear()
    sent = await beside_a_client(served, attacks.rapid_resets(served.port, 20_000, "/reset"))
    assert sent < 20_000
    assert len([one for one in backend.seen if one["path"] == "/reset"]) == 0


async def test_floods_of_headers_are_rejected(served: Served, backend: Backend) -> None:
    many = [attacks.get("/plain", *(b"x-%d: a" % number for number in range(200)))] * 200
    large = [attacks.get("/plain", b"x-large: " + b"a" * 100_000)] * 50
    statuses = await beside_a_client(served, attacks.requests(served.port, [*many, *large]))
    assert set(statuses) == {431}


async def test_queries_that_nobody_asked_before_do_not_drive_others_out_of_the_cache(
    served: Served, backend: Backend
) -> None:
    backend.headers = {"cache-control": "max-age=3600"}
    assert served.get("/cached?well=behaved").status_code == 200
    backend.seen.clear()
    texts = [attacks.get(f"/cached?bust={number}") for number in range(2000)]
    statuses = await beside_a_client(served, attacks.requests(served.port, texts), "/cached?well=behaved")
    assert set(statuses) == {200}
    assert [one for one in backend.seen if one["path"] == "/cached?well=behaved"] == []
