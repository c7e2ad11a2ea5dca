"""Chains: the processors that a route names, found among the loaded rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from filters.processing.exchange import Failure
from filters.processing.names import CHAIN
from filters.processing.phases import PIECES, Phase
from filters.processing.plan import Plan, Step
from filters.processing.processor import Rule
from filters.rules import RuleType, Table
from filters.unary import RpcError

INVALID_ARGUMENT = 3
"""https://github.com/grpc/grpc/blob/master/doc/statuscodes.md"""
LINGER = 10.0
"""Seconds for which a former version of a rule is kept: longer than a control plane waits for an Envoy to follow."""
STEP = 0.005
"""Seconds between two lookups of a rule that has not arrived yet."""
MOST_CHAINS = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """One processor of a chain, as the route names it."""

    table: str
    rule: str
    phases: frozenset[Phase]
    timeout: float
    max_body: int
    lenient: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """What a route tells about its processors. `text` is what it was read from."""

    text: bytes
    route: str
    regex: str
    members: tuple[Member, ...]
    phases: frozenset[Phase]


@lru_cache(MOST_CHAINS)
def chain(text: bytes) -> Chain:
    """The chain of the metadata of a stream. Raises RpcError."""
    try:
        written = json.loads(text)
        members = tuple(
            Member(table, rule, frozenset(map(Phase, phases)), timeout, max_body, lenient)
            for table, rule, phases, timeout, max_body, lenient in written["chain"]
        )
        every = frozenset(phase for one in members for phase in one.phases)
        return Chain(text, written["route"], written["path"], members, every)
    except (ValueError, KeyError, TypeError):
        raise RpcError(INVALID_ARGUMENT, f"the metadata {CHAIN} is malformed") from None


class _Versions:
    """The rules of one type: the current ones, and former ones whose phases an Envoy may still ask for."""

    def __init__(
        self,
        type_: RuleType,
        load: Callable[[Any], Rule],
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.table: Table[Rule] = Table(type_, load, self._replaced)
        self._clock = clock
        self._changed = changed
        self._former: Mapping[str, tuple[Rule, float]] = {}

    def find(self, name: str, phases: Collection[Phase]) -> Rule | None:
        """The version with these phases, or None."""
        current = self.table.current.get(name)
        if current is not None and current.phases == phases:
            return current
        former, until = self._former.get(name, (None, 0.0))
        return former if former is not None and former.phases == phases and until > self._clock() else None

    def last_good(self, name: str, phases: Collection[Phase]) -> Rule | None:
        """The current version, unless Envoy's mode for the route forbids it.

        A response to headers can ask Envoy for anything but a body in pieces.
        """
        current = self.table.current.get(name)
        fits = current is not None and set(current.phases) & PIECES == set(phases) & PIECES
        return current if fits else None

    def _replaced(
        self, before: Mapping[str, Rule], loaded: Mapping[str, Rule], removed: Collection[str]
    ) -> None:
        now = self._clock()
        gone = {name: (before[name], now + LINGER) for name in {*loaded, *removed} if name in before}
        kept = {name: one for name, one in self._former.items() if one[1] > now}
        self._former = {**kept, **gone}
        self._changed()


class Chains:
    """Finds the processors of chains. `rules` are the kinds of processors: their type, and how each is loaded.

    `clock` gives seconds.
    """

    def __init__(
        self, rules: Iterable[tuple[RuleType, Callable[[Any], Rule]]], clock: Callable[[], float]
    ) -> None:
        self._plans: dict[bytes, Plan] = {}
        """Plans, until any rule changes. Plans with former versions are not kept, because these go."""
        self._versions = {
            type_.name: _Versions(type_, load, clock, self._plans.clear) for type_, load in rules
        }
        self.tables = tuple(one.table for one in self._versions.values())

    def plan(self, chain: Chain) -> Plan | None:
        """The processors of a chain, or None if one has not arrived."""
        known = self._plans.get(chain.text)
        if known is not None:
            return known
        found = [self._find(one, _Versions.find) for one in chain.members]
        steps = tuple(step for step in found if step is not None)
        if len(steps) < len(found):
            return None
        plan = Plan(steps)
        if all(self._is_current(one, step) for one, step in zip(chain.members, steps, strict=True)):
            self._keep(chain, plan)
        return plan

    def _keep(self, chain: Chain, plan: Plan) -> Plan:
        if len(self._plans) >= MOST_CHAINS:
            self._plans.clear()
        self._plans[chain.text] = plan
        return plan

    async def arrival(self, chain: Chain) -> Plan:
        """Wait for the processors of a chain: a route and its rules arrive over two streams. Raises Failure.

        If a new version of a processor could not be loaded, the last good one goes on. It is not waited for again until
        any rule changes.
        """
        for _ in range(int(min(one.timeout for one in chain.members) / STEP)):
            await asyncio.sleep(STEP)
            found = self.plan(chain)
            if found is not None:
                return found
        steps = []
        for one in chain.members:
            step = self._find(one, _Versions.last_good)
            if step is None:
                detail = "A processor of this route has not arrived at the policy server."
                raise Failure("processor_missing", 500, detail, one.rule)
            steps.append(step)
        return self._keep(chain, Plan(tuple(steps)))

    def _find(
        self, member: Member, find: Callable[[_Versions, str, frozenset[Phase]], Rule | None]
    ) -> Step | None:
        versions = self._versions.get(member.table)
        rule = None if versions is None else find(versions, member.rule, member.phases)
        return None if rule is None else Step(rule, member.timeout, member.max_body, member.lenient)

    def _is_current(self, member: Member, step: Step) -> bool:
        return self._versions[member.table].table.current.get(member.rule) is step.rule
