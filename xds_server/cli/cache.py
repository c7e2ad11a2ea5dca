"""xds cache: purges stored responses, by a policy server's admin address."""

from __future__ import annotations

import argparse
import http.client
import json
from urllib.parse import urlsplit

from xds_server.cli import flags, output, policy_servers
from xds_server.errors import EnvironmentFailed, WrongUsage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("action", choices=("purge",), help="purge: forget stored responses")
    parser.add_argument(
        "url", nargs="?", help="the URL to purge, such as https://api.example.com/users/1?full=1"
    )
    parser.add_argument(
        "--prefix",
        metavar="URL",
        help="purge every URL that begins so, such as https://api.example.com/users/",
    )
    parser.add_argument(
        "--tag", metavar="TAG", help="purge the responses that had this tag in their cache-tag header"
    )
    parser.add_argument("--all", action="store_true", help="purge everything")
    parser.add_argument("--admin", default=flags.ADMIN, metavar="ADDRESS", help=policy_servers.ADMIN_HELP)
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Purge responses. All workers of the Envoys follow within a second. Raises EnvironmentFailed, WrongUsage."""
    kind, value = _what(arguments)
    body = json.dumps({"kind": kind, "value": value})
    admin, status, done = policy_servers.found(arguments.admin, "POST", "/cache/purge", body)
    if status != http.client.OK:
        raise EnvironmentFailed(f"the policy server at {admin} did not purge: {done.get('error', status)}")
    if arguments.output != "text":
        output.data(done, arguments.output)
    else:
        print(
            output.counted(done["purged"], "response")
            + " purged in the policy server; Envoys follow within a second"
        )
    return 0


def _what(arguments: argparse.Namespace) -> tuple[str, str]:
    chosen = [
        ("url", arguments.url and _without_scheme(arguments.url)),
        ("prefix", arguments.prefix and _without_scheme(arguments.prefix)),
        ("tag", arguments.tag),
        ("all", "all" if arguments.all else None),
    ]
    given = [(kind, value) for kind, value in chosen if value]
    if len(given) != 1:
        raise WrongUsage("name exactly one of URL, --prefix, --tag and --all")
    kind, value = given[0]
    return kind, "" if kind == "all" else str(value)


def _without_scheme(url: str) -> str:
    """Host, path and query, as the cache knows a response. Raises WrongUsage."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise WrongUsage(f"'{url}' is no URL; write https://api.example.com/users/1")
    query = f"?{parts.query}" if parts.query else ""
    host = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme.lower(), ""))
    return f"{host.removesuffix('.').replace('.:', ':')}{parts.path or '/'}{query}"
