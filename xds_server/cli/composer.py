"""xds composer: answers routes with `aggregate`, by calls through Envoy, with rules of a control plane, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xds_server.cli import flags, logs, rules_flags
from xds_server.composer.answer_memory import USUAL
from xds_server.processes import open_files
from xds_server.processes.addresses import Wanted, ensure_free, ensure_local

if TYPE_CHECKING:
    from xds_server.policy_server.lifecycle import PolicyServerOptions


_PRIVATE = 0o077
"""The umask: no other user connects to the socket of --listen, nor reads the state."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    logs.add_format(parser)
    add(
        "--xds",
        metavar="ADDRESS",
        default=flags.XDS,
        help="address of the control plane: HOST:PORT or unix:/PATH",
    )
    add(
        "--ca",
        type=Path,
        metavar="FILE",
        help="PEM file of the authorities of the control plane's certificate",
    )
    add("--certificate", type=Path, metavar="FILE", help="PEM file of the certificate for the control plane")
    add("--private-key", type=Path, metavar="FILE", help="PEM file of the certificate's private key")
    add(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1:18003",
        help="address to which the Envoy sends requests: unix:/PATH, or HOST:PORT with a host of loopback, because the "
        "composer believes whoever reaches it who the caller is",
    )
    add(
        "--calls",
        metavar="ADDRESS",
        default=_default_calls(),
        help="address at which the Envoy takes calls: that of --composer-calls of xds run",
    )
    add(
        "--admin",
        metavar="ADDRESS",
        help="address of status, metrics and probes: HOST:PORT (port 0: any free port) or unix:/PATH; default: none",
    )
    add(
        "--max-answers",
        type=flags.size,
        metavar="SIZE",
        default=USUAL,
        help="memory that the answers of upstreams may take in one process: new requests get 503 from there on, and calls of "
        "requests in progress fail at twice as much (default: 128MiB)",
    )
    rules_flags.add_life(parser, "composer", "the address")


def _default_calls() -> str:
    from xds_server.translate.composer_entry import DEFAULT_CALLS

    return DEFAULT_CALLS


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives. Raises EnvironmentFailed, WrongUsage."""
    from xds_server.processes.cpus import cores

    ensure_local("--listen", arguments.listen)
    wanted = [Wanted(flag="--listen", address=arguments.listen, shared=True)]
    if arguments.admin is not None:
        wanted.append(Wanted(flag="--admin", address=arguments.admin))
    ensure_free(*wanted)
    logs.start(arguments.log_format)
    open_files.raise_limit()  # each request and each call has a connection
    os.umask(_PRIVATE)
    with tempfile.TemporaryDirectory(prefix="xds-composer-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # read when prometheus_client is imported
        from xds_server.policy_server.workers import run as run_workers

        options, made = _options(arguments)
        code = run_workers(options, arguments.workers or cores(), (made,), Path(folder), None)
    sys.stderr.flush()
    return code


def _options(arguments: argparse.Namespace) -> tuple[PolicyServerOptions, Any]:
    from xds_server.composer.lifecycle import ROLE, made_by
    from xds_server.policy_server.lifecycle import PolicyServerOptions

    make, server = made_by(arguments.calls, arguments.max_answers)
    options = PolicyServerOptions(
        xds=arguments.xds,
        tls=rules_flags.tls(arguments),
        listen=arguments.listen,
        admin=arguments.admin,
        node_id=arguments.node_id,
        drain=arguments.drain,
        state=arguments.state,
        role=ROLE,
        server=server,
    )
    return options, make
