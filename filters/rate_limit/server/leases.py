"""Leases: an Envoy worker admits requests of one caller by itself, for which the counters have been debited before.

The script in Envoy (filters/rate_limit/envoy/leases.lua) asks for a lease only for callers with many requests. A lease
covers all limits of a request together, so a request takes one from each limit or from none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry, Counter

from filters.rate_limit import client_headers
from filters.rate_limit.engine.algorithms import FixedWindow, Limit
from filters.rate_limit.engine.decision import Figure, Hit, LimitDecision, Taken
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.envoy.leases import METHOD, largest_lease
from filters.rate_limit.limit_rules import Counted, plan_rule
from filters.rate_limit.server import decoding
from filters.rate_limit.server.hits import Entries, hit_before
from filters.rate_limit.server.service import UNAVAILABLE, RateLimits
from filters.unary import RpcError, UnaryMethod, Undoable
from protos import limits_pb2 as pb

INVALID_ARGUMENT = 3
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
SHARE_OF_REST = 8
"""A lease takes at most this part of what was left, so that the last requests of a limit are decided one by one."""
LONGEST = 1_000
"""Milliseconds of the longest lease."""
LONGEST_SHIFTED = 250
"""Milliseconds of the longest lease of limits without fixed windows.

Their count moves on while a lease lasts, so requests may pass up to this time after they were counted.
"""
SHORTEST = 10
"""Milliseconds. If a window ends sooner, a lease is for one request only."""

Work = Generator[Sequence[Hit], LimitDecision, pb.LeaseResponse | Undoable]
"""Asks for decisions, one after the other, and returns the response."""


@dataclass(frozen=True, slots=True)
class _Leased:
    """A limit of a lease: the rule that it is written in, and the hit of one request."""

    rule: str
    counted: Counted
    hit: Hit


class Leases:
    """Grants leases on the limits of `limits`, whose rules, counters and clock it uses."""

    def __init__(self, limits: RateLimits, registry: CollectorRegistry) -> None:
        self._limits = limits
        requests = Counter(
            "xds_rate_limit_leased_requests",
            "Requests that Envoy may admit by leases. state: granted (the counters were debited) or returned (an ended "
            "lease admitted nothing for them).",
            ["state"],
            registry=registry,
        )
        self._granted, self._returned = requests.labels("granted"), requests.labels("returned")

    def method(self) -> UnaryMethod:
        """The gRPC method that Envoy's script calls."""
        return UnaryMethod(
            path=METHOD,
            parse=pb.LeaseRequest.FromString,
            call=self.take,
            serialize=pb.LeaseResponse.SerializeToString,
        )

    def take(
        self, request: pb.LeaseRequest
    ) -> pb.LeaseResponse | Undoable | Awaitable[pb.LeaseResponse | Undoable]:
        """Debit the counters for a lease. Raises RpcError if a rule has not arrived yet, or without counters.

        If the worker gave up before it has the response, the lease is given back.
        """
        now = self._limits.clock()
        self._give_back(now, self._parts(request.returned))
        entries = {decoding.text(one.key): decoding.text(one.value) for one in request.entries}
        if descriptors.ADDRESS in entries:
            entries[descriptors.ADDRESS] = masked(entries[descriptors.ADDRESS])
        leased = list(self._leased(request, entries))
        if not leased:
            return pb.LeaseResponse()
        work = self._work(request, leased)
        answer = self._limits.store.decide(now, next(work))
        if not isinstance(answer, LimitDecision):
            return self._later(work, answer)
        while True:
            try:
                hits = work.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            again = self._limits.store.decide(now, hits)
            if not isinstance(again, LimitDecision):
                return self._later(work, again)
            answer = again

    async def _later(self, work: Work, answer: Awaitable[LimitDecision]) -> pb.LeaseResponse | Undoable:
        """The response, if the store is remote."""
        decision: LimitDecision = await answer
        while True:
            try:
                hits = work.send(decision)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            again = self._limits.store.decide(self._limits.clock(), hits)
            decision = again if isinstance(again, LimitDecision) else await again

    def _leased(self, request: pb.LeaseRequest, entries: Entries) -> Iterator[_Leased]:
        current = self._limits.rules.current
        for name in request.rules:
            found = current.get(name)
            if found is None:
                raise RpcError(UNAVAILABLE, f"the rule {name} is not here yet")
            yield from (_Leased(name, one, hit_before(one, entries)) for one in found)
        if request.plans and descriptors.CONSUMER in entries and descriptors.PLAN in entries:
            name = plan_rule(entries[descriptors.PLAN])
            yield from (_Leased(name, one, hit_before(one, entries)) for one in current.get(name, ()))

    def _work(self, request: pb.LeaseRequest, leased: Sequence[_Leased]) -> Work:
        """Ask for `wanted` requests, or for the share of the rest if there are fewer."""
        wanted = max(
            1, min([request.wanted, *(largest_lease(one.hit.limit, one.hit.cost) for one in leased)])
        )
        decision = yield _times(leased, wanted)
        if not decision.admitted and wanted > 1 and not decision.uncounted:
            wanted = max(1, _left(leased, decision.figures) // SHARE_OF_REST)
            decision = yield _times(leased, wanted)
        if decision.uncounted:
            # The worker then asks for no lease for a second, because a store that answers late may have debited it.
            raise RpcError(UNAVAILABLE, "the counters cannot be reached")
        if not decision.admitted:
            return pb.LeaseResponse(milliseconds=_milliseconds(decision))
        kept = min(wanted, max(1, (_left(leased, decision.figures) + wanted) // SHARE_OF_REST))
        time = _milliseconds(decision)
        if time < SHORTEST:
            kept = 1
        parts = _receipt(leased, decision)
        self._give_back(decision.now, self._taken(parts, wanted - kept))
        self._granted.inc(kept)
        response = pb.LeaseResponse(
            requests=kept,
            milliseconds=time,
            receipt=parts.SerializeToString(),
            headers=_headers(leased, decision, wanted - kept, request.styles),
        )
        return Undoable(response, lambda: self._give_back(decision.now, self._taken(parts, kept)))

    def _parts(self, returned: Iterable[pb.LeaseRequest.Returned]) -> Iterator[Taken]:
        for one in returned:
            try:
                receipt = pb.LeaseReceipt.FromString(one.receipt)
            except DecodeError:
                continue
            self._returned.inc(one.requests)
            yield from self._taken(receipt, one.requests)

    def _taken(self, receipt: pb.LeaseReceipt, requests: int) -> Iterator[Taken]:
        """What `requests` of a lease took. Limits that do not exist any more have no counters that matter."""
        for part in receipt.parts if requests else ():
            limit = _named(self._limits.rules.current, part)
            if limit is not None:
                yield Taken(limit, part.key, part.cost * requests, receipt.since, part.until)

    def _give_back(self, now: int, taken: Iterable[Taken]) -> None:
        listed = list(taken)
        waiting = self._limits.store.give_back(now, listed) if listed else None
        if waiting is not None:
            self._limits.finish(asyncio.ensure_future(waiting))


@lru_cache(maxsize=4096)
def masked(address: str) -> str:
    """The network of a client as Envoy's action `masked_remote_address` writes it: IPv4 by /32, IPv6 by /64.

    Raises RpcError if the text is not an address.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        raise RpcError(INVALID_ARGUMENT, f"{address!r} is not an address") from None
    return str(ip_network((found, 32 if found.version == 4 else 64), strict=False))


def _named(current: Mapping[str, tuple[Counted, ...]], part: pb.LeaseReceipt.Part) -> Limit | None:
    """The limit of a part, if it still counts under the same keys."""
    for one in current.get(part.rule, ()):
        if one.limit.name == part.limit and part.key.startswith(f"{one.base}|"):
            return one.limit
    return None


def _times(leased: Iterable[_Leased], requests: int) -> list[Hit]:
    return [one.hit._replace(cost=one.hit.cost * requests) for one in leased]


def _left(leased: Iterable[_Leased], figures: Iterable[Figure]) -> int:
    """The requests that all enforced limits have room for."""
    pairs = zip(leased, figures, strict=True)
    return min(
        (figure.remaining // one.hit.cost for one, figure in pairs if not figure.limit.shadow), default=2**31
    )


def _milliseconds(decision: LimitDecision) -> int:
    """The time until a lease would end: with the first window, and after the longest time at the latest."""
    times = [LONGEST]
    for figure in decision.figures:
        if isinstance(figure.limit, FixedWindow):
            times.append((figure.reset - decision.now) // 1000)
        else:
            times.append(LONGEST_SHIFTED)
    return min(times)


def _receipt(leased: Iterable[_Leased], decision: LimitDecision) -> pb.LeaseReceipt:
    return pb.LeaseReceipt(
        since=decision.now,
        parts=[
            pb.LeaseReceipt.Part(
                rule=one.rule,
                limit=one.hit.limit.name,
                key=one.hit.key,
                until=figure.reset,
                cost=one.hit.cost,
            )
            for one, figure in zip(leased, decision.figures, strict=True)
        ],
    )


class _Remaining(int):
    """What was left after the grant. As text, it is the mark that the script replaces by what is left."""

    cost: int

    def __str__(self) -> str:
        return f"\t{int(self)},{self.cost}\t"

    def __format__(self, spec: str) -> str:
        return str(self)


def _headers(
    leased: Iterable[_Leased], decision: LimitDecision, given_back: int, styles: Sequence[str]
) -> str:
    figures = []
    for one, figure in zip(leased, decision.figures, strict=True):
        remaining = _Remaining(figure.remaining + given_back * one.hit.cost)
        remaining.cost = one.hit.cost
        figures.append(figure._replace(remaining=remaining))
    marked = decision._replace(figures=tuple(figures))
    return "".join(f"{name}\n{value}\n" for name, value in client_headers.headers(marked, styles))
