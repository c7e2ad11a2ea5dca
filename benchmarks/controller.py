"""The controller of a large cluster beside Envoy Gateway: a real API server and Envoy, 5,000 HTTPRoutes on one Gateway."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil

from benchmarks import envoy_gateway
from benchmarks.kubernetes import ENDPOINTS, NAMESPACE, OBJECTS, ROUTES, SERVICES, SLICES, route, slice_
from benchmarks.tables import show
from tests.support.kubernetes import build
from tests.support.kubernetes.api_server import ApiServer
from tests.support.kubernetes.controller import Pod, controller, kubeconfig_of
from tests.support.kubernetes.objects import Objects
from tests.support.logged_process import LoggedProcess
from tests.support.wait import wait_for
from xds_server.kubernetes.api_client import ApiClient
from xds_server.kubernetes.kubeconfig import read_kubeconfig
from xds_server.kubernetes.resources import Object, Resource

CHANGES, RATE, SECONDS = 50, 100, 60
"""Changes that are timed one by one; changes of endpoints in a second, and for how many seconds."""
_SERVICES = Resource(plural="services", kind="Service")
_PORT, _XDS, _PAGES, _ADMIN, _READY = 7080, 18000, 18001, 19000, 19003
_NAME, _ADDRESS = "bench", "10.244.0.1"
_AT_ONCE = 16
_API_SERVER_MEMORY = "4GiB"
"""Enough that the API server does not collect garbage all the time, which would be measured too."""
_LOOK = 1.0
"""Seconds between two looks at all statuses, which cost the API server much."""
_PAUSE = 0.002
"""Seconds between two requests that look for a change, so that looking leaves the processor to the controller."""
_GATEWAY = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: bench}}
spec: {{controllerName: CONTROLLER}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec: {{gatewayClassName: bench, listeners: [{{name: http, port: {_PORT}, protocol: HTTP}}]}}
"""


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
    ours, theirs = _measured(_Ours), _measured(_EnvoyGateway)
    show(
        f"Ours and Envoy Gateway {envoy_gateway.VERSION} with {OBJECTS:,} HTTPRoutes and {SERVICES:,} Services of "
        f"{ENDPOINTS} endpoints, each with a new API server and one Envoy",
        ("", "ours", "Envoy Gateway", "target", "holds"),
        list(_rows(ours, theirs)),
    )


def _rows(ours: dict[str, float], theirs: dict[str, float]) -> Iterator[tuple[str, ...]]:
    for name, what, unit, share in (
        ("start", "start of the process until Envoy serves every route", "s", None),
        ("told", "start of the process until every route has its status", "s", 0.5),
        ("memory", "memory of the process", "MiB", 0.5),
        ("processor", f"processor time with {RATE} changed EndpointSlices a second", "% of a core", 0.25),
        ("slices p50", "a changed endpoint to traffic meanwhile, median", "ms", None),
        ("slices p99", "a changed endpoint to traffic meanwhile, p99", "ms", 150),
        ("route p50", "a changed route to traffic, median", "ms", None),
        ("route p99", "a changed route to traffic, p99", "ms", 150),
    ):
        limit = None if share is None else share * theirs[name] if share < 1 else share
        target = "" if share is None else f"≤ {share:g} {unit if share >= 1 else 'of theirs'}"
        holds = "" if limit is None else "yes" if ours[name] <= limit else "NO"
        yield (what, f"{ours[name]:.3g} {unit}", f"{theirs[name]:.3g} {unit}", target, holds)


class _Ours:
    """`xds controller` and the Envoy of its Deployment."""

    controller = f"example.com/{_NAME}"

    def __init__(self, server: ApiServer, objects: Objects, folder: Path) -> None:
        self._server, self._objects, self._folder = server, objects, folder

    def prepare(self) -> None:
        self._kubeconfig = kubeconfig_of(self._objects, self._server.inside, self._folder)

    def process(self) -> LoggedProcess:
        xds, pages = f"{_ADDRESS}:{_XDS}", f"127.0.0.1:{_PAGES}"
        return controller(self._server.namespace, self._kubeconfig, self._folder, xds, pages, self.controller)

    def envoy(self) -> LoggedProcess:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/shop-bench"
        found = wait_for(
            lambda: self._objects.request("GET", path), "the Deployment", also=(httpx.HTTPStatusError,)
        )
        pod = Pod(self._objects, found, self._folder, admin=_ADMIN, ready=_READY)
        return pod.envoy(self._server.namespace)

    def is_it(self, process: psutil.Process) -> bool:
        return "controller" in process.cmdline()


class _EnvoyGateway(envoy_gateway.EnvoyGateway):
    controller = envoy_gateway.CONTROLLER

    def is_it(self, process: psutil.Process) -> bool:
        return process.name() == "envoy-gateway"


def _measured(subject: type[_Ours | _EnvoyGateway]) -> dict[str, float]:
    """Return the figures of a controller with an API server of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ApiServer(folder / "api", memory=_API_SERVER_MEMORY))
        objects = stack.enter_context(server.objects())
        objects.namespace(NAMESPACE)
        measured = subject(server, objects, folder)
        measured.prepare()
        ports = [_pod(server, stack) for _ in range(2)]
        asyncio.run(_fill(server.kubeconfig))
        objects.apply(_GATEWAY.replace("CONTROLLER", subject.controller))
        objects.apply(_probes(ports[0]))
        started = time.perf_counter()
        process = stack.enter_context(measured.process())
        stack.enter_context(measured.envoy())
        url = f"http://127.0.0.1:{server.namespace.forward('127.0.0.1', _PORT)}"
        with httpx.Client(timeout=30) as client:
            wait_for(lambda: _serves(client, url), lambda: f"the routes; {process.log[-2000:]}", 300)
            figures = {"start": time.perf_counter() - started}
        wait_for(lambda: asyncio.run(_told(server.kubeconfig)), "the statuses", 600)
        figures["told"] = time.perf_counter() - started
        found = _of(process, measured.is_it)
        figures |= _quantiles("route", _route_changes(objects, url))
        with ThreadPoolExecutor() as pool:
            moves = pool.submit(_moves, objects, url, ports)
            figures["processor"] = asyncio.run(_load(server.kubeconfig, found))
            figures |= _quantiles("slices", moves.result())
        figures["memory"] = found.memory_info().rss / 2**20
        return figures


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


def _serves(client: httpx.Client, url: str) -> bool:
    """True if Envoy has the first and the last route. It answers 404 without a body itself if it has no route."""
    for number in (0, OBJECTS - 1):
        found = route(number)["spec"]
        path = found["rules"][0]["matches"][0]["path"]["value"]
        try:
            response = client.get(f"{url}{path}", headers={"host": found["hostnames"][0]}, timeout=0.2)
        except httpx.ReadTimeout:
            continue
        if response.status_code == httpx.codes.NOT_FOUND and not response.content:
            return False
    return True


async def _told(kubeconfig: Path) -> bool:
    """True if every route has a status."""
    await asyncio.sleep(_LOOK)
    async with ApiClient(read_kubeconfig([kubeconfig])) as client:
        routes = await client.list(ROUTES)
    return all((one.get("status") or {}).get("parents") for one in routes)


def _quantiles(name: str, milliseconds: list[float]) -> dict[str, float]:
    steps = statistics.quantiles(milliseconds, n=100)
    return {f"{name} p{part}": steps[part - 1] for part in (50, 99)}


def _timed(objects: Objects, change: Object, shows: Callable[[], bool]) -> float:
    """Return the milliseconds from a change until it shows."""
    started = time.perf_counter()
    objects.apply([change])
    while not shows():
        time.sleep(_PAUSE)
    return (time.perf_counter() - started) * 1000


def _route_changes(objects: Objects, url: str) -> list[float]:
    """Return the times of single changes of a route until Envoy acts as they say, in milliseconds."""
    with httpx.Client() as client:

        def located(number: int) -> bool:
            location = client.get(f"{url}/probe").headers.get("location", "")
            return httpx.URL(location).host == f"v{number}.example.com"

        return [
            _timed(objects, _redirect(number), partial(located, number)) for number in range(1, CHANGES + 1)
        ]


def _moves(objects: Objects, url: str, ports: list[int]) -> list[float]:
    """Return the times of single changes of an endpoint until requests go there, in milliseconds."""
    with httpx.Client() as client:

        def moved(port: int) -> bool:
            return client.get(f"{url}/moving").text == str(port)

        every = [ports[number % 2] for number in range(1, CHANGES + 1)]
        return [_timed(objects, _endpoint(port), partial(moved, port)) for port in every]


async def _load(kubeconfig: Path, process: psutil.Process) -> float:
    """Return the share of a core that the controller uses while endpoints change, in percent."""
    async with ApiClient(read_kubeconfig([kubeconfig])) as client, asyncio.TaskGroup() as tasks:
        before, started = sum(process.cpu_times()[:2]), time.perf_counter()
        for number in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            ready = number // SERVICES % ENDPOINTS
            tasks.create_task(client.apply(SLICES, slice_(number % SERVICES, ready=ready), manager="bench"))
        used, lasted = sum(process.cpu_times()[:2]) - before, time.perf_counter() - started
    return 100 * used / lasted


def _of(process: LoggedProcess, is_it: Callable[[psutil.Process], bool]) -> psutil.Process:
    """Return the process of the controller below the commands that put it into its network."""
    assert process.process is not None
    found = psutil.Process(process.process.pid)
    return next(one for one in [found, *found.children(recursive=True)] if is_it(one))


if __name__ == "__main__":
    main()
