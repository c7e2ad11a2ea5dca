"""The rate limit service. Envoy calls it before a request, and at its end if a limit needs that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry, Counter

from filters.rate_limit import client_headers, one_call
from filters.rate_limit.descriptor_files import matching
from filters.rate_limit.descriptor_files.reader import Domain
from filters.rate_limit.engine import algorithms as state
from filters.rate_limit.engine.decision import Hit, LimitDecision
from filters.rate_limit.engine.memory import Memory
from filters.rate_limit.engine.store import CounterStore, Listed
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.limit_rules import LIMITS, Counted, load, plan_rule
from filters.rate_limit.server import decoding, encoding
from filters.rate_limit.server.hits import Entries, hit_after, hit_before
from filters.rate_limit.stores.circuit_breaker import FullMemory
from filters.rules import Service, Table
from filters.unary import Later, RpcError, UnaryMethod, Undoable

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
UNAVAILABLE, INTERNAL = 14, 13
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""


NEARLY = 10
"""A limit is nearly exhausted if less than this part of it is left."""
MOST_LABELS = 1000
"""Limits whose counters are looked up once."""
QUESTIONS = 10_000
"""The most calls, apart from the request's id, for which is kept what they ask."""


def microseconds() -> int:
    """The present Unix time in microseconds."""
    return time.time_ns() // 1000


class RateLimits:
    """Counts requests by the rules of the gateway. `store` has the counters, `clock` gives the moment in microseconds.

    `time_limit` is how long a Check that decides limits too may wait for the store.

    `domains` are those of Envoys with another configuration. The mapping is replaced as a whole and never changed.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        store: CounterStore | None = None,
        clock: Callable[[], int] = microseconds,
        time_limit: timedelta = one_call.TIME,
    ) -> None:
        self.time_limit = time_limit
        self.store = store if store is not None else Memory()
        self.rules = Table(LIMITS, load)
        self.domains: Mapping[str, Domain] = {}
        self.clock = clock
        self._full = FullMemory()
        self._questions: dict[bytes, _Question] = {}
        self._unattended: set[asyncio.Future[Any]] = set()
        decisions = Counter(
            "xds_rate_limit_decisions",
            "Requests that limits decided. outcome: admitted, rejected, uncounted (no counter was available) or "
            "unknown_domain (of Envoys that other people configure).",
            ["outcome"],
            registry=registry,
        )
        self._admitted, self._rejected = decisions.labels("admitted"), decisions.labels("rejected")
        nearly = Counter(
            "xds_rate_limit_nearly_exhausted",
            "Admitted requests that left less than a tenth of a limit. limit: its name on the route.",
            ["limit"],
            registry=registry,
        )
        self._nearly = lru_cache(MOST_LABELS)(nearly.labels)
        self._unknown_domain, self._uncounted = (
            decisions.labels("unknown_domain"),
            decisions.labels("uncounted"),
        )

    def service(self) -> Service:
        """The gRPC service that a policy server mounts."""
        method = UnaryMethod(
            path=f"/{SERVICE}/ShouldRateLimit",
            parse=bytes,
            call=self.call,
            serialize=rls_pb2.RateLimitResponse.SerializeToString,
        )
        return Service(
            name=SERVICE,
            methods=(method,),
            tables=(self.rules,),
            pages={"/limits": self.shown},
            actions={"/limits/reset": self.reset},
            close=self.store.close,
        )

    def shown(self) -> dict[str, Any]:
        """All counters of known limits, for an operator."""
        if not isinstance(self.store, Listed):
            return {"store": self.store.name}
        uncounted, found = self.store.listed()
        now = self.clock()
        by_base = {one.base: one for limits in self.rules.current.values() for one in limits}
        counters = [
            shown
            for stored, counter in sorted(found, key=itemgetter(0))
            if (shown := self._shown(stored, counter, by_base, now)) is not None
        ]
        return {"store": Memory.name, "uncounted": uncounted, "counters": counters}

    def reset(self, prefix: str) -> dict[str, Any]:
        """Remove the counters whose key begins with `prefix`, for an operator."""
        return {"reset": self.store.reset(prefix)}

    def call(self, message: bytes) -> bytes | Undoable | Awaitable[bytes | Undoable]:
        """One call of Envoy, a serialized RateLimitRequest. Raises RpcError for any other message too.

        What a call asks is worked out once for all calls that differ only in the request's id.
        """
        divided = decoding.divided(message)
        if divided is None:
            return self.should_rate_limit(_parsed(message))
        known, request_id = divided
        question = self._questions.get(known)
        if question is None or question.rules is not self.rules.current:
            request = _parsed(message)
            if request.domain != descriptors.DOMAIN:
                return self._other_domain(request)
            question = self._question(request)
            if any(hit.lease for hit in question.hits):  # the id may be part of the slot's name
                return self.should_rate_limit(request)
            if len(self._questions) >= QUESTIONS:
                self._questions.clear()
            self._questions[known] = question
        return _answered(self._decide(question.hits, question.styles, request_id))

    def should_rate_limit(
        self, request: rls_pb2.RateLimitRequest
    ) -> bytes | Undoable | Awaitable[bytes | Undoable]:
        """One call of Envoy. Returns a serialized RateLimitResponse. Raises RpcError if a rule has not arrived yet."""
        if request.domain != descriptors.DOMAIN:
            return self._other_domain(request)
        if not request.descriptors:
            return encoding.passed(0)
        rules, styles, entries = _divided(request)
        if descriptors.DONE in entries:
            return self._end(self._counted(rules, entries), entries)
        return _answered(self.before(rules, styles, entries))

    def _question(self, request: rls_pb2.RateLimitRequest) -> _Question:
        rules, styles, entries = _divided(request)
        current = self.rules.current
        return _Question(current, [hit_before(one, entries) for one in self._counted(rules, entries)], styles)

    def before(
        self, rules: Iterable[str], styles: Sequence[str], entries: Entries
    ) -> client_headers.LimitAnswer | Undoable | Awaitable[client_headers.LimitAnswer | Undoable]:
        """Decide on a request that begins. Raises RpcError if it cannot be decided, so that `on_error` applies.

        If Envoy gives up before it has the response, the slots are given back, because Envoy then sends no end.
        """
        hits = [hit_before(one, entries) for one in self._counted(rules, entries)]
        return self._decide(hits, styles, entries.get(descriptors.REQUEST_ID, ""))

    def _decide(
        self, hits: Sequence[Hit], styles: Sequence[str], request_id: str
    ) -> client_headers.LimitAnswer | Undoable | Awaitable[client_headers.LimitAnswer | Undoable]:
        held = [hit for hit in hits if hit.lease]
        decision = self.store.decide(self.clock(), hits)
        if isinstance(decision, LimitDecision):
            return self._answer_now(decision, styles, request_id, held)
        if isinstance(decision, asyncio.Future) and not held:
            return Later(decision, lambda found: self._answer_now(found, styles, request_id, held))
        return self._answer_later(
            self._guarded(decision, held) if held else decision, styles, request_id, held
        )

    def _other_domain(self, request: rls_pb2.RateLimitRequest) -> bytes | Awaitable[bytes]:
        """A call of an Envoy with another configuration.

        Requests of an unknown domain pass, and a metric counts them.
        """
        domain = self.domains.get(request.domain)
        if domain is None:
            self._unknown_domain.inc()
            return encoding.passed(len(request.descriptors))
        counts = matching.call_counts(domain, request)
        hits = counts.hits
        decision = self.store.decide(self.clock(), hits) if hits else LimitDecision(True, 0, ())
        if isinstance(decision, LimitDecision):
            return self._respond(counts, decision)
        return self._awaited_other_domain(counts, decision)

    async def _awaited_other_domain(
        self, counts: matching.CallCounts, decision: Awaitable[LimitDecision]
    ) -> bytes:
        found = self._respond(counts, await decision)
        return found if isinstance(found, bytes) else await found

    def _respond(self, counts: matching.CallCounts, decision: LimitDecision) -> bytes | Awaitable[bytes]:
        """The response. Raises RpcError if the request could not be counted, so that failure_mode_deny applies."""
        if decision.uncounted:
            self._report_uncounted(decision)
            raise RpcError(UNAVAILABLE, "the counters cannot be reached")
        response = matching.answer(counts, decision)
        rejected = response.overall_code == rls_pb2.RateLimitResponse.OVER_LIMIT
        (self._rejected if rejected else self._admitted).inc()
        spent = counts.spent(decision)
        charging = self.store.charge(self.clock(), spent) if spent else None
        if charging is None:
            return response.SerializeToString()
        return _after_all(charging, response.SerializeToString())

    def _shown(
        self, stored: str, counter: state.Counter, by_base: Mapping[str, Counted], now: int
    ) -> dict[str, Any] | None:
        """A counter as an operator reads it. None if it has ended, or if its limit does not exist any more."""
        limit = _limit_of(stored, by_base) or matching.limit_of(self.domains.values(), stored)
        if limit is None or counter.until <= now:
            return None
        counter = counter.copy()
        left = limit.room(counter, now, 0)
        return {
            "key": stored,
            "limit": limit.name or stored.rpartition("|")[2],
            "amount": client_headers.capacity(limit),
            "used": client_headers.capacity(limit) - left,
            "remaining": max(0, left),
            "reset": client_headers.seconds(limit.reset(counter, now)),
        }

    def _counted(self, rules: Iterable[str], entries: Entries) -> list[Counted]:
        """The limits that apply. An unknown plan has none. Raises RpcError if a rule has not arrived yet."""
        current = self.rules.current
        counted: list[Counted] = []
        for name in rules:
            found = current.get(name)
            if found is None:
                raise RpcError(UNAVAILABLE, f"the rule {name} is not here yet")
            counted += found
        plan = entries.get(descriptors.PLAN) if descriptors.PLANS in entries else None
        if plan is not None and descriptors.CONSUMER in entries:
            counted += current.get(plan_rule(plan), ())
        return counted

    def _end(self, counted: Iterable[Counted], entries: Entries) -> bytes | Awaitable[bytes]:
        """Count the costs that are known only now, and give slots back. A rejected request took nothing."""
        if entries.get(descriptors.DETAILS) == descriptors.REJECTED:
            return encoding.passed(1)
        charged = [hit_after(item, entries) for item in counted if item.afterwards]
        charged = [hit for hit in charged if hit.cost]
        released = [hit_before(item, entries) for item in counted if item.limit.unit == "concurrent-requests"]
        waiting = [
            self.store.charge(self.clock(), charged) if charged else None,
            self.store.release(released) if released else None,
        ]
        awaited = [one for one in waiting if one is not None]
        if len(awaited) == 1 and isinstance(awaited[0], asyncio.Future):
            return Later(awaited[0], lambda _: encoding.passed(1))
        return _all(awaited) if awaited else encoding.passed(1)

    async def _answer_later(
        self, decision: Awaitable[LimitDecision], styles: Sequence[str], request_id: str, held: Sequence[Hit]
    ) -> client_headers.LimitAnswer | Undoable:
        return self._answer_now(await decision, styles, request_id, held)

    def _answer_now(
        self, decision: LimitDecision, styles: Sequence[str], request_id: str, held: Sequence[Hit]
    ) -> client_headers.LimitAnswer | Undoable:
        """The response. Raises RpcError if the request could not be counted and a limit has `on_error: deny`."""
        if decision.uncounted:
            self._report_uncounted(decision)
            if not decision.admitted:
                raise RpcError(UNAVAILABLE, "the counters cannot be reached")
            answer = client_headers.LimitAnswer(True, [])
        else:
            if decision.admitted:
                self._admitted.inc()
                for figure in decision.figures:
                    if figure.remaining * NEARLY < figure.limit.amount:
                        self._nearly(figure.limit.name).inc()
            else:
                self._rejected.inc()
            answer = client_headers.limit_answer(decision, styles, request_id)
        return Undoable(answer, lambda: self._give_back(held)) if held and decision.admitted else answer

    async def _guarded(self, decision: Awaitable[LimitDecision], held: Sequence[Hit]) -> LimitDecision:
        """A decision that goes on if the call is cancelled, so that its slots can be given back."""
        deciding = asyncio.ensure_future(decision)
        try:
            return await asyncio.shield(deciding)
        except asyncio.CancelledError:
            self.finish(deciding)
            deciding.add_done_callback(lambda _: self._give_back(held))
            raise

    def _give_back(self, held: Sequence[Hit]) -> None:
        releasing = self.store.release(held)
        if releasing is not None:
            self.finish(asyncio.ensure_future(releasing))

    def finish(self, work: asyncio.Future[Any]) -> None:
        """Keep a reference to work that no call awaits any more, until it is done."""
        self._unattended.add(work)
        work.add_done_callback(self._unattended.discard)

    def _report_uncounted(self, decision: LimitDecision) -> None:
        """Count and log an uncounted decision.

        Remote stores log their own outages; a full memory is logged once a minute.
        """
        self._uncounted.inc()
        if self.store.name == Memory.name:
            self._full.report(decision.now)


class _Question(NamedTuple):
    """What a call asks before a request: the hits by a state of the rules, and the styles of headers."""

    rules: Mapping[str, tuple[Counted, ...]]
    hits: Sequence[Hit]
    styles: Sequence[str]


def _parsed(message: bytes) -> rls_pb2.RateLimitRequest:
    try:
        return decoding.parse(message)
    except DecodeError:
        raise RpcError(INTERNAL, "the message cannot be read") from None


def _divided(request: rls_pb2.RateLimitRequest) -> tuple[list[str], list[str], dict[str, str]]:
    """The rules, the styles of headers and the other entries of the first descriptor."""
    rules, styles = [], []
    entries: dict[str, str] = {}
    for entry in request.descriptors[0].entries:
        name, value = entry.key, entry.value
        if name == descriptors.RULE:
            rules.append(value)
        elif name == descriptors.STYLE:
            styles.append(value)
        else:
            entries.setdefault(name, value)
    return rules, styles, entries


def _answered(
    answer: client_headers.LimitAnswer | Undoable | Awaitable[client_headers.LimitAnswer | Undoable],
) -> bytes | Undoable | Awaitable[bytes | Undoable]:
    if isinstance(answer, client_headers.LimitAnswer):
        return _response(answer)
    if isinstance(answer, Later):
        return Later(answer.future, lambda decision: _finished(answer.finish(decision)))
    return _finished(answer) if isinstance(answer, Undoable) else _awaited(answer)


async def _awaited(answer: Awaitable[client_headers.LimitAnswer | Undoable]) -> bytes | Undoable:
    return _finished(await answer)


def _finished(answer: client_headers.LimitAnswer | Undoable) -> bytes | Undoable:
    if isinstance(answer, Undoable):
        return Undoable(_response(answer.response), answer.undo)
    return _response(answer)


def _response(answer: client_headers.LimitAnswer) -> bytes:
    return encoding.response(answer.admitted, answer.headers, answer.body)


async def _after_all(waiting: Awaitable[None], response: bytes) -> bytes:
    await waiting
    return response


async def _all(waiting: Iterable[Awaitable[None]]) -> bytes:
    for one in waiting:
        await one
    return encoding.passed(1)


def _limit_of(stored: str, by_base: Mapping[str, Counted]) -> state.Limit | None:
    """The limit of the gateway's rules that counts under the key `stored`."""
    most = max((len(one.by) or 1 for one in by_base.values()), default=1)
    for values in range(1, most + 1):
        counted = by_base.get(stored.rsplit("|", values)[0])
        if counted is not None:
            return counted.limit
    return None
