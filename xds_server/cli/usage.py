"""xds usage: reports what the usage server has counted, from its database."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from xds_server.cli import flags, output
from xds_server.errors import EnvironmentFailed, WrongUsage

GROUPS = ("consumer", "plan", "route", "status", "hour", "day")
FORMS = ("table", "csv", "json", "yaml", "cloudevents")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add = parser.add_argument
    flags.add_usage_store(parser, "--store")
    for name, what in (("consumer", "a consumer"), ("plan", "a plan"), ("route", "a route")):
        add(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"only requests of {what}; - for those without; may be repeated",
        )
    add(
        "--since",
        metavar="TIME",
        default="30d",
        help="begin: a time before now such as 36h or 30d, or a date such as 2026-11-01 or 2026-11-01T08:00Z; "
        "the begin of its hour counts",
    )
    add("--until", metavar="TIME", help="end, in the same forms; default: now, with the present hour")
    add(
        "--by",
        metavar="GROUPS",
        default="consumer",
        help=f"groups of the report, separated by commas: {', '.join(GROUPS)}; none: one sum of all",
    )
    flags.add_output(parser, forms=FORMS, default="table")
    add(
        "--source",
        metavar="URI",
        default="/xds/usage",
        help="source of the CloudEvents, which names this installation",
    )


def run(arguments: argparse.Namespace) -> int:
    """Report usage. Raises EnvironmentFailed, WrongUsage."""
    from xds_server.database import DatabaseFailed
    from xds_server.usage import latency
    from xds_server.usage.store import SUMS, Question, Store

    now = time.time()
    since, until = _hour("--since", arguments.since, now), int(now // 3600) + 1
    if arguments.until is not None:
        until = _hour("--until", arguments.until, now)
    if since >= until:
        raise WrongUsage("--since must be before --until, by at least an hour")
    by = _groups(arguments.by)
    only = {name: values for name in ("consumer", "plan", "route") if (values := getattr(arguments, name))}
    quantiles = arguments.output != "cloudevents"  # receivers add up events, and quantiles do not add up
    question = Question(since=since, until=until, by=by, only=only, latency=quantiles)
    try:
        rows = Store(arguments.store, reads=True).report(question)
    except DatabaseFailed as failure:
        raise EnvironmentFailed(f"the usage store cannot be read: {failure}") from None
    if quantiles:
        rows = [latency.summarized(row) for row in rows]
    _print(rows, (*by, *SUMS, *latency.QUANTILES), arguments, since, until)
    return 0


def _print(
    rows: list[dict[str, Any]],
    columns: tuple[str, ...],
    arguments: argparse.Namespace,
    since: int,
    until: int,
) -> None:
    from xds_server.usage import report

    if arguments.output == "csv":
        sys.stdout.write(report.comma_separated(rows, columns))
    elif arguments.output == "table":
        print(report.table(rows, columns))
    elif arguments.output == "cloudevents":
        output.data(report.cloud_events(rows, arguments.source, since, until), "json")
    else:
        output.data(report.readable(rows), arguments.output)


def _groups(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in GROUPS:
            raise WrongUsage(f"--by: '{name}' is no group; write some of {', '.join(GROUPS)}, or none")
    if len(set(names)) < len(names) or {"hour", "day"} <= set(names):
        raise WrongUsage("--by: name each group once, and either hour or day")
    return names


def _hour(flag: str, text: str, now: float) -> int:
    """Return the hour of a time, in hours since 1970."""
    from datetime import UTC, datetime

    from filters.language import scalars

    try:
        if text[:1].isdigit() and text[-1:].isalpha() and text[-1] != "Z":
            return int((now - scalars.duration(text).total_seconds()) // 3600)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(
            f"{flag}: '{text}' is no time; write one before now such as 36h or 30d, or a date such as 2026-11-01"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // 3600)
