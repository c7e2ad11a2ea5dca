"""The verdict of a real Envoy on a compiled gateway, object by object: the proof of `xds run`, for `xds check`."""

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
from xds_server.gateway.model.ports import ports
from xds_server.serving.events import Held
from xds_server.serving.server import XdsServer
from xds_server.serving.store import Store
from xds_server.translate import names
from xds_server.translate.stand_ins import stand_in

PATIENCE = 60.0
"""Seconds in which Envoy must start and respond."""


async def judge(compiled: Compiled, binary: pathlib.Path) -> tuple[Problem, ...]:
    """Send the gateway to the Envoy at `binary`, which gets no traffic. Returns an error for each rejected object.

    Raises EnvironmentFailed if no Envoy can be started, or if it does not respond.
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
            raise EnvironmentFailed("Envoy could not be started; --no-envoy checks without it")
        proof = await prover.prove(compiled.snapshot)
        if not proof.judged:
            raise EnvironmentFailed(
                f"Envoy did not respond within {PATIENCE:.0f} s; --no-envoy checks without it"
            )
        known = compiled.gateway.sections.routes
        shared = ports(compiled.gateway.sections)
        rejected = [(one.origin if one.type != ROUTE else _path(one, known), one) for one in proof.rejected]
        held = [
            (next(iter(names.origins(one.type.name, one.name, shared)), ()), one)
            for one in store.held(PROVING)
        ]
        return tuple(_problem(compiled, path, one) for path, one in (*rejected, *held))


def _path(held: Held, routes: Collection[str]) -> Path:
    return ("routes", held.name) if held.name in routes else ()


def _problem(compiled: Compiled, path: Path, held: Held) -> Problem:
    what = "" if path else f"{held.type.name} '{held.name}': "
    return Problem(
        path=path,
        message=f"{what}Envoy rejects this: {essence(held.message)}",
        remedy="correct what the message names",
        place=compiled.gateway.place(path) if path else None,
    )
