"""Local copies that follow a real API server, also through a network that cuts, delays and freezes."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import uuid
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.kubernetes.followed import CONFIG_MAPS, PACE, config_map, followed, value_of
from tests.support.kubernetes.objects import Object, Objects
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient, Selection
from xds_server.kubernetes.connection import Connection, Material
from xds_server.kubernetes.resources import Key, Resource

CUTS = 6
"""Connections of a client whose stream is cut again and again."""

streaming_or_not = pytest.mark.parametrize("streaming", [True, False], ids=["streaming list", "pages"])


@pytest.fixture
async def proxy(connection: Connection) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(int(connection.server.rpartition(":")[2])) as entered:
        yield entered


@pytest.fixture
async def proxied(connection: Connection, proxy: TcpProxy) -> AsyncIterator[ApiClient]:
    """A client through the proxy."""
    through = dataclasses.replace(connection, server=f"https://127.0.0.1:{proxy.port}")
    async with ApiClient(through, limit=5) as entered:
        yield entered


@streaming_or_not
async def test_a_copy_has_what_is_there_and_follows_changes(
    client: ApiClient, objects: Objects, namespace: str, streaming: bool
) -> None:
    objects.apply([config_map(namespace, "a", "1"), config_map(namespace, "b", "1")])
    async with followed(client, namespaces=[namespace], streaming=streaming) as copy:
        await copy.cache.synced.wait()
        assert copy.told.of(namespace) == {"a": "1", "b": "1"}
        objects.apply([config_map(namespace, "a", "2"), config_map(namespace, "c", "1")])
        objects.delete(config_map(namespace, "b", ""))
        await copy.holds(namespace, {"a": "2", "c": "1"})
        assert copy.cache.stale < 60


async def test_a_change_of_what_is_not_kept_is_not_told(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, "a", "1")])
    async with followed(client, namespaces=[namespace]) as copy:
        await copy.cache.synced.wait()
        objects.apply([config_map(namespace, "a", "1", other="label"), config_map(namespace, "b", "1")])
        await copy.holds(namespace, {"a": "1", "b": "1"})
    assert [str(key) for key, _, _ in copy.told.changes] == [f"{namespace}/a", f"{namespace}/b"]


async def test_only_selected_objects_are_followed(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, "a", "1", team="x"), config_map(namespace, "b", "1", team="y")])
    selection = Selection(labels="team=x", fields="metadata.name!=c")
    async with followed(client, namespaces=[namespace], selection=selection) as copy:
        await copy.cache.synced.wait()
        assert copy.told.of(namespace) == {"a": "1"}
        objects.apply([config_map(namespace, "a", "2", team="y"), config_map(namespace, "b", "2", team="x")])
        objects.apply([config_map(namespace, "c", "1", team="x"), config_map(namespace, "d", "1", team="x")])
        await copy.holds(namespace, {"b": "2", "d": "1"})


async def test_several_namespaces_are_followed_as_one(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    others = [objects.namespace(f"{namespace}-{number}") for number in range(2)]
    objects.apply([config_map(name, "a", "1") for name in (namespace, *others)])
    async with followed(client, namespaces=[namespace, others[0]]) as copy:
        await copy.cache.synced.wait()
        assert {key.namespace for key in copy.cache.items} == {namespace, others[0]}
        objects.apply([config_map(others[0], "a", "2")])
        await copy.holds(others[0], {"a": "2"})
        await copy.holds(namespace, {"a": "1"})


async def test_all_namespaces_are_followed_by_one_stream(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    async with followed(client) as copy:
        await copy.cache.synced.wait()
        objects.apply([config_map(namespace, "a", "1")])
        await copy.holds(namespace, {"a": "1"})


@streaming_or_not
async def test_1200_objects_come_in_pages_or_in_a_stream(
    client: ApiClient, namespace: str, streaming: bool
) -> None:
    expected = {f"c{number}": str(number) for number in range(1200)}
    slots = asyncio.Semaphore(20)

    async def create(name: str, value: str) -> None:
        async with slots:
            await client.create(CONFIG_MAPS, config_map(namespace, name, value))

    await asyncio.gather(*(create(*item) for item in expected.items()))
    async with followed(client, namespaces=[namespace], streaming=streaming) as copy:
        await copy.cache.synced.wait()
        assert copy.told.of(namespace) == expected
    assert len(copy.told.changes) == 1200


@streaming_or_not
async def test_a_cut_stream_resumes_without_a_gap(
    proxied: ApiClient, proxy: TcpProxy, client: ApiClient, namespace: str, streaming: bool
) -> None:
    async with followed(proxied, namespaces=[namespace], streaming=streaming) as copy:
        for number in range(60):
            name = f"c{number % 7}"
            await client.apply(CONFIG_MAPS, config_map(namespace, name, str(number)), manager="us")
            if number % 5 == 0:
                await client.delete(CONFIG_MAPS, Key(namespace, name))
            if number % 4 == 0:
                proxy.cut()
        while proxy.accepted < CUTS:  # the pause between two connections grows, so there may have been few
            seen = proxy.accepted
            proxy.cut()
            await eventually(lambda seen=seen: proxy.accepted > seen, "another connection")
        left = {one["metadata"]["name"]: value_of(one) for one in await client.list(CONFIG_MAPS, namespace)}
        await copy.holds(namespace, left)


async def test_a_slow_server_is_followed(
    proxied: ApiClient, proxy: TcpProxy, objects: Objects, namespace: str
) -> None:
    proxy.delay = 0.3
    objects.apply([config_map(namespace, "a", "1")])
    async with followed(proxied, namespaces=[namespace]) as copy:
        await copy.holds(namespace, {"a": "1"})
        objects.apply([config_map(namespace, "a", "2")])
        await copy.holds(namespace, {"a": "2"})


async def test_a_stream_that_says_nothing_for_too_long_is_opened_again(
    proxied: ApiClient, proxy: TcpProxy, objects: Objects, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pace = dataclasses.replace(PACE, watch=1.0, grace=0.5)
    async with followed(proxied, namespaces=[namespace], pace=pace) as copy:
        await copy.cache.synced.wait()
        proxy.freeze()
        objects.apply([config_map(namespace, "a", "1")])
        await eventually(lambda: "no response in time" in caplog.text, "the silence to be reported")
        assert copy.told.of(namespace) == {}
        proxy.cut()
        await copy.holds(namespace, {"a": "1"})
    assert "cannot follow a kind; what is known of it stays in use resource=configmaps" in caplog.text
    assert f"the API server answers again resource=configmaps namespace={namespace}" in caplog.text


async def test_the_age_of_the_connection_is_known(
    proxied: ApiClient, proxy: TcpProxy, namespace: str
) -> None:
    now = 100.0
    pace = dataclasses.replace(PACE, clock=lambda: now)
    proxy.open = False
    async with followed(proxied, namespaces=[namespace], pace=pace) as copy:
        assert copy.cache.stale == math.inf
        proxy.open = True
        await copy.cache.synced.wait()
        assert copy.cache.stale == 0
        now = 130.0
        assert copy.cache.stale == 30


async def test_a_kind_that_is_not_installed_is_empty_until_it_is(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    group = f"g{uuid.uuid4().hex[:8]}.example"
    widgets = Resource(group=group, plural="widgets", kind="Widget")
    async with followed(client, widgets, lambda object_: object_["spec"], namespaces=[namespace]) as copy:
        await copy.cache.synced.wait()
        assert copy.cache.items == {}
        objects.apply([_crd(group)])
        await eventually(lambda: _served(client, widgets), "the CRD to be served")
        metadata = {"name": "a", "namespace": namespace}
        objects.apply([{"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": metadata, "spec": "x"}])
        await copy.holds(namespace, {"a": "x"})
        objects.delete(_crd(group))
        await copy.holds(namespace, {})


async def _served(client: ApiClient, resource: Resource) -> bool:
    return await client.serves(resource)


def _crd(group: str) -> Object:
    schema = {"type": "object", "properties": {"spec": {"type": "string"}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version],
        },
    }


async def test_a_missing_right_is_named_and_the_copy_begins_when_it_is_granted(
    connection: Connection, objects: Objects, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    objects.apply([config_map(namespace, "a", "1")])
    token = objects.token_of(namespace, "controller")
    async with (
        ApiClient(dataclasses.replace(connection, token=Material(content=token.encode()))) as limited,
        followed(limited, namespaces=[namespace]) as copy,
    ):
        await eventually(lambda: "the account may not read a kind" in caplog.text, "the report")
        assert not copy.cache.synced.is_set()
        assert copy.cache.stale == math.inf
        objects.apply(_grant(namespace, "controller"))
        await copy.holds(namespace, {"a": "1"})
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1, "an error that stays is reported once"
    assert "grant it the verbs list and watch resource=configmaps" in errors[0].getMessage()
    assert f'cannot watch resource "configmaps" in API group "" in the namespace "{namespace}"' in caplog.text
    assert token not in caplog.text


def _grant(namespace: str, account: str) -> list[Object]:
    api, metadata = "rbac.authorization.k8s.io", {"name": account, "namespace": namespace}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": account},
            "subjects": [subject],
        },
    ]


async def test_a_404_of_a_proxy_on_the_way_is_not_taken_for_a_missing_kind(
    namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def reject(request: web.Request) -> web.Response:
        return web.Response(status=404, text="no such site\n")

    site = web.Application()
    site.router.add_route("*", "/{path:.*}", reject)
    async with (
        TestServer(site) as wrong,
        ApiClient(Connection(server=f"http://127.0.0.1:{wrong.port}")) as client,
        followed(client, namespaces=[namespace]) as copy,
    ):
        await eventually(lambda: "404 : no such site" in caplog.text, lambda: f"the report: {caplog.text}")
        assert not copy.cache.synced.is_set()
