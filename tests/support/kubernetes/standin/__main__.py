"""python -m tests.support.kubernetes.standin: scheduler, kubelet, kube-proxy, DNS, load balancer and some controllers.

It does what the conformance suite of the Gateway API needs, with pods as local processes. It runs in the network
namespace of a node (`Namespace.node`), in a mount and a process namespace of its own, so that nothing remains.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tests.support.kubernetes.standin import deployments, garbage
from tests.support.kubernetes.standin.dns import Dns
from tests.support.kubernetes.standin.images import Image, read_images
from tests.support.kubernetes.standin.kubelet import Kubelet
from tests.support.kubernetes.standin.namespaces import Namespaces
from tests.support.kubernetes.standin.node import ADDRESS, Node
from tests.support.kubernetes.standin.services import Services
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.api_errors import ApiError, Conflict, NotFound
from xds_server.kubernetes.kubeconfig import read_kubeconfig

log = logging.getLogger(__name__)

READY = "the stand-in is ready"
_QUIET, _LATEST = 0.02, 5.0
"""Seconds between two looks at everything, and the latest time of a look without a change."""


async def _serve(client: ApiClient, folder: Path, known: list[Image], exec_server: Path | None) -> None:
    node = Node(client, folder)
    kubelet, namespaces = Kubelet(node, known), Namespaces(node)
    services = Services(node, kubelet)
    services.prepare()
    await kubelet.register()
    await kubelet.serve(folder, exec_server)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Dns(node), (ADDRESS, 53))
    async with asyncio.TaskGroup() as tasks:
        for cache in node.caches.values():
            tasks.create_task(cache.run())
        for cache in node.caches.values():
            await cache.synced.wait()
        log.info(READY)
        parts = (
            namespaces.reconcile,
            lambda: garbage.reconcile(node),
            lambda: deployments.reconcile(node),
            kubelet.reconcile,
            services.reconcile,
        )
        try:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(node.dirty.wait(), _LATEST)
                node.dirty.clear()
                for part in parts:
                    await _attempt(node, part)
                await asyncio.sleep(_QUIET)
        finally:
            await kubelet.stop()


async def _attempt(node: Node, part: Callable[[], Awaitable[None]]) -> None:
    """Call a part, which is called again soon if it fails."""
    try:
        await part()
    except (NotFound, Conflict):
        node.later()
    except (ApiError, RuntimeError, KeyError, StopIteration):
        log.exception("a part failed")
        node.later()


async def _main(kubeconfig: Path, folder: Path, known: list[Image], exec_server: Path | None) -> None:
    async with ApiClient(read_kubeconfig([kubeconfig])) as client:
        serving = asyncio.ensure_future(_serve(client, folder, known, exec_server))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
        with suppress(asyncio.CancelledError):
            await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for logs and files of pods")
    parser.add_argument("--programs", required=True, help="the folder of the suite's programs")
    parser.add_argument("--envoy", required=True, help="the Envoy that pods run")
    parser.add_argument("--exec-server", type=Path, help="the program with which kubectl exec works")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "BIN": arguments.programs,
        "ENVOY": arguments.envoy,
        "PYTHON": sys.executable,
        "TESTS": str(Path(__file__).parents[1]),
    }
    found = read_images(Path(__file__).with_name("images.yaml"), variables)
    asyncio.run(_main(arguments.kubeconfig, arguments.folder.resolve(), found, arguments.exec_server))
