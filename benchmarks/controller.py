"""The controller of a large cluster: 5,000 HTTPRoutes on one Gateway, 1,000 Services of 20 endpoints, a real API server and Envoy."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.kubernetes import ENDPOINTS, NAMESPACE, OBJECTS, ROUTES, SERVICES, SLICES, route, slice_
from benchmarks.tables import HEADS, row, show
from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.controller import Pod, controller, kubeconfig_of
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import LoggedProcess
from tests.support.wait import wait_for
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Object, Resource

CHANGES, RATE, SECONDS = 50, 100, 20
"""Changes that are timed one by one; changes of endpoints in a second, and for how many seconds."""
_SERVICES = Resource(plural="services", kind="Service")
_PORT, _XDS, _PAGES, _ADMIN, _READY = 8080, 18000, 18001, 19000, 19003
_NAME, _ADDRESS = "bench", "10.244.0.1"
_AT_ONCE = 16
_API_SERVER_MEMORY = "4GiB"
"""Enough that the API server does not collect garbage all the time, which would be measured too."""
_PAUSE = 0.002
"""Seconds between two requests that look for a change, so that looking leaves the processor to the controller."""
_GATEWAY = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: bench}}
spec: {{controllerName: example.com/{_NAME}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec: {{gatewayClassName: bench, listeners: [{{name: http, port: {_PORT}, protocol: HTTP}}]}}
"""
_GATEWAY_PATH = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/shop"


class _Pod(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Print the table."""
    if line := build.missing():
        print(f"The controller is not measured: {line}\n")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ApiServer(folder / "api", memory=_API_SERVER_MEMORY))
        objects = stack.enter_context(server.objects())
        objects.namespace(NAMESPACE)
        ports = [_pod(server, stack) for _ in range(2)]
        asyncio.run(_fill(server.kubeconfig))
        objects.apply(_GATEWAY)
        objects.apply(_probes(ports[0]))
        kubeconfig = kubeconfig_of(objects, server.inside, folder)
        xds, pages = f"{_ADDRESS}:{_XDS}", f"127.0.0.1:{_PAGES}"
        started = time.perf_counter()
        process = stack.enter_context(
            controller(server.namespace, kubeconfig, folder, xds, pages, f"example.com/{_NAME}")
        )
        deployment = wait_for(lambda: _deployment(objects), "the Deployment", also=(httpx.HTTPStatusError,))
        pod = Pod(objects, deployment, folder, admin=_ADMIN, ready=_READY)
        stack.enter_context(pod.envoy(server.namespace))
        wait_for(lambda: _served(objects), lambda: f"the Gateway; {process.log[-2000:]}")
        figures = {"start": time.perf_counter() - started}
        url = f"http://127.0.0.1:{server.namespace.forward('127.0.0.1', _PORT)}"
        figures |= _changes(objects, url, ports)
        figures |= asyncio.run(_load(server.kubeconfig, _of(process)))
        figures["memory"] = _of(process).memory_info().rss / 2**20
    show(
        f"The controller with {OBJECTS:,} HTTPRoutes and {SERVICES:,} Services of {ENDPOINTS} endpoints",
        HEADS,
        list(_rows(figures)),
    )


def _rows(figures: dict[str, float]) -> Iterator[tuple[str, ...]]:
    yield ("start of the process to all programmed", f"{figures['start']:.1f} s", "", "")
    yield ("memory of the process", f"{figures['memory']:.0f} MiB", "", "")
    for what in ("route", "endpoint"):
        yield (f"a changed {what} to traffic, median", f"{figures[f'{what} p50']:.0f} ms", "", "")
        yield row(f"a changed {what} to traffic, p99", figures[f"{what} p99"], 150, " ms")
    used = f"processor time with {RATE} changed endpoints a second"
    yield (used, f"{figures['processor']:.0%} of a core", "", "")


def _pod(server: ApiServer, stack: ExitStack) -> int:
    """Start a server that answers with its port."""
    taken = server.namespace.listen(_ADDRESS)
    port: int = taken.getsockname()[1]
    pod = ThreadingHTTPServer((_ADDRESS, port), _Pod, bind_and_activate=False)
    pod.socket.close()
    pod.socket = taken
    threading.Thread(target=pod.serve_forever, daemon=True).start()
    stack.callback(pod.shutdown)
    return port


async def _fill(kubeconfig: Path) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def create(resource: Resource, object_: Object) -> None:
        async with slots:
            await client.create(resource, object_)

    async with ApiClient(read_kubeconfig([kubeconfig])) as client, asyncio.TaskGroup() as tasks:
        for number in range(OBJECTS):
            tasks.create_task(create(ROUTES, route(number)))
        for number in range(SERVICES):
            spec = {"ports": [{"name": "http", "port": 80}]}
            service = {"metadata": {"name": f"service-{number}", "namespace": NAMESPACE}, "spec": spec}
            tasks.create_task(create(_SERVICES, service))
            tasks.create_task(create(SLICES, slice_(number)))


def _probes(port: int) -> list[Object]:
    """Return a route that redirects and one to a Service, which are changed and watched through Envoy."""
    moving = {"metadata": {"name": "moving", "namespace": NAMESPACE}}
    return [
        _redirect(0),
        {"apiVersion": "v1", "kind": "Service", **moving, "spec": {"ports": [{"port": 80}]}},
        _endpoint(port),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            **moving,
            "spec": {
                "parentRefs": [{"name": "shop"}],
                "rules": [
                    {
                        "matches": [{"path": {"value": "/moving"}}],
                        "backendRefs": [{"name": "moving", "port": 80}],
                    }
                ],
            },
        },
    ]


def _redirect(number: int) -> Object:
    redirect = {"hostname": f"v{number}.example.com", "statusCode": 302}
    rule = {
        "matches": [{"path": {"value": "/probe"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "probe", "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": "shop"}], "rules": [rule]},
    }


def _endpoint(port: int) -> Object:
    labels = {"kubernetes.io/service-name": "moving"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "moving-1", "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port}],
        "endpoints": [{"addresses": [_ADDRESS]}],
    }


def _deployment(objects: Objects) -> Object:
    return objects.request("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/shop-bench")


def _served(objects: Objects) -> bool:
    """True if the Gateway says that its Envoy has everything."""
    status = objects.request("GET", _GATEWAY_PATH).get("status") or {}
    conditions = {one["type"]: one["reason"] for one in status.get("conditions") or ()}
    attached = [one["attachedRoutes"] for one in status.get("listeners") or ()]
    return conditions.get("Programmed") in ("Programmed", "AddressNotAssigned") and attached == [OBJECTS + 2]


def _changes(objects: Objects, url: str, ports: list[int]) -> dict[str, float]:
    """Return the times of single changes until Envoy acts as they say, in milliseconds."""
    with httpx.Client() as client:

        def timed(change: Object, shows: Any) -> float:
            started = time.perf_counter()
            objects.apply([change])
            while not shows():
                time.sleep(_PAUSE)
            return (time.perf_counter() - started) * 1000

        def located(number: int) -> bool:
            location = client.get(f"{url}/probe").headers.get("location", "")
            return httpx.URL(location).host == f"v{number}.example.com"

        routes = [
            timed(_redirect(number), lambda number=number: located(number))
            for number in range(1, CHANGES + 1)
        ]
        moves = [
            timed(
                _endpoint(ports[number % 2]),
                lambda number=number: client.get(f"{url}/moving").text == str(ports[number % 2]),
            )
            for number in range(1, CHANGES + 1)
        ]
    steps = {"route": statistics.quantiles(routes, n=100), "endpoint": statistics.quantiles(moves, n=100)}
    return {f"{what} p{part}": found[part - 1] for what, found in steps.items() for part in (50, 99)}


async def _load(kubeconfig: Path, process: psutil.Process) -> dict[str, float]:
    """Return the share of a core that the controller uses while endpoints change."""
    async with ApiClient(read_kubeconfig([kubeconfig])) as client, asyncio.TaskGroup() as tasks:
        before, started = sum(process.cpu_times()[:2]), time.perf_counter()
        for number in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            ready = number // SERVICES % ENDPOINTS
            tasks.create_task(client.apply(SLICES, slice_(number % SERVICES, ready=ready), manager="bench"))
        used, lasted = sum(process.cpu_times()[:2]) - before, time.perf_counter() - started
    return {"processor": used / lasted}


def _of(process: LoggedProcess) -> psutil.Process:
    """Return the process of the controller below the commands that put it into its network."""
    assert process.process is not None
    found = psutil.Process(process.process.pid)
    return next(
        (one for one in [found, *found.children(recursive=True)] if "controller" in one.cmdline()), found
    )


if __name__ == "__main__":
    main()
