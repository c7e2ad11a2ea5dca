"""The policy server's stream to the control plane. It is opened again when it ends, and the last good rules stay."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from xds_server.policy_server.rules_journal import LastRules
from xds_server.policy_server.rules_stream import HeldRules, Taken

log = logging.getLogger(__name__)

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SHORTEST, LONGEST = 0.1, 5.0
"""Seconds between two attempts. They double each time, and are random so that a fleet does not connect all at once."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the authorities of the control plane's certificate, and this client's own certificate if needed.

    `token` is a file with a bearer token (RFC 6750) that this client sends. All files are read for each connection, so
    that they can be renewed.
    """

    ca: Path
    certificate: Path | None = None
    private_key: Path | None = None
    token: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return credentials with the current content of the files. Raises OSError."""
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(),
            self.private_key.read_bytes() if self.private_key else None,
            self.certificate.read_bytes() if self.certificate else None,
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a stream. Raises OSError."""
        return () if self.token is None else (("authorization", f"Bearer {self.token.read_text().strip()}"),)


class DeltaClient:
    """Keeps `rules` up to date from the control plane at `address`.

    It calls `complete` when all rules have arrived. Without `tls` it connects in plain text, for loopback and Unix
    sockets. `reason` is the reason why the last stream ended. `away` is set after an attempt has failed. Accepted
    rules are written to `state`.
    """

    def __init__(
        self,
        rules: HeldRules,
        address: str,
        node: base_pb2.Node,
        complete: Callable[[], None],
        tls: Tls | None = None,
        state: LastRules | None = None,
    ) -> None:
        self.connected = False
        self.away = asyncio.Event()
        self.reason = ""
        self._rules = rules
        self._address = address
        self._node = node
        self._complete = complete
        self._reported = False
        self._tls = tls
        self._state = state

    async def run(self) -> None:
        """Follow the control plane until cancelled."""
        wait = SHORTEST
        while True:
            reason = await self._stream()
            if self.connected:
                wait = SHORTEST
                log.warning(
                    "lost the control plane; the last rules stay in use address=%s reason=%s",
                    self._address,
                    reason,
                )
            elif reason != self.reason:
                log.warning("cannot reach the control plane address=%s reason=%s", self._address, reason)
            self.connected, self.reason = False, reason
            self.away.set()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            wait = min(wait * 2, LONGEST)

    async def _stream(self) -> str:
        """Follow one stream to its end. Returns the reason for the end."""
        try:
            opened = self._channel()
            metadata = self._tls.metadata() if self._tls is not None else ()
        except OSError as error:
            return f"TLS: {error}"
        async with opened as channel:
            method: Any = channel.stream_stream(
                METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )
            call = method(metadata=metadata)  # the stubs do not have the form that writes
            try:
                await self._converse(call)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {error.details()}"
            except asyncio.InvalidStateError:  # grpc.aio raises it for a write on a call that has just ended
                return "the stream broke"
            return "the control plane ended the stream"

    def _channel(self) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        return grpc.aio.secure_channel(self._address, self._tls.credentials(), options=_OPTIONS)

    async def _converse(self, call: Any) -> None:
        for request in self._rules.first_requests(self._node):
            await call.write(request)
        async for response in call:
            if not self.connected:
                self.connected = True
                log.info("following the control plane address=%s", self._address)
            # In a thread: loading 100,000 rules must not delay decisions.
            request, taken = await asyncio.to_thread(self._take, response)
            _report(taken)
            if self._rules.complete and not self._reported:
                self._reported = True
                self._complete()
            await call.write(request)

    def _take(
        self, response: discovery_pb2.DeltaDiscoveryResponse
    ) -> tuple[discovery_pb2.DeltaDiscoveryRequest, Taken]:
        request, taken = self._rules.receive(response)
        if self._state is not None and self._rules.knows(response.type_url):
            self._state.keep(response, taken.refused, whole=self._rules.whole(response.type_url))
        return request, taken


def _report(taken: Taken) -> None:
    for name, why in sorted(taken.refused.items()):
        log.error(
            "rule rejected; its last accepted form stays in use type=%s name=%s reason=%s",
            taken.type,
            name,
            why,
        )
    if taken.changed or taken.removed:
        log.info("rules accepted type=%s changed=%d removed=%d", taken.type, taken.changed, taken.removed)
