"""The gRPC method that takes entries from Envoys: opentelemetry.proto.collector.logs.v1.LogsService/Export."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from filters.unary import Later, RpcError, UnaryMethod
from protos.usage_pb2 import ExportLogsServiceResponse
from xds_server.unary_server.grpc import Status
from xds_server.usage import entries
from xds_server.usage.entries import MalformedExport
from xds_server.usage.metrics import UsageMetrics
from xds_server.usage.spool import Spool, SpoolFull

log = logging.getLogger(__name__)

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
INVALID_ARGUMENT = 3
"""The gRPC status (grpc/doc/statuscodes.md) of a message that must not be sent again."""
SILENCE = 60.0
"""Seconds between two log lines about the same state."""


class Export:
    """Takes messages into the spool. `age` returns the age of the oldest batch in seconds; `clock` is in Unix seconds."""

    def __init__(
        self,
        spool: Spool,
        metrics: UsageMetrics,
        age: Callable[[], float],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.full = False
        """True if the last message did not fit into the spool."""
        self._spool, self._metrics, self._age, self._clock = spool, metrics, age, clock
        self._logged: dict[str, float] = {}

    def method(self) -> UnaryMethod:
        """Return the method."""
        return UnaryMethod(path=EXPORT, parse=bytes, call=self.call, serialize=bytes)

    def call(self, message: bytes) -> Any:
        """Return a response when the entries are on disk. Raises RpcError."""
        try:
            good, rejected = entries.entries(message)
        except MalformedExport as error:
            self._metrics.exports.labels("malformed").inc()
            raise RpcError(INVALID_ARGUMENT, str(error)) from None
        if rejected:
            self._metrics.entries.labels("rejected").inc(rejected)
            self._log("rejected entries that are not those of this gateway's Envoys entries=%d", rejected)
        response = _response(rejected)
        if not good:
            self._metrics.exports.labels("taken").inc()
            return response
        try:
            written = self._spool.append(b"\n".join(good), int(self._clock()))
        except SpoolFull:
            self._metrics.exports.labels("full").inc()
            self.full = True
            self._log(
                "the usage spool is full; Envoys keep their entries and send them again oldest_seconds=%d",
                self._age(),
            )
            raise RpcError(Status.RESOURCE_EXHAUSTED, "the usage spool is full") from None
        self.full = False

        def finish(_: None) -> bytes:
            self._metrics.exports.labels("taken").inc()
            self._metrics.entries.labels("taken").inc(len(good))
            return response

        return Later(self._checked(written), finish)

    def _checked(self, written: asyncio.Future[None]) -> asyncio.Future[None]:
        """Return a future that fails with RpcError if the disk fails. Its cancellation does not stop the write."""
        checked: asyncio.Future[None] = written.get_loop().create_future()

        def done(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self._metrics.exports.labels("failed").inc()
                self._log(
                    "the usage spool cannot be written; Envoys send their entries again error=%s", error
                )
            if checked.done():
                return
            if error is None:
                checked.set_result(None)
            else:
                checked.set_exception(RpcError(Status.UNAVAILABLE, "the usage spool cannot be written"))

        written.add_done_callback(done)
        return checked

    def _log(self, message: str, value: object) -> None:
        """Log a state, at most once in SILENCE seconds."""
        now = self._clock()
        if abs(now - self._logged.get(message, -SILENCE)) >= SILENCE:
            self._logged[message] = now
            log.error(message, value)


def _response(rejected: int) -> bytes:
    if not rejected:
        return b""
    response = ExportLogsServiceResponse()
    response.partial_success.rejected_log_records = rejected
    response.partial_success.error_message = "not entries of this version of the gateway"
    return response.SerializeToString()
