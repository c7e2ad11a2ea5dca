"""xds run: the control plane on a folder, and the Envoy beside it, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.errors import WrongUsage

if TYPE_CHECKING:
    from xds_server.serving.tls import Files


LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds from 0 to 86400")
    return number


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    add = parser.add_argument
    add("folder", help="the gateway's folder")
    add("--no-proxy", action="store_true", help="the control plane alone, for Envoys that someone else runs")
    add(
        "--prove",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="have an Envoy that serves nobody accept every change before others get it; default: where there is one",
    )
    add(
        "--xds-address",
        default="127.0.0.1:18000",
        help="where Envoys ask, HOST:PORT or unix:/PATH; port 0: any",
    )
    add("--admin-address", default="127.0.0.1:19000", help="status, metrics and probes; port 0: any")
    add("--node-id", default="local", help="what the Envoy beside it is called")
    add("--concurrency", type=_positive, help="Envoy's worker threads; default: one for each core")
    add("--drain", type=_seconds, default=5.0, help="seconds that requests under way get at the end")
    add(
        "--poll",
        action="store_true",
        help="look at the folder twice a second: for file systems without events",
    )
    add(
        "--policy-server",
        metavar="ADDRESS",
        help="where Envoys reach a policy server that someone else runs; default: one is run beside, when needed",
    )
    add(
        "--state",
        type=Path,
        help="file that keeps the last good gateway over a restart, private keys included",
    )
    add("--xds-certificate", type=Path, help="PEM file: xDS over TLS; read again when it changes")
    add("--xds-private-key", type=Path, help="PEM file of its key")
    add("--xds-client-ca", type=Path, help="PEM file: clients must show a certificate of these authorities")
    add(
        "--xds-identity",
        action="append",
        default=[],
        help="SAN that an Envoy's certificate must have, such as spiffe://example.com/envoy/{id}; repeatable",
    )
    add("--secrets-anywhere", action="store_true", help="send secrets also in plain text over a network")
    add("--envoy-log-level", choices=LEVELS, default="warning", help="Envoy's own log, on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes. Raises EnvironmentFailed, WrongUsage."""
    # Envoy is started by fork and exec, which needs no support of gRPC's
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from xds_server.app import Options, serve

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    options = Options(
        folder=Path(arguments.folder),
        proxy=not arguments.no_proxy,
        prove=arguments.prove,
        xds_address=arguments.xds_address,
        admin_address=arguments.admin_address,
        node_id=arguments.node_id,
        concurrency=arguments.concurrency,
        drain=arguments.drain,
        poll=arguments.poll,
        envoy_log_level=arguments.envoy_log_level,
        policy_server=_endpoint(arguments.policy_server) if arguments.policy_server else None,
        state=arguments.state,
        tls=_tls(arguments),
        identities=tuple(arguments.xds_identity),
        secrets_anywhere=arguments.secrets_anywhere,
    )
    _loop(serve(options))
    return 0


def _tls(arguments: argparse.Namespace) -> Files | None:
    from xds_server.serving.tls import Files

    certificate, key, ca = arguments.xds_certificate, arguments.xds_private_key, arguments.xds_client_ca
    if (certificate is None) != (key is None):
        raise WrongUsage("--xds-certificate and --xds-private-key go together")
    if certificate is None or key is None:
        if ca is not None or arguments.xds_identity:
            raise WrongUsage("--xds-client-ca and --xds-identity need --xds-certificate")
        return None
    if arguments.xds_identity and ca is None:
        raise WrongUsage("--xds-identity needs --xds-client-ca")
    return Files(certificate=certificate, private_key=key, client_ca=ca)


def _loop(main) -> None:  # type: ignore[no-untyped-def] # a coroutine
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _endpoint(text: str) -> str:
    from filters.language import Mistake
    from xds_server.gateway.model.upstreams import parse_address

    try:
        parse_address(text)
    except Mistake as mistake:
        raise WrongUsage(f"--policy-server: {mistake.message}; {mistake.remedy}") from None
    return text
