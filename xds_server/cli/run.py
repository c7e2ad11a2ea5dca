"""xds run: runs the control plane on a folder, and an Envoy, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from xds_server.cli import flags, git, logs
from xds_server.errors import WrongUsage

if TYPE_CHECKING:
    from xds_server.serving.tls import Files
    from xds_server.translate.route_trees import Shape


DEFAULT_CONSOLE = "127.0.0.1:19080"
SHORTEST_TOKEN = 16
LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    logs.add_format(parser)
    flags.add_folder(parser, git=True)
    git.add(parser)
    _add_addresses(parser)
    _add_envoy(parser)
    _add_own_services(parser)
    _add_lifecycle(parser)
    _add_rollout(parser)
    _add_tls(parser)
    _add_console(parser)


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    """Add the addresses at which the control plane listens."""
    flags.add_renamed(
        parser,
        "--xds",
        "--xds-address",
        metavar="ADDRESS",
        default=flags.XDS,
        help="address of the xDS server, to which Envoys connect: HOST:PORT (port 0: any free port) or unix:/PATH",
    )
    flags.add_renamed(
        parser,
        "--admin",
        "--admin-address",
        metavar="ADDRESS",
        default=flags.ADMIN,
        help="address of status, metrics and probes: HOST:PORT (port 0: any free port) or unix:/PATH",
    )
    parser.add_argument(
        "--max-streams",
        type=flags.positive,
        metavar="N",
        default=20_000,
        help="limit of open streams of xDS clients: an Envoy needs one",
    )


def _add_envoy(parser: argparse.ArgumentParser) -> None:
    """Add the options of the Envoys that this command starts."""
    add = parser.add_argument
    add(
        "--no-proxy",
        action="store_true",
        help="start no Envoy and no policy server, because they run elsewhere",
    )
    add(
        "--prove",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send each change first to a separate Envoy without traffic, and to the others only what it accepts; "
        "without an Envoy binary, changes are not proved",
    )
    flags.add_renamed(
        parser,
        "--envoy-workers",
        "--concurrency",
        type=flags.positive,
        metavar="N",
        help="worker threads of Envoy (its option --concurrency); default: one for each CPU",
    )
    add("--envoy-log-level", choices=LEVELS, default="warning", help="least severe message that Envoy logs")
    add("--node-id", metavar="NAME", default="local", help="name of the Envoy that this command starts")


def _add_own_services(parser: argparse.ArgumentParser) -> None:
    """Add the policy server and the usage server."""
    add = parser.add_argument
    add(
        "--policy-server",
        metavar="ADDRESS",
        help="address at which Envoys reach a policy server that runs elsewhere; "
        "default: this command starts one if the gateway needs it",
    )
    add(
        "--usage-server",
        metavar="ADDRESS",
        help="address at which Envoys reach a usage server that runs elsewhere; "
        "default: this command starts one if the gateway needs it",
    )
    add(
        "--composer",
        metavar="ADDRESS",
        help="address at which Envoys reach a composer that runs elsewhere; "
        "default: this command starts one if the gateway needs it",
    )
    add(
        "--composer-calls",
        metavar="unix:/PATH",
        help="Unix socket at which Envoys take the calls of the composer, for a composer that runs elsewhere; only the "
        "user of Envoy can connect to it. Default: unix:/run/xds/composer-calls.sock with --no-proxy or --composer",
    )
    flags.add_usage_store(parser, "--usage-store", "--usage-spool")
    add(
        "--marketplace",
        metavar="URL",
        help="database of the marketplace, whose keys and subscriptions hold at once: sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST/DATABASE; default: none",
    )


def _add_lifecycle(parser: argparse.ArgumentParser) -> None:
    """Add what is read at the start and kept at the end."""
    add = parser.add_argument
    add(
        "--drain",
        type=flags.seconds,
        metavar="SECONDS",
        default=5.0,
        help="time that open requests get to finish when the command ends",
    )
    add(
        "--poll",
        action="store_true",
        help="read the folder twice a second, for file systems that report no changes",
    )
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="file that keeps the last good gateway for the next start; it contains private keys",
    )


def _add_rollout(parser: argparse.ArgumentParser) -> None:
    """Add the store through which replicas share rollouts."""
    add = parser.add_argument
    add(
        "--rollout-store",
        metavar="URL",
        help="store through which all control planes of this gateway share rollouts: a Redis, as for the --counters of "
        "xds policy-server, or postgresql://USER:PASSWORD@HOST/DATABASE; default: each decides for its own Envoys",
    )
    add(
        "--rollout-name",
        type=_name,
        metavar="NAME",
        default="gateway",
        help="name of the rollout in that store; each gateway needs its own",
    )


def _name(text: str) -> str:
    """Return a name of letters, digits, '.', '_' and '-'. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a name of at most 64 letters, digits, '.', '_' and '-'"
        )
    return text


def _add_tls(parser: argparse.ArgumentParser) -> None:
    """Add TLS and the identities of clients of the xDS server."""
    add = parser.add_argument
    flags.add_renamed(
        parser,
        "--certificate",
        "--xds-certificate",
        type=Path,
        metavar="FILE",
        help="PEM file of the xDS server's certificate: serves xDS over TLS; read again when it changes",
    )
    flags.add_renamed(
        parser,
        "--private-key",
        "--xds-private-key",
        type=Path,
        metavar="FILE",
        help="PEM file of the certificate's private key",
    )
    flags.add_renamed(
        parser,
        "--ca",
        "--xds-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM file of certificate authorities: clients need a certificate that one of them issued",
    )
    flags.add_renamed(
        parser,
        "--identity",
        "--xds-identity",
        action="append",
        default=[],
        metavar="SAN",
        help="subject alternative name that a client's certificate needs, such as "
        "spiffe://example.com/envoy/{id}, where {id} is the name of its node; may be repeated",
    )
    add(
        "--secrets-anywhere",
        action="store_true",
        help="send secrets to clients on other machines also without TLS",
    )


def _add_console(parser: argparse.ArgumentParser) -> None:
    """Add the console."""
    add = parser.add_argument
    add(
        "--console",
        metavar="HOST:PORT|off",
        help="address of the console, a web page; a host that is not loopback needs a token; default: 127.0.0.1:19080",
    )
    add(
        "--console-token",
        type=Path,
        metavar="FILE",
        help="file with the token of the console; default: a new one at each start if the host is not loopback",
    )


def run(arguments: argparse.Namespace, shape: Shape | None = None) -> int:
    """Serve until a signal arrives. Raises EnvironmentFailed, WrongUsage.

    `shape` says which hosts get a tree of routes; None: those with many routes.
    """
    # Envoy is started by fork and exec, which needs no support of gRPC's
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from xds_server.app import serve
    from xds_server.database_url import checked
    from xds_server.run_options import RunOptions
    from xds_server.translate.route_trees import DEFAULT

    terminal = logs.start(arguments.log_format)
    options = RunOptions(
        folder=Path(arguments.folder),
        git=git.options(arguments),
        gateway=arguments.gateway,
        proxy=not arguments.no_proxy,
        prove=arguments.prove,
        xds=arguments.xds,
        admin=arguments.admin,
        max_streams=arguments.max_streams,
        node_id=arguments.node_id,
        envoy_workers=arguments.envoy_workers,
        drain=arguments.drain,
        poll=arguments.poll,
        envoy_log_level=arguments.envoy_log_level,
        policy_server=_endpoint("--policy-server", arguments.policy_server),
        usage_server=_endpoint("--usage-server", arguments.usage_server),
        composer=_endpoint("--composer", arguments.composer),
        composer_calls=_socket("--composer-calls", arguments.composer_calls),
        usage_store=checked(arguments.usage_store),
        usage_spool=arguments.usage_spool,
        marketplace=checked(arguments.marketplace, "marketplace store")
        if arguments.marketplace is not None
        else None,
        state=arguments.state,
        rollout_store=arguments.rollout_store,
        rollout_name=arguments.rollout_name,
        tls=_tls(arguments),
        identities=tuple(arguments.identity),
        secrets_anywhere=arguments.secrets_anywhere,
        console=None if arguments.console == "off" else arguments.console or DEFAULT_CONSOLE,
        console_token=_token(arguments.console_token),
        console_asked=arguments.console is not None,
        log_format=arguments.log_format,
        show_status=terminal.show if terminal is not None else None,
        shape=shape or DEFAULT,
    )
    _loop(serve(options))
    return 0


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"--console-token: {file} cannot be read: {error}") from None
    if len(token) < SHORTEST_TOKEN:
        raise WrongUsage(f"--console-token: a token has at least {SHORTEST_TOKEN} characters")
    return token


def _tls(arguments: argparse.Namespace) -> Files | None:
    from xds_server.serving.tls import Files

    certificate, key, ca = arguments.certificate, arguments.private_key, arguments.ca
    if (certificate is None) != (key is None):
        raise WrongUsage("--certificate and --private-key need each other")
    if certificate is None or key is None:
        if ca is not None or arguments.identity:
            raise WrongUsage("--ca and --identity need --certificate")
        return None
    if arguments.identity and ca is None:
        raise WrongUsage("--identity needs --ca")
    return Files(certificate=certificate, private_key=key, client_ca=ca)


def _loop(main) -> None:  # type: ignore[no-untyped-def] # a coroutine
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _socket(flag: str, text: str | None) -> str | None:
    """Return the address of a Unix socket. At a port, whoever reaches it would call upstreams without any policy."""
    if text is not None and not text.startswith("unix:/"):
        raise WrongUsage(f"{flag}: only a Unix socket keeps others away from upstreams; write unix:/PATH")
    return text


def _endpoint(flag: str, text: str | None) -> str | None:
    if text is None:
        return None
    from filters.language import Mistake
    from xds_server.gateway.model.upstreams import parse_address

    try:
        parse_address(text)
    except Mistake as mistake:
        raise WrongUsage(f"{flag}: {mistake.message}; {mistake.remedy}") from None
    return text
