"""Rules: the resources that policy servers get over ADS, and the tables in which they keep them.

A rule is a resource with a message of our own. The control plane builds it from a frozen value of the gateway. A policy
server loads it into the form that its service needs, or rejects it and keeps the last good one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from filters.streaming import StreamMethod
from filters.unary import UnaryMethod

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleType:
    """One kind of rule. `message` is its protobuf class, `build` builds a message from a name and a frozen value."""

    name: str
    message: type[Message]
    build: Callable[[str, Any], Message]

    @property
    def full_name(self) -> str:
        """The full name of the protobuf message, which is the resource type on the wire."""
        return str(self.message.DESCRIPTOR.full_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a gateway. `value` is frozen. While it is the same object, the rule is not built again."""

    type: RuleType
    name: str
    value: Any

    def build(self) -> Message:
        """The rule's message."""
        return self.type.build(self.name, self.value)


class Refused(Exception):  # noqa: N818 - a response to the control plane; the last good rule stays
    """A rule cannot be used. The message is the reason, for the person who wrote the rule."""


class Table(Generic[T]):
    """The loaded rules of one type. `current` is replaced as a whole and never changed, so a request sees one state.

    `load` converts a message into the form that a service needs, or raises Refused. `changed` is called after a change,
    with the former rules, the new rules and the names of the removed rules.
    """

    def __init__(
        self,
        type_: RuleType,
        load: Callable[[Any], T],
        changed: Callable[[Mapping[str, T], Mapping[str, T], Collection[str]], None] | None = None,
    ) -> None:
        self.type = type_
        self.current: Mapping[str, T] = MappingProxyType({})
        self._load = load
        self._changed = changed

    def replace(self, bodies: Mapping[str, bytes], removed: Iterable[str]) -> dict[str, str]:
        """Load new rules by name and drop the removed ones. Returns the rejected ones with their reasons.

        For a rejected rule the former one stays.
        """
        loaded: dict[str, T] = {}
        refused: dict[str, str] = {}
        for name, body in bodies.items():
            try:
                loaded[name] = self._load(self.type.message.FromString(body))
            except (Refused, DecodeError) as error:
                refused[name] = str(error)
            except Exception as error:  # noqa: BLE001 - one rule never takes the others or the server away
                refused[name] = f"{type(error).__name__}: {error}"
        gone = frozenset(removed)
        before = self.current
        current = {**before, **loaded}
        for name in gone - loaded.keys():
            current.pop(name, None)
        self.current = MappingProxyType(current)
        if self._changed is not None:
            self._changed(before, loaded, gone)
        return refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service of the policy server: unary methods, streams, and the tables of the rules by which they decide.

    `name` is the full name of the gRPC service. `subscribers` are
    tables of what comes from a marketplace and not from the gateway, over a stream of its own. `close` releases the resources of the service (threads, connections).
    `pages` are JSON documents that an operator may read, by the path on the admin address. `actions` are operations for
    an operator, which take a text. Both are called in a thread of their own.
    """

    name: str
    methods: tuple[UnaryMethod, ...] = ()
    streams: tuple[StreamMethod, ...] = ()
    tables: tuple[Table[Any], ...] = ()
    subscribers: tuple[Table[Any], ...] = ()
    close: Callable[[], Awaitable[None] | None] = lambda: None
    pages: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    actions: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
