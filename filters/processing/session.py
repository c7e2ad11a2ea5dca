"""One stream of Envoy: the messages about one exchange, each answered by the exchange's processors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError

from filters.processing import lazy_request, responses
from filters.processing.chains import INVALID_ARGUMENT, Chain, Chains
from filters.processing.exchange import Changes, Exchange, Failure, Late
from filters.processing.plan import Plan, side_of
from filters.processing.values import Answer
from filters.unary import RpcError

log = logging.getLogger(__name__)


class Observer(Protocol):
    """The metrics of the service."""

    clock: Callable[[], float]

    def seen(self, processor: str, method: str, outcome: str) -> None:
        """Count a call."""

    def took(self, kind: str, seconds: float) -> None:
        """Measure a message."""


async def _bounded(work: Awaitable[Any], seconds: float) -> Any:
    """Await something for at most some seconds. Raises Late; a TimeoutError is the work's own."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise Late from None
        raise


class ExchangeSession:
    """Answers Envoy's messages about one exchange, in their order."""

    def __init__(self, chain: Chain, chains: Chains, observer: Observer) -> None:
        self._chain = chain
        self._chains = chains
        self._observer = observer
        self._exchange: Exchange | None = None
        self._request: Any = None
        self._plan: Plan | None = None
        self._done = False
        """True after an answer: nothing more is processed."""

    def receive(self, message: bytes) -> bytes | Awaitable[bytes]:
        """Answer a message, without a task if all processors are immediate."""
        try:
            asked = pb.ProcessingRequest.FromString(message)
        except DecodeError:
            raise RpcError(INVALID_ARGUMENT, "the message cannot be read") from None
        kind = asked.WhichOneof("request")
        if kind is None:
            raise RpcError(INVALID_ARGUMENT, "the message has no kind")
        if kind == "request_headers":
            self._request = lazy_request.request(asked, self._chain.route, self._chain.regex)
            self._plan = self._chains.plan(self._chain)
        elif kind == "response_headers" and not lazy_request.of_upstream(asked):
            self._done = True  # the gateway's own answer
        if self._request is None or self._done:
            return responses.UNCHANGED[kind]
        return self._driven(self._processed(kind, asked))

    def end(self) -> None:
        """Envoy needs nothing more."""

    def cancel(self) -> None:
        """The exchange has ended."""

    def _driven(self, work: Coroutine[Any, Any, bytes]) -> bytes | Awaitable[bytes]:
        """Run a coroutine that never waits, without a task."""
        if self._plan is None or not self._plan.immediate:
            return work
        try:
            work.send(None)
        except StopIteration as stop:
            result: bytes = stop.value
            return result
        work.close()
        return self._failed(Failure("processor_failed", 500, "A processor failed."))

    async def _processed(self, kind: str, asked: pb.ProcessingRequest) -> bytes:
        observer = self._observer
        began = observer.clock()
        try:
            if self._exchange is None:
                self._plan = self._plan or await self._chains.arrival(self._chain)
                self._exchange = Exchange(self._plan, _bounded, observer.seen)
            plan = self._plan
            assert plan is not None, "its exchange has begun"
            result = await self._result(self._exchange, plan, kind, asked)
            if isinstance(result, Answer):
                self._done = True
                return responses.answered(result)
            other_mode = plan.phases != self._chain.phases
            return responses.changed(kind, result, plan.phases, other_mode=other_mode)
        except Failure as failure:
            return self._failed(failure)
        finally:
            observer.took(kind, observer.clock() - began)

    def _result(
        self, exchange: Exchange, plan: Plan, kind: str, asked: pb.ProcessingRequest
    ) -> Awaitable[Changes | Answer]:
        if kind == "request_headers":
            return exchange.headers("request", self._request, ends=asked.request_headers.end_of_stream)
        if kind == "response_headers":
            told = asked.response_headers
            return exchange.headers("response", lazy_request.response(told), ends=told.end_of_stream)
        side = side_of(kind)
        if kind.endswith("trailers"):
            return exchange.chunk(side, b"", last=True, trailers=True)
        body = asked.request_body if side == "request" else asked.response_body
        if plan.whole[side]:
            return exchange.body(side, body.body)
        return exchange.chunk(side, body.body, last=body.end_of_stream)

    def _failed(self, failure: Failure) -> bytes:
        self._done = True
        if failure.processor:  # others are a client's or an upstream's
            log.error(
                "processor failed; the client gets an error route=%s processor=%s reason=%s detail=%r",
                self._chain.route,
                failure.processor,
                failure.reason,
                failure.detail,
                exc_info=failure.error,
            )
        content_type = self._request.headers.get("content-type", "")
        return responses.failed(failure, self._request.id, content_type)
