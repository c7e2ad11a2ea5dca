"""The objects of a cluster at this moment, read once: for commands that look at a cluster and change nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filters.language import Problem, Problems
from xds_server.controller.reconciler import RESOURCES
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.objects import KINDS, Key, Kind, Object, read_object
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import Forbidden, NotFound
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.sources.gateway_folder import ManifestState, state_of


async def read_live(context: str | None, gateway: Key | None) -> ManifestState:
    """Return one Gateway of the cluster of a context, by default of the current one. Raises ApiError, InvalidKubeconfig.

    A Gateway that is named may be of the class of another controller. Kinds that the user may not list, or that the cluster does not have, are taken as if there were none.
    """
    given = os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")
    paths = [Path(one) for one in given.split(os.pathsep) if one]
    connection = read_kubeconfig(paths, context)
    problems: list[Problem] = []
    async with ApiClient(connection) as client:
        found = await asyncio.gather(*(_objects(client, kind, problems) for kind in KINDS))
    cluster = Cluster.of(one for some in found for one in some)
    return state_of(cluster, gateway, problems, of_every_class=gateway is not None)


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
