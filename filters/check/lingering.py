"""Rules that were removed here, while an Envoy may still have a route that needs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

LINGER = 10.0
"""Seconds for which a removed rule is still used: longer than a control plane waits for an Envoy to follow."""
T = TypeVar("T")


class Lingering(Generic[T]):
    """The removed rules of a Table, whose `changed` is `note`. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._leaving: Mapping[str, tuple[T, float]] = {}

    def note(self, before: Mapping[str, T], loaded: Mapping[str, T], removed: Collection[str]) -> None:
        """Keep what was removed, and forget what has been kept long enough."""
        now = self._clock()
        kept = {name: one for name, one in self._leaving.items() if one[1] > now and name not in loaded}
        gone = {name: (before[name], now + LINGER) for name in removed if name in before}
        self._leaving = {**kept, **gone}

    def get(self, name: str) -> T | None:
        """A rule that was removed not long ago."""
        rule, until = self._leaving.get(name, (None, 0.0))
        return rule if until > self._clock() else None
