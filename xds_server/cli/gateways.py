"""The gateway that a command looks at: a folder of gateway files or manifests, on disk or in git, or a Gateway of a live cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

from xds_server.cli import git
from xds_server.errors import InvalidGateway, UnreadableFolder
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.manifests import Manifests
from xds_server.gateway_api.objects import Key
from xds_server.sources.folder import read_folder
from xds_server.sources.gateway_folder import FolderReader, read_gateway
from xds_server.sources.git_address import is_git
from xds_server.sources.source import SourceState

CLUSTER = "k8s:"
"""Stands for a cluster in the place of a folder; the context of the kubeconfig may follow."""


def read(source: Path | str, gateway: Key | None) -> SourceState:
    """Return the gateway now. Raises ApiError, InvalidKubeconfig for a cluster."""
    if is_git(str(source)):
        return FolderReader(gateway).state(git.read(str(source)))
    if not str(source).startswith(CLUSTER):
        return read_gateway(source, gateway)
    from xds_server.controller.live import read_live

    return asyncio.run(read_live(_context(source), gateway))


def read_cluster(source: Path | str) -> Cluster:
    """Return the objects of a cluster or folder of manifests.

    Raises ApiError, InvalidKubeconfig, InvalidGateway, UnreadableFolder.
    """
    if str(source).startswith(CLUSTER):
        from xds_server.controller.live import live_cluster

        return asyncio.run(live_cluster(_context(source)))[0]
    folder = git.read(str(source)) if is_git(str(source)) else read_folder(source)
    if folder.problems:
        raise UnreadableFolder("; ".join(folder.problems))
    cluster, problems = Manifests().read(folder.files)
    if any(one.severity == "error" for one in problems):
        raise InvalidGateway(tuple(problems))
    return cluster


def _context(source: Path | str) -> str | None:
    return str(source).removeprefix(CLUSTER) or None
