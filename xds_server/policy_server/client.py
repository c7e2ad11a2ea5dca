"""The policy server's stream to the control plane: opened again whenever it ends, while the last good rules stay."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.policy_server.rules import Rules, Taken

log = logging.getLogger(__name__)

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between two attempts: doubled each time, and spread at random so that a fleet does not come at once."""
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", int(SHORTEST * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(SHORTEST * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(LONGEST * 1000)),
]


class Client:
    """Keeps `rules` up to date from the control plane at `address`. `complete` is called once they all are here."""

    def __init__(self, rules: Rules, address: str, node: base_pb2.Node, complete: Callable[[], None]) -> None:
        self.connected = False
        self._rules = rules
        self._address = address
        self._node = node
        self._complete = complete
        self._told = False

    async def run(self) -> None:
        """Follow the control plane until cancelled."""
        wait = SHORTEST
        while True:
            reason = await self._stream()
            if self.connected:
                wait = SHORTEST
                log.warning("lost the control plane at %s: %s; the last rules stay", self._address, reason)
            self.connected = False
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            wait = min(wait * 2, LONGEST)

    async def _stream(self) -> str:
        """Follow one stream to its end. Returns why it ended."""
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            method: Any = channel.stream_stream(
                METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )
            call = method()  # the stubs do not know the form that writes
            try:
                await self._converse(call)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {error.details()}"
            except asyncio.InvalidStateError:  # grpc.aio raises it for a write on a call that has just ended
                return "the stream broke"
            return "it ended the stream"

    async def _converse(self, call: Any) -> None:
        for request in self._rules.first_requests(self._node):
            await call.write(request)
        async for response in call:
            if not self.connected:
                self.connected = True
                log.info("following the control plane at %s", self._address)
            # In a thread: loading 100,000 rules must not hold back the requests that are being decided.
            answer, taken = await asyncio.to_thread(self._rules.receive, response)
            _report(taken)
            if self._rules.complete and not self._told:
                self._told = True
                self._complete()
            await call.write(answer)


def _report(taken: Taken) -> None:
    for name, why in sorted(taken.refused.items()):
        log.error("refused %s %s: %s; the last good one stays", taken.type, name, why)
    if taken.changed or taken.removed:
        log.info("took rules type=%s changed=%d removed=%d", taken.type, taken.changed, taken.removed)
