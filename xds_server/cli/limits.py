"""xds limits: the counters of limits, shown and reset through a policy server's admin address."""

from __future__ import annotations

import argparse
import http.client
import json
import time
from typing import Any

from xds_server.admin import ask
from xds_server.cli import flags, output
from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.processes.addresses import split

NOT_FOUND = 404


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument(
        "prefix", nargs="?", default="", help="beginning of the keys of counters; default: all counters"
    )
    parser.add_argument(
        "--admin",
        default=flags.ADMIN,
        metavar="ADDRESS",
        help="admin address of a policy server, or of `xds run` if that has started one: "
        "HOST:PORT or unix:/PATH",
    )
    parser.add_argument("--reset", action="store_true", help="reset these counters to zero, also in Redis")
    parser.add_argument(
        "--all", action="store_true", help="with --reset and without a prefix: reset every counter"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show or reset counters. Raises EnvironmentFailed, WrongUsage."""
    if arguments.reset and not arguments.prefix and not arguments.all:
        raise WrongUsage("--reset: name the beginning of the keys, such as 'plan/free|', or say --all")
    admin = arguments.admin
    status, shown = _ask(admin, "GET", "/limits")
    if status == NOT_FOUND:
        admin = _beside(admin)
        status, shown = _ask(admin, "GET", "/limits")
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
    status, done = _ask(admin, "POST", "/limits/reset", arguments.prefix)
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
        found = [one for one in shown["counters"] if one["key"].startswith(arguments.prefix)]
        shown = {**shown, "counters": found}
    if arguments.output != "text":
        output.data(shown, arguments.output)
    elif "counters" not in shown:
        print(f"counters are in {shown['store']}, which is not listed from here; --reset works on them")
    else:
        _print(shown["counters"])
        if shown["uncounted"]:
            print(f"memory was full for {output.counted(shown['uncounted'], 'request')}, which did not count")


def _print(counters: list[dict[str, Any]]) -> None:
    print(output.counted(len(counters), "counter") + " in memory")
    width = max((len(one["key"]) for one in counters), default=0)
    for one in counters:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["reset"]))
        figures = f"{one['used']} of {one['amount']} used, {one['remaining']} left, until {until}"
        print(f"{one['key']:<{width}}  {one['limit']}: {figures}")


def _beside(admin: str) -> str:
    """The policy server beside the `xds run` at this address."""
    status, told = _ask(admin, "GET", "/status")
    found = told.get("policy_server", {}).get("admin") if status == http.client.OK else None
    if not found:
        raise EnvironmentFailed(f"no policy server runs beside {admin}; see --admin")
    return str(found)


def _ask(admin: str, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    """Status and JSON of an answer. Raises EnvironmentFailed."""
    try:
        answer = ask(split("--admin", admin), method, path, body)
        return answer.status, json.loads(answer.body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EnvironmentFailed(f"no policy server answers at {admin}: {error}; see --admin") from None
