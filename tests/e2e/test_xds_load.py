"""Under constant load no change of configuration costs a request, and none drains a connection."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.folder import filled, snapshot
from tests.support.load import Load
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, ResourceType
from xds_server.serving.events import Acked, Nacked, Overdue, Sent

BOTH = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[Backend, Backend]]:
    with Backend("one") as one, Backend("two") as two:
        yield one, two


ROUTED = """
listeners: {http: {address: 127.0.0.1, port: $port}}
upstreams:
  $upstreams
routes:
  all: {path: /*, upstream: $target}
"""
ADDED = """
listeners: {http: {address: 127.0.0.1, port: $port}}
upstreams:
  one: {endpoints: ["$one"]}
  two: {endpoints: ["$two"]}
routes:
  all: {path: /*, upstream: one}
$added
"""
SECURE = """
listeners: {https: {address: 127.0.0.1, port: $port, tls: {certificates: [site]}}}
secrets: {site: {certificate: {file: tls.crt}, private_key: {file: tls.key}}}
upstreams: {one: {endpoints: ["$one"]}}
routes: {all: {path: /*, upstream: one}}
"""


def gateway(port: int, upstreams: dict[str, list[int]], target: str) -> Snapshot:
    """A gateway with one route, to `target`."""
    endpoints = {name: [f"127.0.0.1:{one}" for one in ports] for name, ports in upstreams.items()}
    lines = "\n  ".join(f"{name}: {{endpoints: {ports}}}" for name, ports in endpoints.items())
    return snapshot(filled(ROUTED, port=port, upstreams=lines, target=target))


def accepted(xds: XdsThread, snapshot: Snapshot, type_: ResourceType) -> Callable[[], bool]:
    """Whether the current resources of a type were acknowledged."""
    wanted = {name: one.version for name, one in snapshot[type_].items()}

    def check() -> bool:
        events = [event for event in xds.seen(Acked) if event.type == type_]
        return any(event.versions.get(name) == one for name, one in wanted.items() for event in events[-3:])

    return check


def started(xds: XdsThread, envoy: Envoy, port: int, snapshot: Snapshot) -> None:
    xds.publish(snapshot)
    envoy.ready()
    wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the gateway to answer")


def unharmed(envoy: Envoy, load: Load) -> None:
    """Nothing failed, of a load that is still on."""
    so_far = load.done
    wait_for(lambda: load.done > so_far + 100, "a hundred requests more, after the last change")
    assert load.failures == {}
    drained = envoy.stats("drain_close|listener_manager.listener_modified|total_filter_chains_draining")
    assert {name: value for name, value in drained.items() if value} == {}


@BOTH
def test_moving_routes_between_upstreams_costs_no_request(
    tmp_path: Path, backends: tuple[Backend, Backend], delta: bool
) -> None:
    port = free_port()
    upstreams = {"one": [backends[0].port], "two": [backends[1].port]}
    states = [gateway(port, upstreams, "one"), gateway(port, upstreams, "two")]
    with XdsThread() as xds, Envoy(bootstrap(xds.port, delta=delta), tmp_path) as envoy:
        started(xds, envoy, port, states[0])
        with Load(port) as load:
            for number in range(1, 201):
                xds.run(xds.events.clear)
                xds.publish(states[number % 2])
                wait_for(accepted(xds, states[number % 2], ROUTE), f"move {number}")
            unharmed(envoy, load)


@BOTH
def test_renaming_upstreams_costs_no_request_and_waits_for_nobody_in_vain(
    tmp_path: Path, backends: tuple[Backend, Backend], delta: bool
) -> None:
    port = free_port()
    ports = itertools.cycle([backends[0].port, backends[1].port])
    states = [gateway(port, {f"name-{n}": [next(ports)]}, f"name-{n}") for n in range(13)]
    with XdsThread() as xds, Envoy(bootstrap(xds.port, delta=delta), tmp_path) as envoy:
        started(xds, envoy, port, states[0])
        with Load(port) as load:
            for state in states[1:]:
                xds.publish(state)
                wait_for(accepted(xds, state, ROUTE), "the renamed upstream")
            active = "cluster_manager.active_clusters"
            wait_for(lambda: envoy.stats(active)[active] == 2, "the old clusters to be removed")
            unharmed(envoy, load)
        assert xds.seen(Overdue) == []
        assert xds.seen(Nacked) == []


@BOTH
def test_adding_and_removing_3000_routes_costs_no_request(
    tmp_path: Path, backends: tuple[Backend, Backend], delta: bool
) -> None:
    port = free_port()

    def with_routes(count: int) -> Snapshot:
        added = "\n".join(f"  route-{one}: {{path: /added/{one}, upstream: two}}" for one in range(count))
        one, two = (backend.address for backend in backends)
        return snapshot(filled(ADDED, port=port, one=one, two=two, added=added))

    counts = range(0, 3001, 500)
    states = {count: with_routes(count) for count in counts}
    last = f"http://127.0.0.1:{port}/added/2999"
    with XdsThread() as xds, Envoy(bootstrap(xds.port, delta=delta), tmp_path) as envoy:
        started(xds, envoy, port, states[0])
        with Load(port, "/added/0") as load:
            for count in (*counts, *reversed(counts)):
                xds.publish(states[count])
                wait_for(accepted(xds, states[count], ROUTE), f"{count} routes")
                if count == counts[-1]:
                    assert httpx.get(last).json()["backend"] == "two"
            assert httpx.get(last).json()["backend"] == "one"
            unharmed(envoy, load)
        assert xds.seen(Nacked) == []
        assert {event.type for event in xds.seen(Sent)[-6:]} == {ROUTE}


@BOTH
def test_rotating_certificates_costs_no_connection(
    tmp_path: Path, backends: tuple[Backend, Backend], delta: bool
) -> None:
    port, authority = free_port(), Authority()

    def rotated() -> Snapshot:
        certificate, key = authority.issue("localhost")
        (tmp_path / "tls.crt").write_bytes(certificate)
        (tmp_path / "tls.key").write_bytes(key)
        return snapshot(filled(SECURE, port=port, one=backends[0].address), tmp_path)

    context = ssl.create_default_context(cadata=authority.pem.decode())
    url = f"https://localhost:{port}/"
    with XdsThread() as xds, Envoy(bootstrap(xds.port, delta=delta), tmp_path) as envoy:
        xds.publish(rotated())
        envoy.ready()
        wait_for(lambda: httpx.get(url, verify=context).status_code == 200, "the gateway to answer")
        with Load(port, context=context) as load:
            for number in range(50):
                state = rotated()
                xds.run(xds.events.clear)
                xds.publish(state)
                wait_for(accepted(xds, state, SECRET), f"rotation {number}")
                assert {event.type for event in xds.seen(Sent)} == {SECRET}
            unharmed(envoy, load)


def test_the_last_endpoint_goes_and_comes_back(tmp_path: Path, backends: tuple[Backend, Backend]) -> None:
    port = free_port()
    full, empty = (gateway(port, {"one": ports}, "one") for ports in ([backends[0].port], []))
    url = f"http://127.0.0.1:{port}/"
    assert list(empty[ENDPOINT]) == ["one"]
    with XdsThread() as xds, Envoy(bootstrap(xds.port), tmp_path) as envoy:
        started(xds, envoy, port, full)
        for _ in range(5):
            xds.publish(empty)
            wait_for(lambda: httpx.get(url).status_code == 503, "no endpoint")
            xds.publish(full)
            wait_for(lambda: httpx.get(url).status_code == 200, "the endpoint")
        assert {event.type for event in xds.seen(Sent)[-6:]} == {ENDPOINT}
        assert envoy.stats("cluster_manager.cluster_modified")["cluster_manager.cluster_modified"] == 0


def test_a_control_plane_that_is_killed_and_comes_back_sends_nothing(
    tmp_path: Path, backends: tuple[Backend, Backend]
) -> None:
    port, xds_port = free_port(), free_port()
    address = f"127.0.0.1:{xds_port}"
    with ExitStack() as stack:
        envoy = stack.enter_context(Envoy(bootstrap(xds_port), tmp_path))
        with XdsThread(address) as xds:
            started(xds, envoy, port, gateway(port, {"one": [backends[0].port]}, "one"))
            load = stack.enter_context(Load(port))
        restarted = stack.enter_context(XdsThread(address))
        restarted.publish(gateway(port, {"one": [backends[0].port]}, "one"))
        nothing_sent(restarted)
        unharmed(envoy, load)


def test_fail_over_between_replicas_sends_nothing(tmp_path: Path, backends: tuple[Backend, Backend]) -> None:
    port = free_port()
    with ExitStack() as stack:
        replicas = [stack.enter_context(XdsThread()) for _ in range(2)]
        for one in replicas:
            one.publish(gateway(port, {"one": [backends[0].port]}, "one"))
        envoy = stack.enter_context(Envoy(bootstrap(*(one.port for one in replicas)), tmp_path))
        envoy.ready()
        url = f"http://127.0.0.1:{port}/"
        wait_for(lambda: httpx.get(url).status_code == 200, "the gateway to answer")
        load = stack.enter_context(Load(port))
        replicas.sort(key=lambda one: not one.run(lambda: _watches(one)))
        replicas[0].kill()
        nothing_sent(replicas[1])
        unharmed(envoy, load)
        replicas[1].publish(gateway(port, {"one": [backends[1].port]}, "one"))
        wait_for(lambda: httpx.get(url).json()["backend"] == "two", "a change by the second replica")


def nothing_sent(xds: XdsThread) -> None:
    """Envoy came, asked for everything that it uses, and was sent not one resource."""
    used = {CLUSTER, ENDPOINT, LISTENER, ROUTE}
    wait_for(lambda: used <= xds.run(lambda: _watches(xds)), "Envoy to ask for everything")
    wait_for(
        lambda: {event.type for event in xds.seen(Acked)} == {CLUSTER, LISTENER}, "two answers to wildcards"
    )
    assert {(event.resources, event.removed) for event in xds.seen(Sent)} == {(0, 0)}


def _watches(xds: XdsThread) -> set[ResourceType]:
    return {type_ for one in xds.server.services.sessions.values() for type_ in one.stream.watches}
