"""xds cache: purges stored responses, by the admin addresses of policy servers."""

from __future__ import annotations

import argparse
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
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
    parser.add_argument(
        "--admin",
        action="append",
        metavar="ADDRESS",
        help=f"{policy_servers.ADMIN_HELP}; repeatable, and a name that has several IPv4 addresses stands for "
        f"all of them (default: {flags.ADMIN})",
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Purge responses. All workers of the Envoys follow within a second. Raises EnvironmentFailed, WrongUsage."""
    kind, value = _what(arguments)
    body = json.dumps({"kind": kind, "value": value})
    written = arguments.admin or [flags.ADMIN]
    admins = tuple(dict.fromkeys(address for one in written for address in policy_servers.each(one)))
    # All at once, so that one that does not answer does not hold the others up.
    with ThreadPoolExecutor(len(admins)) as pool:
        done = list(pool.map(lambda admin: _purge(admin, body), admins))
    failed = [one for one in done if isinstance(one, str)]
    if failed:
        others = len(done) - len(failed)
        told = f"; {output.counted(others, 'other')} purged" if others else ""
        raise EnvironmentFailed("\n".join(failed) + told)
    purged = sum(one for one in done if isinstance(one, int))
    if arguments.output != "text":
        output.data({"purged": purged, "policy_servers": len(done)}, arguments.output)
    else:
        where = "the policy server" if len(done) == 1 else f"{len(done)} policy servers"
        print(f"{output.counted(purged, 'response')} purged in {where}; Envoys follow within a second")
    return 0


def _purge(admin: str, body: str) -> int | str:
    """Return the number of purged responses, or the reason why this policy server did not purge. Raises WrongUsage."""
    try:
        found, status, done = policy_servers.found(admin, "POST", "/cache/purge", body)
    except EnvironmentFailed as error:
        return str(error)
    if status != http.client.OK:
        return f"the policy server at {found} did not purge: {done.get('error', status)}"
    return int(done["purged"])


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
