"""A source compiled to a snapshot: reading and translating, with the results of both cached for the next time."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from filters.language import Place, Problem
from xds_server.discovery.snapshot import EMPTY, Snapshot
from xds_server.errors import InvalidGateway, UnreadableFolder
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.reader import Reader
from xds_server.sources.protoc import ProtoCompiler
from xds_server.sources.source import SourceState
from xds_server.translate.clusters import INTERNAL_SERVICES
from xds_server.translate.composer_entry import DEFAULT_CALLS
from xds_server.translate.route_trees import DEFAULT, Shape
from xds_server.translate.translator import Translator, Untranslatable


@dataclass(frozen=True, slots=True)
class Compiled:
    """A source without errors: its gateway, its Envoy resources, and its warnings."""

    gateway: Gateway
    snapshot: Snapshot
    warnings: tuple[Problem, ...]


class Compiler:
    """Compiles successive states of a source. Unchanged parts are neither read nor translated again.

    `internal_services` are the addresses at which Envoys reach our own services, by name. `composer_calls`
    is the address at which Envoys take calls of the composer. `shape` says which hosts get a tree of routes. Without
    `metered`, no request counts as usage, and without `composed` a route that needs a composer is an error. Unless it
    `translates`, the snapshot is empty.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        internal_services: Mapping[str, str] = INTERNAL_SERVICES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        composer_calls: str = DEFAULT_CALLS,
        shape: Shape = DEFAULT,
        metered: bool = True,
        composed: bool = True,
        translates: bool = True,
    ) -> None:
        self._metered, self._composed, self._translates = metered, composed, translates
        self._reader = Reader()
        self._translator = Translator(internal_services, composer_calls=composer_calls, shape=shape)
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._protos = ProtoCompiler()

    def compile(self, state: SourceState) -> Compiled:
        """Read and translate a source. Raises UnreadableFolder and InvalidGateway."""
        if state.problems:
            raise UnreadableFolder("\n".join(state.problems))
        with _without_collection():
            environment = self._environment if state.environment is None else state.environment
            reading = self._reader.read(
                state.files, state.read, environment, self._clock(), self._protos, state.names
            )
            problems = (*state.findings, *reading.problems, *map(_not_read, state.ignored))
            if not self._composed and reading.gateway is not None:
                problems = (*problems, *_without_composer(reading.gateway))
            if reading.gateway is None or any(one.severity == "error" for one in problems):
                raise InvalidGateway(problems)
            try:
                commit = state.version.id if state.version is not None else ""
                gateway = reading.gateway if self._metered else _unmetered(reading.gateway)
                snapshot = self._translator.translate(gateway, commit) if self._translates else EMPTY
            except Untranslatable as error:
                placed = (replace(one, place=reading.gateway.place(one.path)) for one in error.problems)
                raise InvalidGateway((*problems, *placed)) from None
            slow = (
                replace(one, place=reading.gateway.place(one.path)) for one in self._translator.warnings()
            )
        return Compiled(gateway, snapshot, (*problems, *slow))


def _without_composer(gateway: Gateway) -> Iterator[Problem]:
    """Yield an error for each route that needs a composer."""
    for name, route in gateway.sections.routes.items():
        if route.composed is not None:
            path = ("routes", name, "graphql" if route.aggregate is None else "aggregate")
            yield Problem(
                path=path,
                message="a preview has no composer, which answers this route",
                remedy="serve the branch with an xds run of its own",
                place=gateway.place(path),
            )


def _unmetered(gateway: Gateway) -> Gateway:
    telemetry = gateway.sections.telemetry
    if telemetry.usage is None:
        return gateway
    return replace(gateway, sections=replace(gateway.sections, telemetry=replace(telemetry, usage=None)))


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
    """Pause the garbage collector, because reading makes many objects and no cycles.

    The objects are frozen and thawed, so that they are in the oldest generation, which the collector scans rarely.
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
