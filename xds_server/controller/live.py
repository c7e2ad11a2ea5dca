"""The objects of a cluster at this moment, read once: for commands that look at a cluster and change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from filters.language import Problem, Problems
from xds_server.controller.watched_kinds import RESOURCES
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.ingress import NAMESPACE
from xds_server.gateway_api.objects import KINDS, Key, Kind, Object, read_object
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Forbidden, NotFound
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Object as Value
from xds_server.sources.manifest_folder import ManifestState, state_of


async def read_live(context: str | None, gateway: Key | None) -> ManifestState:
    """Return one Gateway of the cluster of a context, by default of the current one. Raises ApiError, InvalidKubeconfig.

    A Gateway that is named may be of the class of another controller. Kinds that the user may not list, or that the cluster does not have, are taken as if there were none.
    """
    cluster, problems = await live_cluster(context)
    return state_of(cluster, gateway, problems, of_every_class=_every_class(gateway))


async def live_cluster(context: str | None) -> tuple[Cluster, list[Problem]]:
    """Return the objects of the cluster of a context, and what cannot be read of them. Raises ApiError, InvalidKubeconfig."""
    problems: list[Problem] = []
    async with _client(context) as client:
        found = await asyncio.gather(*(_objects(client, kind, problems) for kind in KINDS))
    return Cluster.of(one for some in found for one in some), problems


async def live_objects(context: str | None, kinds: Collection[str]) -> dict[str, list[Value]]:
    """Return the objects of some kinds as the API server has them, with their statuses, by kind. Raises as `live_cluster`.

    A kind that the cluster does not have, or that the user may not list, is left out.
    """
    found: dict[str, list[Value]] = {}
    async with _client(context) as client:
        for kind in kinds:
            with suppress(NotFound, Forbidden):
                found[kind] = await client.list(RESOURCES[kind])
    return found


def _client(context: str | None) -> ApiClient:
    given = os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")
    paths = [Path(one) for one in given.split(os.pathsep) if one]
    return ApiClient(read_kubeconfig(paths, context))


def _every_class(gateway: Key | None) -> Collection[str]:
    """Return the kind of classes of which all are ours, because one Gateway or IngressClass is named."""
    if gateway is None:
        return ()
    return ("IngressClass",) if gateway[0] == NAMESPACE else ("GatewayClass",)


async def _objects(client: ApiClient, kind: Kind, problems: list[Problem]) -> list[Object[Any]]:
    try:
        values = await client.list(RESOURCES[kind.name])
    except NotFound:
        return []
    except Forbidden:
        message = (
            f"you may not list the {RESOURCES[kind.name].plural} of the cluster, so they count as missing"
        )
        remedy = f"get the right to list {RESOURCES[kind.name]}"
        problems.append(Problem(path=(), message=message, remedy=remedy, severity="warning"))
        return []
    return list(_read(kind, values, problems))


def _read(kind: Kind, values: list[dict[str, Any]], problems: list[Problem]) -> Iterator[Object[Any]]:
    for value in values:
        faults = Problems()
        one = read_object(kind, value, (), faults)
        if one is not None:
            yield one
        problems += (
            Problem(
                path=(kind.name, *fault.path), message=fault.message, remedy=fault.remedy, severity="warning"
            )
            for fault in faults
        )
