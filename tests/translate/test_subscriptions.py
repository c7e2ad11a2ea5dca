"""Envoys request every resource that a gateway has, so that an Envoy with all of them counts as current."""

from __future__ import annotations

from tests.support.folder import snapshot
from xds_server.discovery.types import EXTENSION_CONFIG, ROUTE

TCP = "listeners: {tcp: {port: 1883, protocol: tcp}}\n"
STREAM = "upstreams: {broker: {endpoints: ['127.0.0.1:1']}}\nstream_routes: {all: {listeners: [tcp], upstream: broker}}\n"


def test_without_a_listener_for_http_there_is_nothing_of_http() -> None:
    for text in (TCP, TCP + STREAM):
        found = snapshot(text)
        assert not found[EXTENSION_CONFIG]
        assert not found[ROUTE]
    assert snapshot(TCP.replace("}}", "}, http: {port: 80}}") + STREAM)[EXTENSION_CONFIG]
