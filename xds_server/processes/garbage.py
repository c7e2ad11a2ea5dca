"""Python's garbage collector in a process whose rules and counters live long: none of them is looked at again and again.

Reference counts free nearly everything here. What the collector costs is the pause of a full collection, which looks
at every object that is alive: at 500,000 counters 0.1 s in which nothing is decided.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

LONGEST = 0.01
"""Seconds of a full collection after which what it has seen is left alone."""


def settle() -> None:
    """What is here now lives long: no collection looks at it any more."""
    gc.collect()
    gc.freeze()


class Pauses:
    """Leaves alone what a long collection has seen, as long as it `watches`. `clock` gives seconds.

    What is frozen is still freed when nothing refers to it. Only a cycle among what was frozen stays for ever; a
    pause is that long only after some 100,000 new objects that live, so such cycles are few beside them.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0

    def watch(self) -> None:
        """Begin."""
        gc.callbacks.append(self.told)

    def end(self) -> None:
        """End."""
        gc.callbacks.remove(self.told)

    def told(self, phase: str, collection: dict[str, Any]) -> None:
        """What the collector calls before and after it works."""
        if collection["generation"] < 2:
            return
        if phase == "start":
            self._began = self._clock()
        elif self._clock() - self._began > LONGEST:
            gc.freeze()
