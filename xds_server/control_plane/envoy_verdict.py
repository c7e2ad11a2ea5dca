"""What the real Envoy has against a compiled gateway, object by object: the proof of `xds run`, for `xds check`."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Collection
from contextlib import AsyncExitStack

from filters.language import Path, Problem
from xds_server.control_plane.compiler import Compiled
from xds_server.control_plane.prover import PROVING, Prover, proving_envoy
from xds_server.discovery.rejection import essence
from xds_server.discovery.stream import StreamLimits
from xds_server.discovery.types import ROUTE
from xds_server.errors import EnvironmentFailed
from xds_server.serving.events import Held
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.translate import names
from xds_server.translate.stand_ins import stand_in

PATIENCE = 60.0
"""Seconds that Envoy may take to start and to judge."""


async def judge(compiled: Compiled, binary: pathlib.Path) -> tuple[Problem, ...]:
    """Have the Envoy at `binary` take the gateway without serving anybody. Returns an error for each object that it rejects.

    Raises EnvironmentFailed where no Envoy can be started, or none answers.
    """
    store = Store(quarantine=True, stand_in=stand_in)
    prover = Prover(store, PATIENCE)
    store.observe(prover.observe)
    server = XdsServer(store, group_of=lambda _node, _context: PROVING, limits=StreamLimits(bisect=True))
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-check-"))
        address = f"unix:{folder}/xds.sock"
        await server.start(address)
        stack.push_async_callback(server.stop, 0)
        if not await proving_envoy(binary, address, stack):
            raise EnvironmentFailed("no Envoy could be started to check with; --no-envoy checks without")
        proof = await prover.prove(compiled.snapshot)
        if not proof.judged:
            raise EnvironmentFailed(
                f"Envoy did not answer within {PATIENCE:.0f} s; --no-envoy checks without"
            )
        known = compiled.gateway.sections.routes
        rejected = [(_path(one, known), one) for one in proof.rejected]
        held = [(names.origin(one.type.name, one.name), one) for one in store.held(PROVING)]
        return tuple(_problem(compiled, path, one) for path, one in (*rejected, *held))


def _path(held: Held, routes: Collection[str]) -> Path:
    if held.type != ROUTE:
        return names.origin(held.type.name, held.name)
    return ("routes", held.name) if held.name in routes else ()


def _problem(compiled: Compiled, path: Path, held: Held) -> Problem:
    what = "" if path else f"{held.type.name} '{held.name}': "
    return Problem(
        path=path,
        message=f"{what}Envoy rejects this: {essence(held.message)}",
        remedy="correct what the message names",
        place=compiled.gateway.place(path) if path else None,
    )
