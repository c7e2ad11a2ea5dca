"""xds policy-server: runs the services that decide what Envoy cannot, with rules of a control plane, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags, logs, rules_flags
from xds_server.errors import WrongUsage
from xds_server.processes import open_files
from xds_server.processes.addresses import Wanted, ensure_free

if TYPE_CHECKING:
    from xds_server.policy_server.lifecycle import Make, PolicyServerOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    logs.add_format(parser)
    add(
        "--xds",
        metavar="ADDRESS",
        default=flags.XDS,
        help="address of the control plane: HOST:PORT or unix:/PATH; none: serve only --descriptors",
    )
    flags.add_renamed(
        parser,
        "--ca",
        "--xds-ca",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities of the control plane's certificate: connects over TLS",
    )
    flags.add_renamed(
        parser,
        "--certificate",
        "--xds-certificate",
        type=Path,
        metavar="FILE",
        help="PEM file of the certificate that this client shows to the control plane",
    )
    flags.add_renamed(
        parser,
        "--private-key",
        "--xds-key",
        type=Path,
        metavar="FILE",
        help="PEM file of the certificate's private key",
    )
    add(
        "--token",
        type=Path,
        metavar="FILE",
        help="file with a token of a service account that this client shows to the controller of a cluster; needs --ca",
    )
    add(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1:18001",
        help="address to which Envoys send their requests: HOST:PORT, which several policy servers may share, "
        "or unix:/PATH",
    )
    flags.add_renamed(
        parser,
        "--admin",
        "--admin-address",
        metavar="ADDRESS",
        help="address of status, metrics, probes and counters: HOST:PORT (port 0: any free port) or unix:/PATH; "
        "default: none",
    )
    rules_flags.add_life(parser, "policy-server", "the address and the counters")
    add(
        "--counters",
        metavar="STORE",
        default="memory",
        help="where limits are counted: memory, redis://HOST:PORT, rediss://HOST:PORT, unix://PATH, "
        "redis+cluster://HOST:PORT,... or redis+sentinel://HOST:PORT,.../NAME; "
        "several policy servers need a Redis",
    )
    add(
        "--counters-timeout",
        type=flags.seconds,
        metavar="SECONDS",
        help="how long the counters may be silent before on_error of a limit decides; Envoy waits 1 second; "
        "default: 0.1 for a Redis, 0.4 for memory that several workers share",
    )
    add(
        "--limit-clock",
        type=Path,
        metavar="FILE",
        help="file with the time of limits, in microseconds since 1970, which stands still until the file changes: for "
        "tests; needs --workers 1 and counters in memory",
    )
    add(
        "--cache",
        metavar="STORE",
        default="memory",
        help="where responses of `cache` are kept beside this policy server's own memory: memory (nowhere), or a Redis as "
        "for --counters, which all policy servers share; best another one than for --counters, because it may evict",
    )
    add(
        "--descriptors",
        type=Path,
        metavar="PATH",
        help="file or folder in the format of envoyproxy/ratelimit: limits for Envoys with the standard filter",
    )
    add(
        "--marketplace",
        action="store_true",
        help="follow the keys of the marketplace that the control plane has, if it was started with --marketplace",
    )
    add(
        "--grpc",
        choices=("native", "grpcio"),
        default="native",
        help="gRPC server to use: our own, or grpcio for comparison",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives. Raises EnvironmentFailed, WrongUsage."""
    ensure_free(*_wanted(arguments))
    workers = _workers(arguments)
    logs.start(arguments.log_format)
    open_files.raise_limit()  # each worker of each Envoy has a connection
    code = _alone(arguments) if workers == 1 else _together(arguments, workers)
    sys.stderr.flush()
    # A user's function that never returns would keep the interpreter from ending.
    os._exit(code)


def _wanted(arguments: argparse.Namespace) -> Iterator[Wanted]:
    yield Wanted(flag="--listen", address=arguments.listen, shared=True)
    if arguments.admin is not None:
        yield Wanted(flag="--admin", address=arguments.admin)


def _workers(arguments: argparse.Namespace) -> int:
    from xds_server.processes.cpus import cores

    alone = arguments.grpc == "grpcio" and arguments.listen.startswith("unix:")
    if arguments.workers is None:
        return 1 if alone else cores()
    if arguments.workers > 1 and alone:
        raise WrongUsage("--grpc grpcio: its workers can share a port, but not a Unix socket")
    return int(arguments.workers)


def _options(arguments: argparse.Namespace) -> PolicyServerOptions:
    from xds_server.policy_server.lifecycle import PolicyServerOptions

    return PolicyServerOptions(
        xds=arguments.xds,
        tls=rules_flags.tls(arguments, arguments.token),
        listen=arguments.listen,
        admin=arguments.admin,
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
    from filters.rate_limit.stores.redis_client import connect
    from xds_server.policy_server.descriptors import read
    from xds_server.policy_server.lifecycle import NOBODY
    from xds_server.policy_server.services import services

    for flag, url in (("--counters", arguments.counters), ("--cache", arguments.cache)):
        if url != "memory":
            try:
                connect(url)
            except ValueError as error:
                raise WrongUsage(f"{flag}: {error}") from None
    if arguments.limit_clock is not None and (owner is not None or arguments.counters != "memory"):
        raise WrongUsage(
            "--limit-clock needs --workers 1 and --counters memory: other counters have their own clock"
        )
    if arguments.counters_timeout == 0:
        raise WrongUsage("--counters-timeout 0 leaves no time for a decision; write a number such as 0.1")
    if arguments.descriptors is not None:
        read(arguments.descriptors)  # so that errors end the command and not its workers
    elif arguments.xds == NOBODY:
        raise WrongUsage("--xds none needs --descriptors: without both, there is nothing to serve")
    return services(
        arguments.counters,
        arguments.descriptors,
        owner,
        counters_timeout=arguments.counters_timeout,
        responses=arguments.cache,
        subscribers=arguments.marketplace,
        clock=_clock(arguments.limit_clock),
    )


def _clock(file: Path | None) -> Callable[[], int]:
    from filters.rate_limit.server.service import microseconds
    from xds_server.policy_server.file_clock import FileClock

    if file is None:
        return microseconds
    try:
        return FileClock(file)
    except OSError as error:
        raise WrongUsage(f"--limit-clock: {file} cannot be read: {error.strerror}") from None
