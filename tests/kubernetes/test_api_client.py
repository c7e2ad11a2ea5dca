"""Requests to a real API server, and every way in which it rejects them."""

from __future__ import annotations

import base64
import dataclasses
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.support.kubernetes.followed import CONFIG_MAPS, config_map
from tests.support.kubernetes.objects import Objects
from tests.support.kubernetes.shared import SharedServer
from tests.support.ports import free_port
from tests.support.tcp_proxy import TcpProxy
from xds_server.errors import InvalidKubeconfig
from xds_server.kubernetes.api_client import ApiClient, Selection
from xds_server.kubernetes.api_errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
    Unreachable,
)
from xds_server.kubernetes.connection import Connection, Material
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Key, Resource

GATEWAYS = Resource(group="gateway.networking.k8s.io", plural="gateways", kind="Gateway")


async def test_an_object_is_created_read_replaced_and_deleted(client: ApiClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map(namespace, "a", "1"))
    key = Key(namespace, "a")
    assert (await client.get(CONFIG_MAPS, key))["data"] == {"value": "1"}
    replaced = await client.replace(CONFIG_MAPS, {**made, "data": {"value": "2"}})
    assert replaced["data"] == {"value": "2"}
    with pytest.raises(Conflict) as stale:
        await client.replace(CONFIG_MAPS, {**made, "data": {"value": "3"}})
    assert (stale.value.status.code, stale.value.status.reason) == (409, "Conflict")
    with pytest.raises(Conflict, match="AlreadyExists"):
        await client.create(CONFIG_MAPS, config_map(namespace, "a", "1"))
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, key, uid="another")
    await client.delete(CONFIG_MAPS, key, uid=made["metadata"]["uid"])
    with pytest.raises(
        NotFound, match=f'GET /api/v1/namespaces/{namespace}/configmaps/a: 404 NotFound: .*"a"'
    ):
        await client.get(CONFIG_MAPS, key)


async def test_a_patch_with_a_stale_version_is_a_conflict(client: ApiClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map(namespace, "a", "1"))
    key, version = Key(namespace, "a"), made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"value": "2"}}
    assert (await client.merge_patch(CONFIG_MAPS, key, patch, manager="us"))["data"] == {"value": "2"}
    patch["data"] = {"value": "3"}
    with pytest.raises(Conflict):
        await client.merge_patch(CONFIG_MAPS, key, patch, manager="us")


async def test_applied_fields_belong_to_their_manager(client: ApiClient, namespace: str) -> None:
    ours = {"metadata": {"name": "a", "namespace": namespace}, "data": {"value": "1", "other": "2"}}
    await client.apply(CONFIG_MAPS, ours, manager="us")
    with pytest.raises(Conflict, match=r'conflict with "us": \.data\.value'):
        await client.apply(CONFIG_MAPS, {**ours, "data": {"value": "3"}}, manager="them", force=False)
    await client.apply(CONFIG_MAPS, {**ours, "data": {"value": "3"}}, manager="them")
    applied = await client.apply(CONFIG_MAPS, {**ours, "data": {}}, manager="us")
    assert applied["data"] == {"value": "3"}


async def test_status_is_a_subresource(client: ApiClient, namespace: str) -> None:
    metadata = {"name": "shop", "namespace": namespace}
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    spec = {"gatewayClassName": "xds", "listeners": [listener]}
    await client.apply(GATEWAYS, {"metadata": metadata, "spec": spec}, manager="us")
    status = {"addresses": [{"value": "10.245.0.1"}]}
    await client.apply(GATEWAYS, {"metadata": metadata, "status": status}, manager="us", subresource="status")
    found = await client.get(GATEWAYS, Key(namespace, "shop"))
    assert found["status"]["addresses"][0]["value"] == "10.245.0.1"
    assert found["spec"]["listeners"][0]["name"] == "http"


async def test_an_invalid_object_is_rejected_with_the_reason(client: ApiClient, namespace: str) -> None:
    gateway = {"metadata": {"name": "shop", "namespace": namespace}, "spec": {"gatewayClassName": "xds"}}
    with pytest.raises(Invalid, match=r"422 Invalid: .*spec\.listeners: Required value") as error:
        await client.create(GATEWAYS, gateway)
    assert error.value.exit_code == 3


async def test_objects_are_listed_in_pages_by_labels_and_fields(client: ApiClient, namespace: str) -> None:
    for number in range(5):
        await client.create(CONFIG_MAPS, config_map(namespace, f"c{number}", "1", even=str(number % 2 == 0)))
    sizes = [len(page.items) async for page in client.pages(CONFIG_MAPS, namespace, limit=2)]
    assert sizes == [2, 2, 1]
    even = await client.list(CONFIG_MAPS, namespace, Selection(labels="even=True"), limit=1)
    assert [one["metadata"]["name"] for one in even] == ["c0", "c2", "c4"]
    named = await client.list(CONFIG_MAPS, namespace, Selection(fields="metadata.name=c3"))
    assert [one["metadata"]["name"] for one in named] == ["c3"]


async def test_the_server_says_which_kinds_it_has(client: ApiClient) -> None:
    assert await client.serves(CONFIG_MAPS)
    assert await client.serves(GATEWAYS)
    for missing in (
        dataclasses.replace(CONFIG_MAPS, plural="nothings"),
        dataclasses.replace(GATEWAYS, plural="nothings"),
        dataclasses.replace(GATEWAYS, version="v9"),
        dataclasses.replace(GATEWAYS, group="nothing.example"),
    ):
        assert not await client.serves(missing)
        with pytest.raises(NotFound):
            await client.list(missing)


async def test_a_watch_is_told_versions_that_have_no_event_for_it(
    client: ApiClient, objects: Objects, namespace: str
) -> None:
    made = await client.create(CONFIG_MAPS, config_map(namespace, "a", "1"))
    version = made["metadata"]["resourceVersion"]
    await client.create(CONFIG_MAPS, config_map(namespace, "b", "1"))
    async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version=version, seconds=5)) as events:
        first = await anext(events)
        assert (first.type, first.object["metadata"]["name"]) == ("ADDED", "b")
        (elsewhere,) = objects.apply([config_map(objects.namespace(f"{namespace}-other"), "c", "1")])
        last = [event async for event in events][-1]  # the server sends it shortly before the watch ends
    assert (last.type, last.initial_end) == ("BOOKMARK", False)
    assert int(last.resource_version) >= int(elsewhere["metadata"]["resourceVersion"])


async def test_a_streaming_list_has_all_objects_and_then_its_end(client: ApiClient, namespace: str) -> None:
    for name in ("a", "b"):
        await client.create(CONFIG_MAPS, config_map(namespace, name, "1"))
    async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version=None)) as events:
        seen = [await anext(events) for _ in range(3)]
    assert [event.object["metadata"].get("name") for event in seen[:2]] == ["a", "b"]
    assert seen[2].initial_end


async def test_a_token_may_do_what_its_account_may(
    connection: Connection, objects: Objects, namespace: str
) -> None:
    token = objects.token_of(namespace, "reader")
    async with ApiClient(dataclasses.replace(connection, token=Material(content=token.encode()))) as limited:
        with pytest.raises(Forbidden) as error:
            await limited.list(CONFIG_MAPS, namespace)
    assert f'User "system:serviceaccount:{namespace}:reader" cannot list resource "configmaps"' in str(
        error.value
    )
    assert token not in str(error.value)


async def test_a_token_file_is_read_again_when_it_changes(
    connection: Connection, objects: Objects, namespace: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("expired")
    async with ApiClient(dataclasses.replace(connection, token=Material(path))) as client:
        with pytest.raises(Unauthorized):
            await client.list(CONFIG_MAPS, namespace)
        path.with_name("new").write_text(objects.token)
        path.with_name("new").rename(path)
        assert await client.list(CONFIG_MAPS, namespace) == await client.list(CONFIG_MAPS, namespace)


async def test_a_client_certificate_names_the_user(
    kubernetes: SharedServer, connection: Connection, namespace: str
) -> None:
    data = kubernetes.kubeconfig.parent
    certificate, key = (Material(data / f"client.{end}") for end in ("crt", "key"))
    theirs = dataclasses.replace(connection, token=None, certificate=certificate, private_key=key)
    async with ApiClient(theirs) as client:
        with pytest.raises(Forbidden, match='User "alice" cannot list resource "configmaps"'):
            await client.list(CONFIG_MAPS, namespace)


async def test_the_certificate_of_the_server_is_verified(connection: Connection, namespace: str) -> None:
    async with ApiClient(dataclasses.replace(connection, authorities=None)) as client:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await client.list(CONFIG_MAPS, namespace)
    async with ApiClient(dataclasses.replace(connection, server_name="other.example")) as client:
        with pytest.raises(Unreachable, match=r"certificate is not valid for 'other\.example'"):
            await client.list(CONFIG_MAPS, namespace)
    async with ApiClient(dataclasses.replace(connection, authorities=None, verify=False)) as client:
        await client.list(CONFIG_MAPS, namespace)
    async with ApiClient(dataclasses.replace(connection, server_name="kubernetes.default.svc")) as client:
        await client.list(CONFIG_MAPS, namespace)


async def test_the_data_of_a_kubeconfig_is_as_good_as_its_files(
    kubernetes: SharedServer, namespace: str, tmp_path: Path
) -> None:
    data = kubernetes.kubeconfig.parent
    pair = {end: base64.b64encode((data / f"client.{end}").read_bytes()).decode() for end in ("crt", "key")}
    text = kubernetes.kubeconfig.read_text().partition("users:")[0]
    text += "users:\n- name: admin\n  user:\n"
    text += f"    client-certificate-data: {pair['crt']}\n    client-key-data: {pair['key']}\n"
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    async with ApiClient(read_kubeconfig([path])) as client:
        with pytest.raises(Forbidden, match='User "alice"'):
            await client.list(CONFIG_MAPS, namespace)


async def test_a_server_that_is_away_is_unreachable(connection: Connection) -> None:
    nobody = dataclasses.replace(connection, server=f"https://127.0.0.1:{free_port()}")
    async with ApiClient(nobody) as client:
        with pytest.raises(Unreachable, match="GET /api/v1/configmaps: Cannot connect to host"):
            await client.list(CONFIG_MAPS)


async def test_a_server_that_does_not_answer_in_time_is_unreachable(
    connection: Connection, namespace: str
) -> None:
    async with TcpProxy(int(connection.server.rpartition(":")[2])) as proxy:
        slow = dataclasses.replace(connection, server=f"https://127.0.0.1:{proxy.port}")
        proxy.freeze()
        async with ApiClient(slow, limit=0.2) as client:
            with pytest.raises(Unreachable, match="no response in time"):
                await client.list(CONFIG_MAPS, namespace)


async def test_a_missing_token_file_is_the_mistake_of_the_user(
    connection: Connection, tmp_path: Path
) -> None:
    async with ApiClient(dataclasses.replace(connection, token=Material(tmp_path / "token"))) as client:
        with pytest.raises(InvalidKubeconfig, match="token: No such file or directory"):
            await client.list(CONFIG_MAPS)
