"""A source to a snapshot: reading and translating joined, with the results of both kept for the next time."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from filters.language import Place, Problem
from xds_server.discovery.snapshot import Snapshot
from xds_server.errors import InvalidGateway, UnreadableFolder
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.reader import Reader
from xds_server.sources.source import SourceState
from xds_server.translate.clusters import INTERNAL_SERVICES
from xds_server.translate.translator import Translator, Untranslatable


@dataclass(frozen=True, slots=True)
class Compiled:
    """A folder without mistakes: its gateway, the Envoy resources of it, and what is worth a warning."""

    gateway: Gateway
    snapshot: Snapshot
    warnings: tuple[Problem, ...]


class Compiler:
    """Compiles states of a source again and again; what did not change is neither read nor translated again.

    `internal_services` are the addresses at which Envoys reach services of ours, by name.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        internal_services: Mapping[str, str] = INTERNAL_SERVICES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reader = Reader()
        self._translator = Translator(internal_services)
        self._environment = os.environ if environment is None else environment
        self._clock = clock

    def compile(self, state: SourceState) -> Compiled:
        """Read and translate a source. Raises UnreadableFolder and InvalidGateway."""
        if state.problems:
            raise UnreadableFolder("\n".join(state.problems))
        with _without_collection():
            reading = self._reader.read(state.files, state.read, self._environment, self._clock())
            problems = (*reading.problems, *map(_not_read, state.ignored))
            if reading.gateway is None:
                raise InvalidGateway(problems)
            try:
                snapshot = self._translator.translate(reading.gateway)
            except Untranslatable as error:
                placed = (replace(one, place=reading.gateway.place(one.path)) for one in error.problems)
                raise InvalidGateway((*problems, *placed)) from None
        return Compiled(reading.gateway, snapshot, problems)


def _not_read(file: str) -> Problem:
    return Problem(
        path=(),
        message="this file is not read, because its name does not end in .yaml or .yml",
        remedy="rename it, in lower case",
        severity="warning",
        place=Place(file, 1, 1),
    )


@contextmanager
def _without_collection() -> Iterator[None]:
    """Reading makes many objects and no garbage in cycles: the collector would only look at them in vain.

    Frozen and thawed, they are among the old ones, which it looks at rarely.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.unfreeze()
            gc.enable()
