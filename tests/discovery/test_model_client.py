"""Random conversations: whatever is asked, published, rejected and reconnected, in the end the client has it all."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.conversation import Delta, Sotw, snapshot
from xds_server.discovery.events import Response
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.stream import Protocol, StreamLimits
from xds_server.discovery.types import CLUSTER, ENDPOINT, LISTENER, ResourceType

NAMES = ("a", "b", "c", "d")
_names = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)
_content = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("123"), max_size=4)


class Holdings:
    """What the client has of one type. `tainted` it rejected, and nothing came since."""

    def __init__(self) -> None:
        self.wildcard = False
        self.names: set[str] = set()
        self.has: dict[str, str] = {}
        self.tainted: set[str] = set()
        self.nonce = ""
        self.version = ""

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def drop_unwanted(self) -> None:
        self.has = {name: version for name, version in self.has.items() if self.wants(name)}

    def apply(self, response: Response, whole: bool) -> None:
        got = {one.name: one.version for one in response.resources}
        self.version = response.version
        for name in (*got, *response.removed):
            self.tainted.discard(name)
        if whole:
            self.has = {}
            self.tainted.clear()
        for name in response.removed:
            self.has.pop(name, None)
        self.has.update({name: version for name, version in got.items() if self.wants(name)})


class Machine(RuleBasedStateMachine):
    """One client on one stream at a time; responses travel in a queue, so that requests cross them."""

    protocol: Protocol
    only: ResourceType | None

    @initialize()
    def connect(self) -> None:
        self.types = [self.only] if self.only else [CLUSTER, ENDPOINT, LISTENER]
        self.held = {type_: Holdings() for type_ in self.types}
        self.served: Snapshot | None = None
        self.epoch = 0
        self._open()

    def _open(self) -> None:
        kind = Sotw if self.protocol is Protocol.SOTW else Delta
        self.client: Any = kind(self.served, only=self.only, limits=StreamLimits(removal_delay=1))
        self.begun: set[ResourceType] = set()
        self.queue: deque[Response] = deque()
        for held in self.held.values():
            held.nonce = ""  # a nonce lives within one stream

    def _type(self, pick: int) -> ResourceType:
        return self.types[pick % len(self.types)]

    @rule(clusters=_content, endpoints=_content, listeners=_content)
    def publish(self, clusters: dict[str, str], endpoints: dict[str, str], listeners: dict[str, str]) -> None:
        self.served = snapshot(cluster=clusters, endpoint=endpoints, listener=listeners)
        self.queue.extend(self.client.publish(self.served))

    @rule(pick=st.integers(0, 2), names=_names, star=st.booleans())
    def subscribe(self, pick: int, names: list[str], star: bool) -> None:
        type_ = self._type(pick)
        listed = [*names, "*"] if star or not names else names
        self._ask(type_, set(listed))

    def _ask(self, type_: ResourceType, listed: set[str]) -> None:
        held = self.held[type_]
        before = held.names | ({"*"} if held.wildcard else set())
        held.wildcard, held.names = "*" in listed, listed - {"*"}
        first = type_ not in self.begun
        self.begun.add(type_)
        if self.protocol is Protocol.SOTW:
            held.drop_unwanted()
            if not first and before != listed:
                held.version = ""  # it no longer has what that version stood for
            nonce = "" if first else held.nonce
            self.queue.extend(self.client.ask(type_, *sorted(listed), nonce=nonce, version=held.version))
            return
        kept = {name: one for name, one in held.has.items() if name not in held.tainted}
        if first:
            self.queue.extend(self.client.ask(type_, *sorted(listed), has=kept))
        else:
            dropped = before - listed
            self.queue.extend(self.client.ask(type_, *sorted(listed - before), unsubscribe=sorted(dropped)))
        held.drop_unwanted()

    @precondition(lambda self: self.queue)
    @rule()
    def accept(self) -> None:
        response = self.queue.popleft()
        held = self.held[response.type]
        held.nonce = response.nonce
        held.apply(response, self.protocol is Protocol.SOTW and response.type.whole)
        self.queue.extend(self._answer(response))

    @precondition(lambda self: self.queue and not self.queue[0].removed)
    @rule(blame=st.booleans())
    def reject(self, blame: bool) -> None:
        response = self.queue.popleft()
        held = self.held[response.type]
        held.nonce = response.nonce
        held.tainted |= {one.name for one in response.resources}
        if self.protocol is Protocol.SOTW and response.type.whole:
            held.tainted |= held.has.keys()
        named = response.resources[0].name if blame and response.resources else "?"
        self.queue.extend(self._answer(response, f"cannot use '{named}'"))

    def _answer(self, response: Response, message: str | None = None) -> list[Response]:
        answered: list[Response] = (
            self.client.ack(response) if message is None else self.client.nack(response, message)
        )
        return answered

    @rule()
    def reconnect(self) -> None:
        """The stream broke; the client asks again for what it wanted, and keeps what it has."""
        self._open()
        for type_, held in self.held.items():
            if held.names or held.wildcard:
                held.tainted.clear() if self.protocol is Protocol.SOTW else None
                self._ask(type_, held.names | ({"*"} if held.wildcard else set()))

    @precondition(lambda self: self.served is not None)
    @rule()
    def settle(self) -> None:
        """When quiet, the client holds exactly what the snapshot has for its subscriptions."""
        self._drain()
        assert self.served is not None
        for type_, held in self.held.items():
            wanted = {n: one.version for n, one in self.served[type_].items() if held.wants(n)}
            if type_ not in self.begun:
                continue
            has = dict(held.has)
            if self.protocol is Protocol.SOTW and not type_.whole:
                # absence says nothing here: the client keeps what was removed until it drops the name
                has = {name: version for name, version in has.items() if name in self.served[type_]}
            assert {n: v for n, v in has.items() if n not in held.tainted} == {
                n: v for n, v in wanted.items() if n not in held.tainted
            }

    @rule()
    def heal(self) -> None:
        """After a publication in which everything is new, nothing that was rejected is missing."""
        self._drain()
        self.epoch += 1
        content = dict.fromkeys(NAMES, f"new-{self.epoch}")
        self.publish(content, content, content)
        self._drain()
        for type_, held in self.held.items():
            if type_ in self.begun:
                assert held.has == {n: v for n, v in content.items() if held.wants(n)}

    def _drain(self) -> None:
        for _ in range(200):
            if not self.queue:
                self.queue.extend(self.client.wait(10.0))
            if not self.queue:
                return
            self.accept()
        raise AssertionError("the server never falls silent")


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("only", [None, CLUSTER, ENDPOINT], ids=["ads", "cds", "eds"])
def test_a_client_ends_with_exactly_what_it_subscribed_to(
    protocol: Protocol, only: ResourceType | None
) -> None:
    machine = type("Machine", (Machine,), {"protocol": protocol, "only": only})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
