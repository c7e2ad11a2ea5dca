"""The status of objects on a real API server: beside other controllers, and no more writes than needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.resources import Key, Object, Resource
from xds_server.kubernetes.status_writer import AT_ONCE, StatusWriter

GROUP = "gateway.networking.k8s.io"
GATEWAYS = Resource(group=GROUP, plural="gateways", kind="Gateway")
ROUTES = Resource(group=GROUP, plural="httproutes", kind="HTTPRoute")
US, THEM = "example.com/us", "example.com/them"


@asynccontextmanager
async def _writing(
    client: ApiClient,
    controller: str = US,
    leading: Callable[[], bool] = lambda: True,
    at_once: int = AT_ONCE,
) -> AsyncIterator[StatusWriter]:
    writer = StatusWriter(client, controller, leading, at_once=at_once)
    running = asyncio.create_task(writer.run())
    try:
        yield writer
        assert not running.done(), "the writer ended"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def _done(writer: StatusWriter) -> None:
    await eventually(lambda: writer.idle, "all to be written")


def _condition(status: str = "True", type_: str = "Accepted", message: str = "") -> Object:
    return {"type": type_, "status": status, "reason": type_, "message": message, "observedGeneration": 1}


def _parent(name: str = "shop", status: str = "True") -> Object:
    return {"parentRef": {"name": name}, "conditions": [_condition(status)]}


async def _route(client: ApiClient, namespace: str, name: str = "route") -> Object:
    spec = {"parentRefs": [{"name": "shop"}]}
    return await client.create(ROUTES, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})


async def _gateway(client: ApiClient, namespace: str) -> Object:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    spec = {"gatewayClassName": "xds", "listeners": [listener]}
    return await client.create(GATEWAYS, {"metadata": {"name": "shop", "namespace": namespace}, "spec": spec})


def _controllers(route: Object) -> list[str]:
    return [entry["controllerName"] for entry in route["status"]["parents"]]


async def test_two_controllers_keep_each_others_entries(client: ApiClient, namespace: str) -> None:
    await _route(client, namespace)
    key = Key(namespace, "route")
    async with _writing(client) as ours, _writing(client, THEM) as theirs:
        for number in range(10):
            ours.want(ROUTES, key, {"parents": [_parent(status="True" if number % 2 else "False")]})
            theirs.want(ROUTES, key, {"parents": [_parent(status="False" if number % 2 else "True")]})
            await asyncio.gather(_done(ours), _done(theirs))
        route = await client.get(ROUTES, key)
        assert sorted(_controllers(route)) == [THEM, US]
        status = {one["controllerName"]: one["conditions"][0]["status"] for one in route["status"]["parents"]}
        assert status == {US: "True", THEM: "False"}
        ours.want(ROUTES, key, {"parents": []})
        await _done(ours)
        assert _controllers(await client.get(ROUTES, key)) == [THEM]


async def test_a_stale_object_is_read_again(client: ApiClient, namespace: str) -> None:
    stale = await _route(client, namespace)
    key = Key(namespace, "route")
    await client.merge_patch(ROUTES, key, {"metadata": {"labels": {"a": "b"}}}, manager="test")
    async with _writing(client) as writer:
        writer.want(ROUTES, key, {"parents": [_parent()]}, stale)
        await _done(writer)
    assert _controllers(await client.get(ROUTES, key)) == [US]


async def test_conditions_of_another_manager_stay(client: ApiClient, namespace: str) -> None:
    gateway = await _gateway(client, namespace)
    key = Key(namespace, "shop")
    theirs = {
        "metadata": {"name": "shop", "namespace": namespace},
        "status": {
            "conditions": [{**_condition(type_="Theirs"), "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        },
    }
    await client.apply(GATEWAYS, theirs, manager=THEM, subresource="status")
    listener = {"name": "http", "attachedRoutes": 0, "supportedKinds": [], "conditions": [_condition()]}
    async with _writing(client) as writer:
        writer.want(GATEWAYS, key, {"conditions": [_condition()], "listeners": [listener]}, gateway)
        await _done(writer)
        found = await client.get(GATEWAYS, key)
        types = [one["type"] for one in found["status"]["conditions"]]
        assert {"Theirs", "Accepted"} <= set(types)
        assert found["status"]["listeners"][0]["conditions"][0]["status"] == "True"
        written = writer.written
        writer.want(GATEWAYS, key, {"conditions": [_condition()], "listeners": [listener]}, found)
        await _done(writer)
        assert writer.written == written, "nothing differs from what was applied"
        writer.want(GATEWAYS, key, {"conditions": [_condition()], "listeners": []}, found)
        await _done(writer)
    assert not (await client.get(GATEWAYS, key))["status"].get("listeners"), (
        "a listener that is not wanted goes"
    )


async def test_only_differences_are_written_and_the_time_changes_with_the_status(
    client: ApiClient, namespace: str
) -> None:
    await _route(client, namespace)
    key = Key(namespace, "route")
    async with _writing(client) as writer:
        writer.want(ROUTES, key, {"parents": [_parent()]})
        await _done(writer)
        first = await client.get(ROUTES, key)
        writer.want(ROUTES, key, {"parents": [_parent()]})
        writer.want(ROUTES, key, {"parents": [_parent()]}, first)
        await _done(writer)
        same = await client.get(ROUTES, key)
        assert same["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert writer.written == 1


async def test_what_is_wanted_of_one_object_is_written_once_when_this_process_leads(
    client: ApiClient, namespace: str
) -> None:
    leading = False
    routes = [await _route(client, namespace, f"route-{number}") for number in range(20)]
    async with _writing(client, leading=lambda: leading) as writer:
        for status in ("False", "Unknown", "True"):
            for number, route in enumerate(routes):
                writer.want(
                    ROUTES, Key(namespace, f"route-{number}"), {"parents": [_parent(status=status)]}, route
                )
        await asyncio.sleep(0)
        assert writer.written == 0
        leading = True
        writer.resume()
        await _done(writer)
    assert writer.written == 20
    for route in await client.list(ROUTES, namespace):
        assert route["status"]["parents"][0]["conditions"][0]["status"] == "True"


async def test_a_deleted_object_and_an_invalid_status_stop_nothing(
    client: ApiClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await _route(client, namespace)
    async with _writing(client) as writer:
        writer.want(ROUTES, Key(namespace, "missing"), {"parents": [_parent()]})
        writer.want(ROUTES, Key(namespace, "route"), {"parents": [_parent(status="Perhaps")]})
        await _done(writer)
        assert "a status was rejected; the object keeps its old one" in caplog.text
        assert "Perhaps" in caplog.text
        writer.want(ROUTES, Key(namespace, "route"), {"parents": [_parent()]})
        await _done(writer)
    assert writer.written == 1


async def test_what_is_wanted_first_does_not_wait_for_the_others(client: ApiClient, namespace: str) -> None:
    leading = False
    for number in range(20):
        await _route(client, namespace, f"route-{number}")
    await _route(client, namespace, "urgent")
    async with _writing(client, leading=lambda: leading, at_once=1) as writer:
        for number in range(20):
            writer.want(ROUTES, Key(namespace, f"route-{number}"), {"parents": [_parent()]})
        writer.want(ROUTES, Key(namespace, "urgent"), {"parents": [_parent()]}, first=True)
        leading = True
        writer.resume()
        await _done(writer)
    written = {one["metadata"]["name"]: one for one in await client.list(ROUTES, namespace)}
    versions = {name: int(one["metadata"]["resourceVersion"]) for name, one in written.items()}
    assert min(versions, key=lambda name: versions[name]) == "urgent"
    assert all(one["status"]["parents"] for one in written.values())
