"""The rule by which the policy server answers for an upstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from filters.policy import Context
from filters.processing.phases import Phase
from filters.rules import Rule, RuleType
from protos import rules_pb2


class MockSource(NamedTuple):
    """A document, the path before its paths, the plans of its callers (all if empty), and if values are random."""

    name: str
    document: bytes
    base_path: str | None
    plans: tuple[str, ...]
    dynamic: bool


def _message(name: str, value: MockSource) -> rules_pb2.Mock:
    return rules_pb2.Mock(
        name=name,
        document=value.document,
        base_path=value.base_path,
        plans=value.plans,
        dynamic=value.dynamic,
    )


PHASES = frozenset({Phase.REQUEST_HEADERS, Phase.REQUEST_BODY})
"""A request with a body is answered behind it, so that its connection can be used again."""
MOCK = RuleType(name="mock", message=rules_pb2.Mock, build=_message)


def rules(context: Context) -> Iterator[Rule]:
    """Yield the rules of all mocks of a gateway."""
    found = {one.name: one for mock in context.mocks.values() if (one := mock.source(context.contents))}
    for name, source in sorted(found.items()):
        yield Rule(type=MOCK, name=name, value=source)
