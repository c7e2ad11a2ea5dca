"""Memory and time of local copies of a large cluster: 5,000 HTTPRoutes and 5,000 EndpointSlices from a real API server."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tables import HEADS, row, show
from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import ApiServer
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Key, Object, Resource
from xds_server.kubernetes.watch_cache import WatchCache

OBJECTS, ENDPOINTS, SERVICES = 5_000, 20, 1_000
CHANGES = 300
"""Changed EndpointSlices, one after the other."""
FORMS = ("streaming lists", "pages of 500")
NAMESPACE = "bench"
ROUTES = Resource(group="gateway.networking.k8s.io", plural="httproutes", kind="HTTPRoute")
SLICES = Resource(group="discovery.k8s.io", plural="endpointslices", kind="EndpointSlice")
_AT_ONCE = 16


def main() -> None:
    """Print the table."""
    if line := build.missing():
        print(f"Kubernetes is not measured: {line}\n")
        return
    with tempfile.TemporaryDirectory() as name, ApiServer(Path(name, "api")) as server:
        with server.objects() as objects:
            objects.namespace(NAMESPACE)
        asyncio.run(_fill(server.kubeconfig))
        forms = {form: asyncio.run(_measured(server.kubeconfig, form)) for form in FORMS}
    rows = []
    for title, figures in forms.items():
        rows += [
            row(f"memory of the process, {title}", figures["memory"], 200, " MiB"),
            (f"of it before the first list, {title}", f"{figures['before']:.0f} MiB", "", ""),
            (f"time until synced, {title}", f"{figures['synced']:.2f} s", "", ""),
            (
                f"a change to the copy, median and p99, {title}",
                f"{figures['p50']:.1f} and {figures['p99']:.1f} ms",
                "",
                "",
            ),
        ]
    show(
        f"Local copies of {OBJECTS:,} HTTPRoutes and {OBJECTS:,} EndpointSlices of {ENDPOINTS} endpoints",
        HEADS,
        rows,
    )


def route(number: int) -> Object:
    service = f"service-{number % SERVICES}"
    rule = {
        "matches": [
            {
                "path": {"type": "PathPrefix", "value": f"/team-{number % 100}/service-{number}"},
                "method": "GET",
            }
        ],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": "x-team", "value": "a"}]},
            }
        ],
        "backendRefs": [{"name": service, "port": 80}],
    }
    spec = {"parentRefs": [{"name": "shop"}], "hostnames": [f"h{number % 500}.example.com"], "rules": [rule]}
    return {"metadata": {"name": f"route-{number}", "namespace": NAMESPACE}, "spec": spec}


def slice_(number: int, ready: int = ENDPOINTS) -> Object:
    addresses = [
        f"10.244.{(number * ENDPOINTS + one) // 250 % 250}.{(number * ENDPOINTS + one) % 250 + 1}"
        for one in range(ENDPOINTS)
    ]
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": one < ready, "serving": True},
            "nodeName": f"node-{one}",
            "zone": "zone-a",
        }
        for one, address in enumerate(addresses)
    ]
    labels = {"kubernetes.io/service-name": f"service-{number % SERVICES}"}
    metadata = {"name": f"slice-{number}", "namespace": NAMESPACE, "labels": labels}
    return {
        "metadata": metadata,
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    }


async def _fill(kubeconfig: Path) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def create(resource: Resource, object_: Object) -> None:
        async with slots:
            await client.create(resource, object_)

    async with ApiClient(read_kubeconfig([kubeconfig])) as client, asyncio.TaskGroup() as tasks:
        for number in range(OBJECTS):
            tasks.create_task(create(ROUTES, route(number)))
            tasks.create_task(create(SLICES, slice_(number)))


async def _measured(kubeconfig: Path, form: str) -> dict[str, float]:
    """Return the figures of a process that has the copies."""
    changed: list[float] = []
    async with _copying(kubeconfig, form) as process, ApiClient(read_kubeconfig([kubeconfig])) as client:
        assert process.stdout is not None
        figures: dict[str, float] = json.loads(await process.stdout.readline())
        for number in range(CHANGES):
            start = time.perf_counter()
            object_ = slice_(number, ready=FORMS.index(form))
            await client.apply(SLICES, object_, manager="bench")
            await process.stdout.readline()
            changed.append((time.perf_counter() - start) * 1000)
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
    steps = statistics.quantiles(changed, n=100)
    return {**figures, "memory": memory, "p50": steps[49], "p99": steps[98]}


@asynccontextmanager
async def _copying(kubeconfig: Path, form: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "benchmarks.kubernetes", str(kubeconfig), form]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _kept_route(object_: Object) -> Any:
    """Return what a controller needs of a route."""
    return object_["metadata"].get("generation"), object_["spec"], object_.get("status")


def _kept_slice(object_: Object) -> Any:
    labels = object_["metadata"].get("labels") or {}
    return (
        labels.get("kubernetes.io/service-name"),
        object_["addressType"],
        object_["ports"],
        object_["endpoints"],
    )


async def _copy(kubeconfig: Path, form: str) -> None:
    """Have the copies, say when they are complete, and write a line for each change after that."""
    before, start = psutil.Process().memory_info().rss / 2**20, time.perf_counter()

    def changed(key: Key, old: object, new: object) -> None:
        if old is not None and new is not None:
            os.write(1, b"changed\n")

    async with ApiClient(read_kubeconfig([kubeconfig])) as client, asyncio.TaskGroup() as tasks:
        caches = [
            WatchCache(client, resource, keep, changed, streaming=form == FORMS[0])
            for resource, keep in ((ROUTES, _kept_route), (SLICES, _kept_slice))
        ]
        for cache in caches:
            tasks.create_task(cache.run())
        for cache in caches:
            await cache.synced.wait()
        synced = time.perf_counter() - start
        os.write(1, json.dumps({"before": before, "synced": synced}).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(_copy(Path(sys.argv[1]), sys.argv[2]))
