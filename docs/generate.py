"""The pages of docs/reference that are made from the code: `make docs` writes them, and a test compares them.

Each page comes from what the program itself uses: the command's parsers, the metrics' registries, the reasons, the fields
of the access log and the fields of the language.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from filters import composer_reasons
from filters.log_fields import FIELDS
from filters.pipeline import POLICIES
from filters.reasons import BY_STATUS, OTHER, REASONS, Reason
from xds_server.cli.flags import default
from xds_server.cli.main import COMMANDS, parser
from xds_server.composer.metrics import ComposerMetrics
from xds_server.control_plane.control_loop import GatewayState
from xds_server.control_plane.fleet import Fleet
from xds_server.control_plane.metrics import GatewayMetrics
from xds_server.control_plane.preview_metrics import PreviewMetrics
from xds_server.control_plane.rollout_metrics import RolloutMetrics
from xds_server.control_plane.rollout_steps import Plan, State
from xds_server.gateway.reference import reference
from xds_server.gateway.schema import schema
from xds_server.gateway_api import kinds_document
from xds_server.policy_server.services import services
from xds_server.serving.metrics import Metrics
from xds_server.serving.store import Store
from xds_server.sources.source import Version
from xds_server.testing import documents
from xds_server.usage.metrics import UsageMetrics

FOLDER = Path(__file__).parent / "reference"


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


def cli() -> str:
    """Every command with its arguments."""
    parts = [
        "# The command `xds`\n",
        "Made by `make docs` from the command's own parsers. `xds COMMAND --help` prints the same.\n",
        "| exit code | meaning |\n|---|---|",
        "| 0 | success |",
        "| 1 | the input has mistakes, or the answer is no: no route matches, an Envoy rejected what it was sent, a test failed |",
        "| 2 | the arguments are wrong |",
        "| 3 | the environment failed: an address is taken, no server answers, no Envoy is installed |\n",
        "| command | |\n|---|---|",
        *(f"| [`xds {name}`](#xds-{name}) | {_sentence(text)} |" for name, text in COMMANDS.items()),
    ]
    for name, text in COMMANDS.items():
        parts += ["", f"## xds {name}", "", _sentence(text), "", *_command(name, _parser(name))]
    return _page(parts)


def _command(name: str, of: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines of one command, and of those that it has."""
    nested = next((one for one in of._actions if isinstance(one, argparse._SubParsersAction)), None)
    if nested is not None:
        summaries = {one.dest: one.help or "" for one in nested._choices_actions}
        for word, one in nested.choices.items():
            yield from (f"### xds {name} {word}", "", _sentence(summaries[word]), "")
            yield from _command(f"{name} {word}", one)
        return
    actions = [one for one in of._actions if one.help not in (argparse.SUPPRESS, None)]
    arguments = [one for one in actions if not isinstance(one, argparse._HelpAction)]
    yield "```\n" + " ".join(["xds", name, *map(_short, arguments)]) + "\n```\n"
    if arguments:
        yield "| argument | default | |\n|---|---|---|"
        yield from (
            f"| {_spelling(one)} | {_code(default(one))} | {_cell(_help(one))} |" for one in arguments
        )
        if " " in name:
            yield ""


def _parser(name: str) -> argparse.ArgumentParser:
    commands = next(one for one in parser(name)._actions if isinstance(one, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found


def _short(action: argparse.Action) -> str:
    """How the synopsis shows an argument."""
    if action.option_strings:
        return f"[{' | '.join(_flags(action))}]"
    return (
        f"[{action.dest} ...]" if action.nargs == "*" else f"[{action.dest}]" if action.nargs else action.dest
    )


def _flags(action: argparse.Action) -> Iterator[str]:
    for flag in action.option_strings:
        value = _value(action)
        yield f"{flag} {value}" if value else flag


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return str(action.metavar or action.dest.upper())


def _spelling(action: argparse.Action) -> str:
    found = _flags(action) if action.option_strings else [action.dest]
    return "<br>".join(f"`{_cell(one)}`" for one in found)


def _help(action: argparse.Action) -> str:
    return _sentence(action.help or "")


def metrics() -> str:
    """Every metric of Prometheus, of the control plane, of policy servers, usage servers and composers."""
    control_plane, policy_server, usage_server, composer = (_Collectors() for _ in range(4))
    Metrics(Store(), control_plane)
    fleet, version = Fleet(lambda _group, _type, _name: None), Version(id="", author="", subject="", time=0.0)
    GatewayMetrics(GatewayState(""), fleet, lambda _release, _node: None, control_plane, lambda: version)
    PreviewMetrics(tuple, control_plane)
    RolloutMetrics(State, Plan, {"completed": 0, "withdrawn": 0}, str, control_plane)
    UsageMetrics(usage_server)
    ComposerMetrics(composer)
    asyncio.run(_register(policy_server))
    return _page(
        [
            "# Metrics\n",
            (
                "Made by `make docs` from the metrics that the processes register. All kinds of processes show them in the text "
                "format of Prometheus at `/metrics` of their `--admin` address. `/metrics/all` of `xds run` is one page with the metrics of the "
                "control plane, and of the policy server, the usage server, the composer and the Envoy that it has started. [Telemetry](telemetry.md#metrics) lists "
                "the metrics of routes and consumers, which Envoy counts.\n"
            ),
            (
                "A counter's name ends in `_total`. A histogram `NAME` has the series `NAME_bucket` (with the label `le`), "
                "`NAME_sum` and `NAME_count`.\n"
            ),
            "## Control plane (`xds run`)\n",
            *_metrics(control_plane.found),
            (
                "\n`type` is a type of resource, such as `cluster`, or `unknown` for types that only a client asked for. `group` is "
                "empty for the fleet of Envoys, `proving` for the Envoy that proves changes, `policy-servers` and `composers`. `protocol` is "
                "`sotw` or `delta`."
            ),
            "\n## Policy server (`xds policy-server`)\n",
            *_metrics(policy_server.found),
            (
                "\nWith several workers, each figure is their sum. `xds_rate_limit_store_failures_total` exists if counters are in a "
                "Redis or in the process that keeps them for several workers."
            ),
            "\n## Usage server (`xds usage-server`)\n",
            *_metrics(usage_server.found),
            "\n## Composer (`xds composer`)\n",
            *_metrics(composer.found),
        ]
    )


async def _register(registry: CollectorRegistry) -> None:
    """Make the services as a policy server with a Redis does, in an event loop; none of them connects yet."""
    for make in services("redis://127.0.0.1:1", responses="redis://127.0.0.1:1"):
        make(registry)


class _Collectors(CollectorRegistry):
    """A registry that keeps what is registered, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def register(self, collector: Any) -> None:
        self.found.append(collector)
        super().register(collector)


def _metrics(collectors: Iterable[Any]) -> Iterator[str]:
    yield "| metric | type | labels | |\n|---|---|---|---|"
    for one in collectors:
        for family in one.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            known = one._labelnames if hasattr(one, "_labelnames") else family._labelnames
            labels = ", ".join(f"`{label}`" for label in known)
            yield f"| `{name}` | {family.type} | {labels} | {_cell(family.documentation)} |"


def reasons() -> str:
    """Every reason for which the gateway itself responds."""
    rows: dict[str, dict[str, list[str]]] = {}

    def row(reason: Reason, who: str, policy: str = "") -> None:
        cells = rows.setdefault(
            reason.name, {key: [] for key in ("status", "title", "detail", "policy", "who")}
        )
        values = {
            "status": str(reason.status or "as it was"),
            "title": reason.title,
            "detail": reason.detail or "",
            "policy": f"`{policy}`" if policy else "",
            "who": who,
        }
        for key, value in values.items():
            if value and value not in cells[key]:
                cells[key].append(value)

    for policy in POLICIES:
        for reason in policy.reasons:
            row(reason, policy.enforced_by, policy.key)
    for reason in REASONS:
        row(reason, "Envoy")
    for reason in composer_reasons.REASONS:
        row(reason, "the composer")
    for status, name, title in BY_STATUS:
        if name not in rows:
            row(Reason(name=name, title=title, status=status, when=""), "Envoy, if only the status is known")
    row(Reason(name=OTHER[0], title=OTHER[1], when=""), "Envoy, if nothing else is known")
    return _page(
        [
            "# Reasons\n",
            (
                "Made by `make docs` from the reasons that the code declares. The header `x-gateway-reason`, the body of the error and the "
                "[access log](access-log.md) contain the reason. [Errors](errors.md) shows the body and how `errors:` changes it. A status "
                '"as it was" is the one that Envoy, the policy or the authorization service chose.\n'
            ),
            "| reason | status | title | detail | policy | who responds |\n|---|---|---|---|---|---|",
            *(
                f"| `{name}` | " + " | ".join(_cell("; ".join(cell)) for cell in cells.values()) + " |"
                for name, cells in sorted(rows.items())
            ),
        ]
    )


def access_log() -> str:
    """Every field of the access log."""
    return _page(
        [
            "# Access log\n",
            (
                "Made by `make docs` from the fields that the code declares. [Telemetry](telemetry.md) says where logs go and which requests "
                "they have. A log has the fields marked with *, unless its `fields` names others. The fields marked with s also "
                "exist for the connections of [stream routes](stream-routes.md). In JSON, a field without a value is left "
                "out, and the order of the fields is not fixed. Values that a client chose are cut off after the number of characters that "
                "the operator ends with.\n"
            ),
            "| field | | | | Envoy's command operator |\n|---|---|---|---|---|",
            *(
                f"| `{one.name}` | {'*' if one.default else ''} | {'s' if one.streams else ''} | {_cell(one.meaning)} "
                f"| `{one.operator}` |"
                for one in FIELDS
            ),
        ]
    )


def _schema() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _tests_schema() -> str:
    return json.dumps(documents.schema(), indent=2, ensure_ascii=False) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    """Text in a cell of a table, in which a bar would end the cell."""
    return text.replace("|", "\\|")


def _page(parts: Iterable[str]) -> str:
    return "\n".join(parts).rstrip() + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "../../examples/kubernetes/crds.yaml": kinds_document.document,
    "access-log.md": access_log,
    "cli.md": cli,
    "language.md": reference,
    "metrics.md": metrics,
    "reasons.md": reasons,
    "schema.json": _schema,
    "tests.md": documents.reference,
    "tests-schema.json": _tests_schema,
}
"""The pages by their paths from docs/reference."""

if __name__ == "__main__":
    main()
