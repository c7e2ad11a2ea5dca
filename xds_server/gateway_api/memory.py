"""Results that are kept as long as nothing has changed that they were computed from. It does no IO.

After one change of a cluster, most objects are the same. A function that is `remembered` gets a cluster that notes what
the function reads of it. At the begin of a translation, each read that some result needed is made once more, and
results whose reads have other answers now are forgotten. All others are used again for the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")
_Read = tuple[str, tuple[Any, ...]]
"""The name of a method of a cluster, and its arguments."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A result, with the objects that it was computed from, which keeps their ids from being used again.

    `turn` is that of the last translation that used it.
    """

    objects: tuple[Any, ...]
    reads: tuple[_Read, ...]
    result: Any
    turn: int


@dataclass(slots=True, eq=False)
class _Answer:
    """What a cluster returned for a read, and the results that were computed from it."""

    value: Any
    users: set[Any] = field(default_factory=set)


class _Noted:
    """A cluster that notes which of its methods are called, with what, and what they return."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.reads: dict[_Read, Any] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._cluster, name)

        def noted(*arguments: Any) -> Any:
            answer = self.reads[name, arguments] = method(*arguments)
            return answer

        return noted


class Memory:
    """Results by function and objects, which a `Cluster` has. What was not used in a whole translation is forgotten."""

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}
        self._answers: dict[_Read, _Answer] = {}
        self._tables: dict[Any, dict[Any, Any]] = {}
        self._used: set[Any] = set()
        self._turn = 0

    def begin(self, cluster: Any) -> None:
        """Begin a translation of a cluster, which does not change until the next one begins."""
        for key in [key for key, one in self._entries.items() if one.turn < self._turn]:
            self._forget(key)
        self._turn += 1
        self._tables = {name: table for name, table in self._tables.items() if name in self._used}
        self._used = set()
        for (name, arguments), answer in list(self._answers.items()):
            now = getattr(cluster, name)(*arguments)
            if now is not answer.value and now != answer.value:
                for key in list(answer.users):
                    self._forget(key)

    def table(self, name: Any) -> dict[Any, Any]:
        """Return a dictionary that the next translation gets too, if it asks for it: for what is no result of a function."""
        self._used.add(name)
        return self._tables.setdefault(name, {})

    def result(self, function: Callable[..., Any], objects: tuple[Any, ...], cluster: Any) -> Any:
        """Return the result of a function of some objects and a cluster."""
        key = (function, *(one if isinstance(one, frozenset) else id(one) for one in objects))
        entry = self._entries.get(key)
        if entry is None:
            noted = _Noted(cluster)
            result = function(*objects, noted)
            entry = self._entries[key] = _Entry(objects, tuple(noted.reads), result, self._turn)
            for read, value in noted.reads.items():
                self._answers.setdefault(read, _Answer(value)).users.add(key)
        entry.turn = self._turn
        return entry.result

    def _forget(self, key: Any) -> None:
        for read in self._entries.pop(key).reads:
            answer = self._answers[read]
            answer.users.discard(key)
            if not answer.users:
                del self._answers[read]


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Remember the results of a function whose last argument is a cluster, and whose other arguments are never changed.

    These arguments are told apart by identity, and sets by their members.
    """

    @wraps(function)
    def asked(*arguments: Any) -> T:
        *objects, cluster = arguments
        if isinstance(cluster, _Noted):  # the function that is computed now reads the same of the cluster
            return function(*objects, cluster)  # type: ignore[call-arg,arg-type]
        return cast("T", cluster.memory.result(function, tuple(objects), cluster))

    return cast("Callable[P, T]", asked)
