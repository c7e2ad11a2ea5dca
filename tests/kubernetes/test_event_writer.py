"""Events on a real API server: each once, also by two replicas, and again before the server forgets it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.event_writer import EVENTS, MOST, RENEW, EventWriter, Told
from xds_server.kubernetes.resources import Key, Object, Resource

MAPS = Resource(plural="configmaps", kind="ConfigMap")
CLASSES = Resource(group="networking.k8s.io", plural="ingressclasses", kind="IngressClass", namespaced=False)
START = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> datetime.datetime:
        return START + datetime.timedelta(seconds=self.seconds)


@asynccontextmanager
async def _writing(
    client: ApiClient, clock: Clock, leading: Callable[[], bool] = lambda: True
) -> AsyncIterator[EventWriter]:
    writer = EventWriter(client, "example.com/us", leading, clock=clock.now, wall=clock.wall)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
        assert not running.done(), "the writer ended"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def _events(client: ApiClient, namespace: str) -> list[Object]:
    return await client.list(EVENTS, namespace)


async def _number(client: ApiClient, namespace: str, writer: EventWriter) -> int:
    """Return the number of Events when everything is written."""
    await eventually(lambda: not writer._due(), "the Events")
    return len(await _events(client, namespace))


def _told(namespace: str, message: str = "something is wrong") -> Told:
    return Told(MAPS, Key(namespace, "settings"), "4711", "Conflict", message)


async def test_an_event_says_what_is_wrong_with_an_object(client: ApiClient, namespace: str) -> None:
    async with _writing(client, Clock()) as writer:
        writer.want([_told(namespace, "x" * 2000)])
        assert await _number(client, namespace, writer) == 1
    (event,) = await _events(client, namespace)
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "settings",
        "namespace": namespace,
        "uid": "4711",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Conflict", "x" * 1024)
    assert event["lastTimestamp"] == "2026-01-02T03:04:05Z"
    assert event["source"] == {"component": "example.com/us"}


async def test_the_events_of_one_object_are_bounded(client: ApiClient, namespace: str) -> None:
    other = Told(MAPS, Key(namespace, "other"), "4712", "Conflict", "why")
    async with _writing(client, Clock()) as writer:
        writer.want([*(_told(namespace, f"fault {number}") for number in range(4000)), other])
        assert await _number(client, namespace, writer) == MOST + 1
    events = [(one["reason"], one["message"]) for one in await _events(client, namespace)]
    assert ("MoreFaults", "3981 more things are wrong; correct the first ones") in events
    assert {("Conflict", f"fault {number}") for number in range(MOST - 1)} < set(events)


async def test_two_replicas_write_it_once(client: ApiClient, namespace: str) -> None:
    clock = Clock()
    for message in ("first", "second"):
        async with _writing(client, clock) as one, _writing(client, clock) as other:
            for writer in (one, other):
                writer.want([_told(namespace), _told(namespace, message)])
            for writer in (one, other):
                await _number(client, namespace, writer)
    assert sorted(event["message"] for event in await _events(client, namespace)) == [
        "first",
        "second",
        "something is wrong",
    ]


async def test_it_is_written_again_before_it_is_forgotten(client: ApiClient, namespace: str) -> None:
    clock = Clock()
    async with _writing(client, clock) as writer:
        writer.want([_told(namespace)])
        assert await _number(client, namespace, writer) == 1
        clock.seconds = RENEW
        writer.want([_told(namespace)])
        assert await _number(client, namespace, writer) == 2


async def test_only_the_leader_writes(client: ApiClient, namespace: str) -> None:
    leads = False
    async with _writing(client, Clock(), lambda: leads) as writer:
        writer.want([_told(namespace)])
        assert await _events(client, namespace) == []
        leads = True
        writer.want([_told(namespace)])
        assert await _number(client, namespace, writer) == 1


@pytest.mark.parametrize("told", [Told(CLASSES, Key("", "xds"), "4712", "NotProgrammed", "why")])
async def test_an_object_without_a_namespace_has_its_events_in_default(client: ApiClient, told: Told) -> None:
    clock = Clock()
    async with _writing(client, clock) as writer:
        writer.want([told])
        await _number(client, "default", writer)
    found = [one for one in await _events(client, "default") if one["involvedObject"]["uid"] == told.uid]
    assert [one["involvedObject"]["name"] for one in found] == ["xds"]
