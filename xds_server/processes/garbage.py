"""Python's garbage collector in a process with long-lived rules and counters, which it should not scan repeatedly.

Reference counts free nearly everything here. The cost of the collector is the pause of a full collection, which scans
every live object: at 500,000 counters, no request is decided for 0.1 s.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

LONGEST = 0.01
"""Objects that survive a full collection of more seconds than this are frozen."""


def settle() -> None:
    """Freeze all present objects, because they live long: later collections do not scan them."""
    gc.collect()
    gc.freeze()


class Pauses:
    """Freezes the objects that survive a long collection, between `watch` and `end`. `clock` returns seconds.

    A frozen object is still freed when its last reference goes. Only a cycle of frozen objects stays forever. A
    collection takes that long only after some 100,000 new long-lived objects, so such cycles are comparatively few.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0

    def watch(self) -> None:
        """Start to freeze objects after long collections."""
        gc.callbacks.append(self.collected)

    def end(self) -> None:
        """Stop it."""
        gc.callbacks.remove(self.collected)

    def collected(self, phase: str, collection: dict[str, Any]) -> None:
        """Handle a callback of the collector, which calls this before and after each collection."""
        if collection["generation"] < 2:
            return
        if phase == "start":
            self._began = self._clock()
        elif self._clock() - self._began > LONGEST:
            gc.freeze()
