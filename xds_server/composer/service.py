"""The composer: it finds the rule of a request, and answers by it. The rules of the last minute are known too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry

from filters.reasons import REASON_HEADER
from filters.rules import Refused, Service, Table
from protos import rules_pb2
from xds_server.composer.aggregate import AggregateRoute
from xds_server.composer.aggregate_plan import load as load_aggregate
from xds_server.composer.answer_memory import AnswerMemory
from xds_server.composer.calls import Answer, Call, CallFailed
from xds_server.composer.http_client import Connections
from xds_server.composer.http_server import HttpServer
from xds_server.composer.http_stream import stream
from xds_server.composer.messages import Composed, Request, Response
from xds_server.composer.metrics import ComposerMetrics
from xds_server.composer.problems import problem
from xds_server.translate.composer_entry import COMPOSITION, COMPOSITION_HEADER, SERVICE
from xds_server.unary_server.accepting import Shared

log = logging.getLogger(__name__)

KEPT = 60.0
"""Seconds for which a rule is known after it was removed, because Envoys use it until they have the new routes."""
ARRIVAL = 2.0
"""Seconds in which a rule must arrive that a request names, because an Envoy may have its route before."""
MOST_REQUESTS = 4096
"""Requests that one process answers at once. More are rejected."""
_TIMEOUTS = frozenset(("upstream_timeout", "stream_idle_timeout", "request_timeout"))
"""Reasons of Envoy for a call that took too long."""


def _load_graphql(content: bytes) -> Composed:
    from xds_server.composer import graphql_route  # a large library, which most gateways need not

    return graphql_route.load(content)


_LOADERS: Mapping[str, Callable[[bytes], Composed]] = {
    "aggregate": lambda content: AggregateRoute(load_aggregate(content)),
    "graphql": _load_graphql,
}


def _load(message: rules_pb2.Composition) -> Composed:
    loader = _LOADERS.get(message.kind)
    if loader is None:
        raise Refused(f"this composer does not know '{message.kind}'; use the version of the control plane")
    return loader(message.content)


class Composer:
    """Answers requests. Make it in the event loop that uses it. `calls` is the address at which Envoy takes calls."""

    def __init__(
        self,
        calls: str,
        registry: CollectorRegistry,
        clock: Callable[[], float] = monotonic,
        arrival: float = ARRIVAL,
        memory: AnswerMemory | None = None,
    ) -> None:
        self._table = Table(COMPOSITION, _load, self._changed)
        self._retired: dict[str, tuple[float, Composed]] = {}
        self._arrived = asyncio.Event()
        self._clock, self._patience = clock, arrival
        self._metrics = ComposerMetrics(registry)
        self._known_series: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self.memory = memory or AnswerMemory()
        self.connections = Connections(calls, self.memory)
        self.server = HttpServer(self.respond, self._too_large)

    def service(self) -> Service:
        """The composer as a service with rules."""
        return Service(name=SERVICE, tables=(self._table,), close=self.connections.close)

    def _changed(
        self, before: Mapping[str, Composed], _loaded: Mapping[str, Composed], gone: Collection[str]
    ) -> None:
        now = self._clock()
        self._retired = {name: one for name, one in self._retired.items() if one[0] > now}
        self._retired.update((name, (now + KEPT, before[name])) for name in gone if name in before)
        self._arrived.set()

    async def respond(self, request: Request) -> Response:
        """Answer a request. Never raises for faults of rules, upstreams and clients."""
        name = request.headers.get(COMPOSITION_HEADER, "")
        route = name.rpartition("/")[0]
        begun = self._clock()
        try:
            response = await self._respond(name, request)
        except Exception:
            log.exception(
                "a request could not be answered: this is a fault of xds, please report it route=%s", route
            )
            response = problem(request, "internal_error", overrides={})
        self._series(self._metrics.requests, route, response.outcome).inc()
        self._series(self._metrics.seconds, route).observe(self._clock() - begun)
        return response

    async def _respond(self, name: str, request: Request) -> Response:
        if self.server.busy > MOST_REQUESTS or self.memory.is_full:
            return problem(request, "overloaded", overrides={})
        composed = self._known(name) or await self._arrival(name)
        if composed is None:
            return problem(request, "composition_unknown", overrides={})
        caller = _Caller(self, composed)
        try:
            response = await composed.respond(request, caller)
        except BaseException:
            caller.close()
            raise
        if isinstance(response.body, bytes):
            caller.close()
            return response
        return replace(response, body=_closing(caller, response.body))

    def _known(self, name: str) -> Composed | None:
        found = self._table.current.get(name)
        return found or self._retired.get(name, (0.0, None))[1]

    async def _arrival(self, name: str) -> Composed | None:
        """Wait for a rule. Returns None if it does not arrive."""
        try:
            async with asyncio.timeout(self._patience):
                while (found := self._known(name)) is None:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return found

    def _too_large(self, request: Request) -> Response:
        return problem(request, "body_too_large", overrides={})

    def count_call(self, upstream: str, result: str) -> None:
        """Count a call."""
        self._series(self._metrics.calls, upstream, result).inc()

    def _series(self, metric: Any, *labels: str) -> Any:
        """Return the series of a metric with these labels. prometheus_client's own lookup takes a lock each time."""
        key = (metric, labels)
        found = self._known_series.get(key)
        if found is None:
            found = self._known_series[key] = metric.labels(*labels)
        return found


class _Caller:
    """The Caller (xds_server.composer.calls) of one request."""

    __slots__ = ("_composer", "_growth", "_max_answer", "_used")

    def __init__(self, composer: Composer, composed: Composed) -> None:
        self._composer = composer
        self._max_answer, self._growth = composed.max_answer, composed.growth
        self._used = 0

    def close(self) -> None:
        """Give back the memory of all answers."""
        self._composer.memory.give_back(self._used)
        self._used = 0

    async def call(self, call: Call) -> Answer:
        """Make a call. Raises CallFailed."""
        try:
            answer = await self._composer.connections.call(call, self._max_answer)
            self._used += len(answer.body) * self._growth
            if not self._composer.memory.take(len(answer.body) * (self._growth - 1)):
                raise CallFailed("too_large", "there is no memory for more answers")
            of_upstream(answer)
        except CallFailed as error:
            self._composer.count_call(call.upstream, error.reason)
            raise
        self._composer.count_call(call.upstream, f"{answer.status // 100}xx")
        return answer

    async def stream(self, call: Call) -> AsyncGenerator[Answer | bytes]:
        """Make a call whose answer comes in parts. Raises CallFailed."""
        try:
            async with aclosing(stream(self._composer.connections.address, call)) as parts:
                async for part in parts:
                    if isinstance(part, Answer):
                        of_upstream(part)
                        self._composer.count_call(call.upstream, f"{part.status // 100}xx")
                    yield part
        except CallFailed as error:
            self._composer.count_call(call.upstream, error.reason)
            raise


async def _closing(caller: _Caller, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """A body in parts, and the end of its calls."""
    try:
        async with aclosing(body) as parts:
            async for part in parts:
                yield part
    finally:
        caller.close()


def of_upstream(answer: Answer) -> Answer:
    """Return an answer of an upstream. Raises CallFailed if it is Envoy's own, which has a reason: upstreams' are removed."""
    reason = answer.headers.get(REASON_HEADER)
    if reason is not None:
        raise CallFailed("timeout" if reason in _TIMEOUTS else "unreachable", reason)
    return answer


class ComposerServer:
    """The composer as a server with a life (xds_server.policy_server.lifecycle)."""

    def __init__(self, composer: Composer, services: Sequence[Service]) -> None:
        self.healthy = False
        self._composer, self._services = composer, services

    @property
    def busy(self) -> int:
        """The number of requests in progress."""
        return self._composer.server.busy

    async def start(self, address: str, shared: Sequence[Shared] = ()) -> str:
        """Listen. Raises OSError."""
        await self._composer.server.start(address, shared)
        return address

    async def stop(self, grace: float) -> None:
        """Accept no more requests, finish those in progress for at most `grace` seconds."""
        self.healthy = False
        await self._composer.server.stop(grace)
        self._composer.connections.close()
