"""A bound on attempts: clients that fail too often wait. It is kept in memory, and each process counts for itself."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CLIENTS = 10_000
"""Clients that are remembered; the longest silent one is forgotten first."""


class Attempts:
    """Each client may fail `most` times at once, and `per_minute` times a minute in the long run (a token bucket)."""

    def __init__(
        self, most: int = 20, per_minute: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._rate, self._clock = most, per_minute / 60, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """Return the seconds for which a client must wait, 0 if it need not."""
        left = self._left(client)
        return 0 if left >= 1 else math.ceil((1 - left) / self._rate)

    def failed(self, client: str) -> None:
        """Note that a client has failed, or has done what is bounded."""
        self._clients[client] = (self._left(client) - 1, self._clock())
        self._clients.move_to_end(client)
        if len(self._clients) > MOST_CLIENTS:
            self._clients.popitem(last=False)

    def _left(self, client: str) -> float:
        left, at = self._clients.get(client, (float(self._most), self._clock()))
        return min(float(self._most), left + (self._clock() - at) * self._rate)
