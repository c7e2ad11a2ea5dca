"""xds limits: shows and resets the counters of limits, by a policy server's admin address."""

from __future__ import annotations

import argparse
import http.client
import time
from typing import Any

from xds_server.cli import flags, output, policy_servers
from xds_server.errors import EnvironmentFailed, WrongUsage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "prefix", nargs="?", default="", help="beginning of the keys of counters; default: all counters"
    )
    parser.add_argument(
        "--admin",
        default=flags.ADMIN,
        metavar="ADDRESS",
        help=policy_servers.ADMIN_HELP,
    )
    parser.add_argument("--reset", action="store_true", help="reset these counters to zero, also in Redis")
    parser.add_argument(
        "--all", action="store_true", help="with --reset and without a prefix: reset every counter"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show or reset counters. Raises EnvironmentFailed, WrongUsage."""
    if arguments.reset and not arguments.prefix and not arguments.all:
        raise WrongUsage("--reset: name the beginning of the keys, such as 'plan/free|', or add --all")
    admin, status, shown = policy_servers.found(arguments.admin, "GET", "/limits")
    if status != http.client.OK:
        raise EnvironmentFailed(
            f"the policy server at {admin} cannot show its counters: {shown.get('error', status)}"
        )
    if arguments.reset:
        _reset(admin, arguments)
    else:
        _show(shown, arguments)
    return 0


def _reset(admin: str, arguments: argparse.Namespace) -> None:
    status, done = policy_servers.call(admin, "POST", "/limits/reset", arguments.prefix)
    if status != http.client.OK:
        raise EnvironmentFailed(
            f"the policy server at {admin} did not reset them: {done.get('error', status)}"
        )
    if arguments.output != "text":
        output.data(done, arguments.output)
    else:
        print(output.counted(done["reset"], "counter") + " reset")


def _show(shown: dict[str, Any], arguments: argparse.Namespace) -> None:
    if "counters" in shown:
        found = [counter for counter in shown["counters"] if counter["key"].startswith(arguments.prefix)]
        shown = {**shown, "counters": found}
    if arguments.output != "text":
        output.data(shown, arguments.output)
    elif "counters" not in shown:
        print(f"the counters are in {shown['store']}, and this command cannot list them; --reset resets them")
    else:
        _print(shown["counters"])
        if shown["uncounted"]:
            print(f"memory was full: {output.counted(shown['uncounted'], 'request')} not counted")


def _print(counters: list[dict[str, Any]]) -> None:
    print(output.counted(len(counters), "counter") + " in memory")
    width = max((len(counter["key"]) for counter in counters), default=0)
    for counter in counters:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(counter["reset"]))
        figures = f"{counter['used']} of {counter['amount']} used, {counter['remaining']} left, until {until}"
        print(f"{counter['key']:<{width}}  {counter['limit']}: {figures}")
