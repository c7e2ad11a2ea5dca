"""Growing pauses between attempts."""

from __future__ import annotations

from collections.abc import Callable

SHORTEST, LONGEST = 0.1, 10.0
"""Seconds of the first pause, and of the longest one, before the random part."""


class Backoff:
    """Pauses that double up to the longest. Each is random between half of that and all of it.

    So many clients do not come back at the same moment. `random` returns a number from 0 to 1.
    """

    def __init__(
        self, random: Callable[[], float], *, shortest: float = SHORTEST, longest: float = LONGEST
    ) -> None:
        self._random = random
        self._shortest, self._longest = shortest, longest
        self._next = shortest

    def pause(self, least: float | None = None) -> float:
        """Return the seconds until the next attempt. It is never below `least`, which a server may ask for."""
        wait = self._next * (0.5 + self._random() / 2)
        self._next = min(self._next * 2, self._longest)
        return max(wait, least or 0.0)

    def reset(self) -> None:
        """Begin with the shortest pause again, because an attempt succeeded."""
        self._next = self._shortest
