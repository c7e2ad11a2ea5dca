"""xds policy-server: the services that decide what Envoy cannot, fed by a control plane, until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.errors import WrongUsage
from xds_server.processes.addresses import Wanted, ensure_free

if TYPE_CHECKING:
    from xds_server.policy_server.lifecycle import Make, Options


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    add = parser.add_argument
    add(
        "--xds",
        default="127.0.0.1:18000",
        help="the control plane, HOST:PORT or unix:/PATH; none: descriptors only",
    )
    add("--xds-ca", type=Path, help="speak TLS; PEM of who issued the control plane's certificate")
    add("--xds-certificate", type=Path, help="PEM of a certificate to show to the control plane")
    add("--xds-key", type=Path, help="PEM of its key")
    add(
        "--listen",
        default="127.0.0.1:18001",
        help="where Envoys ask, HOST:PORT (several processes may share it) or unix:/PATH",
    )
    add(
        "--admin-address",
        help="probes, status, metrics and counters, HOST:PORT (0: any) or unix:/PATH; default: none",
    )
    add("--node-id", default="", help="what `xds status` calls it; default: policy-server@HOSTNAME")
    add(
        "--grpc",
        choices=("native", "grpcio"),
        default="native",
        help="what carries the services: our own server, or grpcio for comparison",
    )
    add(
        "--workers",
        type=int,
        help="processes that share the address and the counters, each with its own rules; default: one for each core",
    )
    add(
        "--counters",
        default="memory",
        help="where limits are counted: memory, redis://HOST:PORT, rediss://, unix://PATH, "
        "redis+cluster://HOST:PORT,... or redis+sentinel://HOST:PORT,.../NAME; several policy servers need a Redis",
    )
    add(
        "--descriptors",
        type=Path,
        help="a file or folder in the format of envoyproxy/ratelimit: limits of Envoys with the standard filter",
    )
    add(
        "--state",
        type=Path,
        help="a file of the last good rules, by which it decides after a start while the control plane is away",
    )
    add("--drain", type=float, default=5.0, help="seconds that requests under way get at the end")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes. Raises EnvironmentFailed, WrongUsage."""
    ensure_free(*_wanted(arguments))
    workers = _workers(arguments)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    code = _alone(arguments) if workers == 1 else _together(arguments, workers)
    sys.stderr.flush()
    # A function of a user that never returns would hold the interpreter back for ever.
    os._exit(code)


def _wanted(arguments: argparse.Namespace) -> Iterator[Wanted]:
    yield Wanted(flag="--listen", address=arguments.listen, shared=True)
    if arguments.admin_address is not None:
        yield Wanted(flag="--admin-address", address=arguments.admin_address)


def _workers(arguments: argparse.Namespace) -> int:
    from xds_server.processes.cpus import cores

    alone = arguments.grpc == "grpcio" and arguments.listen.startswith("unix:")
    if arguments.workers is None:
        return 1 if alone else cores()
    if arguments.workers < 1:
        raise WrongUsage("--workers: at least 1")
    if arguments.workers > 1 and alone:
        raise WrongUsage("--grpc=grpcio: its workers can share a port, but no Unix socket")
    return int(arguments.workers)


def _options(arguments: argparse.Namespace) -> Options:
    from xds_server.policy_server.delta_client import Tls
    from xds_server.policy_server.lifecycle import Options

    ca, certificate, key = arguments.xds_ca, arguments.xds_certificate, arguments.xds_key
    if (certificate is None) != (key is None) or (certificate is not None and ca is None):
        raise WrongUsage("--xds-certificate and --xds-key go together, and with --xds-ca")
    return Options(
        xds=arguments.xds,
        tls=Tls(ca=ca, certificate=certificate, private_key=key) if ca is not None else None,
        listen=arguments.listen,
        admin=arguments.admin_address,
        node_id=arguments.node_id,
        drain=arguments.drain,
        grpc=arguments.grpc,
        own_counters=arguments.counters == "memory",
        state=arguments.state,
    )


def _alone(arguments: argparse.Namespace) -> int:
    import uvloop
    from prometheus_client import CollectorRegistry

    from xds_server.policy_server.lifecycle import serve

    uvloop.run(serve(_options(arguments), _services(arguments), CollectorRegistry()))
    return 0


def _together(arguments: argparse.Namespace, workers: int) -> int:
    with tempfile.TemporaryDirectory(prefix="xds-policy-server-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read when prometheus_client is imported
        try:
            from xds_server.policy_server.workers import run as run_workers

            owner = Path(folder) / "counters.sock" if arguments.counters == "memory" else None
            made = _services(arguments, owner)
            return run_workers(_options(arguments), workers, made, Path(folder), owner)
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def _services(arguments: argparse.Namespace, owner: Path | None = None) -> tuple[Make, ...]:
    from filters.rate_limit.stores.redis import connect
    from xds_server.policy_server.descriptors import read
    from xds_server.policy_server.lifecycle import NOBODY
    from xds_server.policy_server.services import services

    if arguments.counters != "memory":
        try:
            connect(arguments.counters)
        except ValueError as error:
            raise WrongUsage(f"--counters: {error}") from None
    if arguments.descriptors is not None:
        read(arguments.descriptors)  # so that mistakes end the command and not its workers
    elif arguments.xds == NOBODY:
        raise WrongUsage("--xds none: nothing is left to serve without --descriptors")
    return services(arguments.counters, arguments.descriptors, owner)
