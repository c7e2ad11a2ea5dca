"""Rules: what policy servers are told over ADS, and the state in which they hold it.

A rule is a resource of a message of our own. The control plane makes it of a frozen value of the gateway; a policy
server loads it into whatever its service needs, or refuses it and keeps the last good one.
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
    """One kind of rule: `message` is its protobuf class, `build` makes one of a name and a frozen value."""

    name: str
    message: type[Message]
    build: Callable[[str, Any], Message]

    @property
    def full_name(self) -> str:
        """The full name of the protobuf message, which is the resource type on the wire."""
        return str(self.message.DESCRIPTOR.full_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a gateway. `value` is frozen: while it is the same object, the rule is not built again."""

    type: RuleType
    name: str
    value: Any

    def build(self) -> Message:
        """The rule's message."""
        return self.type.build(self.name, self.value)


class Refused(Exception):  # noqa: N818 - an answer to the control plane, which keeps the last good rule
    """A rule that cannot be used, with the reason for the person who wrote it."""


class Table(Generic[T]):
    """The rules of one type, loaded. `current` is never changed but replaced, so a request holds one state of it.

    `load` makes what a service needs of a message, and raises Refused. `changed` is told afterwards what was before,
    what is new and what is gone.
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
        """Take new rules by name and forget the removed ones. Returns the refused ones with their reasons.

        A refused rule stays what it was before.
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
    """What a policy server carries: unary methods, streams, and the tables of the rules by which they decide.

    `name` is the full name of the gRPC service. `close` ends what the service holds (threads, connections).
    `pages` are what an operator may read, as JSON, by the path on the admin address; `actions` are what an operator
    may do, told a text. Both are called in a thread of their own.
    """

    name: str
    methods: tuple[UnaryMethod, ...] = ()
    streams: tuple[StreamMethod, ...] = ()
    tables: tuple[Table[Any], ...] = ()
    close: Callable[[], Awaitable[None] | None] = lambda: None
    pages: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    actions: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
