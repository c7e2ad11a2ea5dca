"""Local copies while the API server is killed and started again, forgets its history, and lacks streaming lists.

The API server of this module is its own. It has no watch cache, so that it serves from etcd alone: there a compaction
is a 410 at once. Streaming lists are switched off, as older API servers lack them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.followed import CONFIG_MAPS, config_map, followed
from tests.support.kubernetes.objects import Objects
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Gone, Invalid
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if line := build.missing():
        pytest.skip(line)
    flags = ("--watch-cache=false", "--feature-gates=WatchList=false")
    with ApiServer(tmp_path_factory.mktemp("api"), *flags, crds=None) as started:
        yield started


@pytest.fixture
def objects(server: ApiServer) -> Iterator[Objects]:
    with server.objects() as entered:
        yield entered


@pytest.fixture
def kubernetes(server: ApiServer) -> ApiServer:
    """The API server of this module instead of the session's."""
    return server


@pytest.fixture
async def proxy(server: ApiServer) -> AsyncIterator[TcpProxy]:
    port = int(read_kubeconfig([server.kubeconfig]).server.rpartition(":")[2])
    async with TcpProxy(port) as entered:
        yield entered


@pytest.fixture
async def proxied(server: ApiServer, proxy: TcpProxy) -> AsyncIterator[ApiClient]:
    connection = read_kubeconfig([server.kubeconfig])
    through = dataclasses.replace(connection, server=f"https://127.0.0.1:{proxy.port}")
    async with ApiClient(through) as entered:
        yield entered


async def test_this_server_rejects_a_streaming_list(client: ApiClient, namespace: str) -> None:
    with pytest.raises(Invalid, match="sendInitialEvents"):
        async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version=None)) as events:
            await anext(events)


async def test_a_copy_lists_in_pages_if_there_are_no_streaming_lists(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, "a", "1")])
    async with followed(client, namespaces=[namespace]) as copy:
        await copy.holds(namespace, {"a": "1"})
        objects.apply([config_map(namespace, "b", "1")])
        await copy.holds(namespace, {"a": "1", "b": "1"})


async def test_a_page_after_a_compaction_is_gone(
    client: ApiClient, server: ApiServer, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, f"c{number}", "1") for number in range(4)])
    async with aclosing(client.pages(CONFIG_MAPS, namespace, limit=2)) as pages:
        await anext(pages)
        objects.apply([config_map(namespace, "later", "1")])
        server.compact()
        with pytest.raises(Gone):
            await anext(pages)


async def test_after_a_compaction_only_the_difference_is_told(
    proxied: ApiClient, proxy: TcpProxy, server: ApiServer, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, name, "1") for name in ("same", "changed", "deleted", "replaced")])
    async with followed(proxied, namespaces=[namespace]) as copy:
        await copy.holds(namespace, dict.fromkeys(("same", "changed", "deleted", "replaced"), "1"))
        copy.told.changes.clear()
        proxy.open = False
        proxy.cut()
        objects.apply([config_map(namespace, "changed", "2"), config_map(namespace, "added", "1")])
        objects.delete(config_map(namespace, "deleted", ""))
        objects.delete(config_map(namespace, "replaced", ""))
        objects.apply([config_map(namespace, "replaced", "1")])
        server.compact()
        proxy.open = True
        await copy.holds(namespace, {"same": "1", "changed": "2", "added": "1", "replaced": "1"})
    told = sorted(
        (key.name, before, after) for key, before, after in copy.told.changes if before != "1" or after
    )
    assert told == [("added", None, "1"), ("changed", "1", "2"), ("replaced", None, "1")]
    gone = sorted(key.name for key, _, after in copy.told.changes if after is None)
    assert gone == ["deleted", "replaced"]


async def test_a_copy_outlives_a_killed_server(
    client: ApiClient, server: ApiServer, objects: Objects, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    objects.apply([config_map(namespace, "a", "1"), config_map(namespace, "b", "1")])
    async with followed(client, namespaces=[namespace]) as copy:
        await copy.holds(namespace, {"a": "1", "b": "1"})
        copy.told.changes.clear()
        server.kill()
        await eventually(lambda: "cannot follow a kind" in caplog.text, "the report")
        server.launch()
        await asyncio.to_thread(server.ready)
        assert copy.told.changes == []
        objects.apply([config_map(namespace, "a", "2")])
        await copy.holds(namespace, {"a": "2", "b": "1"})
    assert copy.told.changes == [(Key(namespace, "a"), "1", "2")]


async def test_a_change_right_before_the_kill_is_not_lost(
    proxied: ApiClient, proxy: TcpProxy, server: ApiServer, objects: Objects, namespace: str
) -> None:
    objects.apply([config_map(namespace, "a", "1")])
    async with followed(proxied, namespaces=[namespace]) as copy:
        await copy.holds(namespace, {"a": "1"})
        proxy.freeze()
        objects.apply([config_map(namespace, "a", "2"), config_map(namespace, "b", "1")])
        server.kill()
        proxy.cut()
        server.launch()
        await asyncio.to_thread(server.ready)
        await copy.holds(namespace, {"a": "2", "b": "1"})
