"""Random gateways for a model of Envoy: at no moment does it hold a route to a cluster that cannot serve."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from envoy.config.route.v3 import route_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.conversation import Delta, Sotw
from tests.support.resources import gateway
from xds_server.discovery.events import Response
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import Protocol
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, ResourceType

UPSTREAMS = ("a", "b", "c", "d")


class Machine(RuleBasedStateMachine):
    """What Envoy does over ADS: clusters, then their endpoints, then listeners, then their routes."""

    protocol: Protocol

    @initialize()
    def connect(self) -> None:
        self.has: dict[ResourceType, dict[str, str]] = {
            one: {} for one in (CLUSTER, ENDPOINT, LISTENER, ROUTE)
        }
        self.warm: set[str] = set()
        self.targets: set[str] = set()
        self.served: Snapshot | None = None
        self.earlier: list[Snapshot] = []
        self.versions: dict[ResourceType, str] = {}
        self.excused = False
        self._open()

    def _open(self) -> None:
        kind = Sotw if self.protocol is Protocol.SOTW else Delta
        self.client: Any = kind(self.served)
        self.client.earlier = self.earlier
        self.queue: deque[Response] = deque()
        self.asked: set[ResourceType] = set()
        for type_ in (CLUSTER, ENDPOINT, LISTENER, ROUTE):
            names = {ENDPOINT: sorted(self.has[CLUSTER]), ROUTE: ["http"] if self.has[LISTENER] else []}
            if type_ in (CLUSTER, LISTENER) or names[type_]:
                self._ask(type_, names.get(type_, []))

    def _ask(self, type_: ResourceType, names: list[str], dropped: list[str] | None = None) -> None:
        first = type_ not in self.asked
        self.asked.add(type_)
        if self.protocol is Protocol.SOTW:
            nonce = "" if first else self.client.stream.watches[type_].nonce
            sent = self.client.ask(type_, *names, nonce=nonce, version=self.versions.get(type_, ""))
        elif first:
            sent = self.client.ask(type_, *names, has=self.has[type_])
        else:
            sent = self.client.ask(type_, *names, unsubscribe=dropped or [])
        self.queue.extend(sent)

    @rule(upstreams=st.sets(st.sampled_from(UPSTREAMS), min_size=1), data=st.data(), port=st.integers(1, 2))
    def publish(self, upstreams: set[str], data: Any, port: int) -> None:
        used = data.draw(st.lists(st.sampled_from(sorted(upstreams)), min_size=1, max_size=3))
        routes = {f"/{number}": target for number, target in enumerate(used)}
        version = data.draw(st.sampled_from(["", "2"]))
        self.served = gateway(sorted(upstreams), routes, version=version, port=port)
        self.queue.extend(self.client.publish(self.served))

    @precondition(lambda self: self.queue)
    @rule()
    def deliver(self) -> None:
        response = self.queue.popleft()
        got = {one.name: one for one in response.resources}
        if response.type == ENDPOINT:  # of a cluster that has gone meanwhile, Envoy wants none
            got = {name: one for name, one in got.items() if name in self.has[CLUSTER]}
        before = dict(self.has[response.type])
        if self.protocol is Protocol.SOTW and response.type.whole:
            self.has[response.type] = {}
        for name in response.removed:
            self.has[response.type].pop(name, None)
        self.has[response.type].update({name: one.version for name, one in got.items()})
        self.versions[response.type] = response.version
        if response.type == ENDPOINT:
            self.warm |= got.keys()
        if response.type == ROUTE and "http" in got:
            self.targets = _targets(got["http"].body)
        self.queue.extend(self.client.ack(response))
        if response.type == CLUSTER:
            self._resubscribe(before)
        if response.type == LISTENER and ROUTE not in self.asked and self.has[LISTENER]:
            self._ask(ROUTE, ["http"])

    def _resubscribe(self, before: dict[str, str]) -> None:
        """A new cluster asks for its endpoints; a changed one serves on with the old ones until it has them."""
        now = self.has[CLUSTER]
        added, dropped = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
        self.warm &= now.keys()
        for name in dropped:
            self.has[ENDPOINT].pop(name, None)
        if added or dropped:
            names = sorted(now) if self.protocol is Protocol.SOTW else added
            self._ask(ENDPOINT, names, dropped)

    @rule()
    def reconnect(self) -> None:
        """A state of the world deletes by absence; what it would delete is known if it was served as a whole."""
        version = self.versions.get(CLUSTER)
        served = {one.version(CLUSTER) for one in [self.served, *self.earlier] if one is not None}
        known = self.protocol is Protocol.DELTA or version in {None, *served}
        self.excused = self.excused or not known
        self._open()

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    @precondition(lambda self: not self.queue)
    def wait(self, seconds: float) -> None:
        self.queue.extend(self.client.wait(seconds))

    @invariant()
    def every_route_leads_to_a_cluster_that_serves(self) -> None:
        assert self.excused or self.targets <= self.warm

    @precondition(lambda self: self.served is not None)
    @rule()
    def settle(self) -> None:
        """When quiet, Envoy holds exactly the snapshot, and no gate was forced open."""
        for _ in range(100):
            if self.queue:
                self.deliver()
            elif not self._wait():
                break
        assert self.served is not None
        assert self.client.stream.overdue == []
        for type_, held in self.has.items():
            assert held == {name: one.version for name, one in self.served[type_].items()}, type_
        self.excused = False
        assert self.targets <= self.warm

    def _wait(self) -> bool:
        self.queue.extend(self.client.wait(2.0))
        return bool(self.queue)


def _targets(body: bytes) -> set[str]:
    hosts = route_pb2.RouteConfiguration.FromString(body).virtual_hosts
    return {route.route.cluster for host in hosts for route in host.routes}


@pytest.mark.parametrize("protocol", list(Protocol))
def test_no_route_ever_leads_to_a_cluster_that_envoy_lacks(protocol: Protocol) -> None:
    machine = type("Machine", (Machine,), {"protocol": protocol})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
