"""At a fresh start with a rejected filter or route configuration the listener starts, and what is bad answers 503 alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from envoy.config.core.v3 import extension_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2

from tests.support.envoy import Envoy
from tests.support.folder import compiled, filled, write
from tests.support.ports import free_port
from tests.support.wait import wait_for
from tests.support.xds import XdsThread, bootstrap
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import EXTENSION_CONFIG, ROUTE, ResourceType
from xds_server.serving.store import Store
from xds_server.translate.stand_ins import stand_in

YAML = """
listeners: {http: {port: $port, address: 127.0.0.1}, other: {port: $other, address: 127.0.0.1}}
consumers: {acme: {api_keys: [{sha256: $digest}]}}
routes:
  open: {path: /open, respond: {body: open}}
  closed: {path: /closed, respond: {body: closed}, policies: {api_key: true}}
"""
DIGEST = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"  # of "password"
IDENTITY = "xds.identity"


class Stack:
    """A server that has never been asked, and an Envoy that has nothing yet."""

    def __init__(self, folder: Path) -> None:
        self.ports = {"http": free_port(), "other": free_port()}
        text = filled(YAML, port=self.ports["http"], other=self.ports["other"], digest=DIGEST)
        self.good = compiled(write(folder / "gateway", gateway=text)).snapshot
        self.xds = XdsThread(store=Store(quarantine=True, stand_in=stand_in))
        self.folder = folder

    def publish(self, *bad: tuple[ResourceType, Resource]) -> None:
        wanted = {type_: dict(self.good[type_]) for type_ in self.good}
        for type_, one in bad:
            assert one.name in wanted[type_]
            wanted[type_][one.name] = one
        self.xds.publish(Snapshot.of({type_: items.values() for type_, items in wanted.items()}))

    def answer(self, path: str, listener: str = "http", **headers: str) -> tuple[int, str]:
        got = httpx.get(f"http://127.0.0.1:{self.ports[listener]}{path}", headers=headers)
        return got.status_code, got.headers.get("x-gateway-reason", got.text)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    with stack.xds:
        yield stack


def test_a_rejected_filter_closes_only_the_routes_that_have_it(stack: Stack) -> None:
    """It comes back as soon as it is accepted."""
    broken = lua_pb2.Lua()
    broken.default_source_code.inline_string = "this is no Lua"
    config = extension_pb2.TypedExtensionConfig(name=IDENTITY)
    config.typed_config.Pack(broken)
    stack.publish((EXTENSION_CONFIG, Resource.of(config)))
    with Envoy(bootstrap(stack.xds.port), stack.folder):
        wait_for(lambda: stack.answer("/open") == (200, "open"), "the route without the filter")
        assert stack.answer("/closed", **{"x-api-key": "password"}) == (503, "policy_rejected")
        (held,) = stack.xds.run(stack.xds.store.held)
        assert (held.name, held.closed, held.standing) == (IDENTITY, True, None)
        stack.publish()
        wait_for(
            lambda: stack.answer("/closed", **{"x-api-key": "password"}) == (200, "closed"), "the filter"
        )
        assert stack.answer("/closed") == (401, "api_key_missing")


def test_a_rejected_route_configuration_closes_its_listener_only(
    stack: Stack,
) -> None:
    """It comes back as soon as it is accepted."""
    broken = route_pb2.RouteConfiguration.FromString(
        stack.good[ROUTE][f"127.0.0.1:{stack.ports['http']}"].body
    )
    broken.virtual_hosts[0].routes.add().match.safe_regex.regex = "("
    stack.publish((ROUTE, Resource.of(broken)))
    with Envoy(bootstrap(stack.xds.port), stack.folder):
        wait_for(lambda: stack.answer("/open", "other") == (200, "open"), "the other listener")
        wait_for(lambda: stack.answer("/open") == (503, "route_rejected"), "the closed listener")
        stack.publish()
        wait_for(lambda: stack.answer("/open") == (200, "open"), "the routes")
