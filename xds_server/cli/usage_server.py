"""xds usage-server: takes an entry for each request from Envoys, and counts requests in a database, until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from xds_server.cli import flags, logs
from xds_server.processes import open_files
from xds_server.processes.addresses import Wanted, ensure_free


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    logs.add_format(parser)
    add(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1:18002",
        help="address to which Envoys send their entries: HOST:PORT or unix:/PATH",
    )
    add(
        "--admin",
        metavar="ADDRESS",
        help="address of status, metrics and probes: HOST:PORT (port 0: any free port) or unix:/PATH; default: none",
    )
    flags.add_usage_store(parser, "--store", "--spool")
    add(
        "--spool-limit",
        type=flags.size,
        metavar="SIZE",
        default="1GiB",
        help="size of these entries from which on Envoys must keep them, such as 500MB or 2GiB",
    )
    add(
        "--drain",
        type=flags.seconds,
        metavar="SECONDS",
        default=5.0,
        help="time to count the last entries when the command ends",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives. Raises EnvironmentFailed, WrongUsage."""
    wanted = [Wanted(flag="--listen", address=arguments.listen, shared=True)]
    if arguments.admin is not None:
        wanted.append(Wanted(flag="--admin", address=arguments.admin))
    ensure_free(*wanted)
    import uvloop

    from xds_server.usage.server import UsageServerOptions, serve

    logs.start(arguments.log_format)
    open_files.raise_limit()  # each worker of each Envoy has a connection
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options = UsageServerOptions(
        listen=arguments.listen,
        admin=arguments.admin,
        store=arguments.store,
        spool=arguments.spool,
        spool_limit=arguments.spool_limit,
        drain=arguments.drain,
    )
    uvloop.run(serve(options))
    sys.stderr.flush()
    # a database that hangs would keep the interpreter from ending
    os._exit(0)
