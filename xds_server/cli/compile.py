"""xds compile: the Envoy resources of a gateway, or a static file that Envoy runs without a control plane."""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filters.language import Problem
from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiled, Compiler
from xds_server.discovery.snapshot import Snapshot
from xds_server.discovery.types import ResourceType
from xds_server.errors import WrongUsage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser, live=True)
    parser.add_argument(
        "--type",
        action="append",
        metavar="TYPE",
        help="print only resources of this type, such as cluster; may be repeated",
    )
    parser.add_argument(
        "--format",
        choices=("resources", "bootstrap"),
        default="resources",
        help="resources: by their type; bootstrap: one file that Envoy runs without a control plane",
    )
    flags.add_output(parser, forms=("json", "yaml"), default="json")


def run(arguments: argparse.Namespace) -> int:
    """Print the resources. Raises InvalidGateway, UnreadableFolder, WrongUsage."""
    gc.disable()  # the command ends soon, and the resources of a large gateway are many objects
    compiled = Compiler().compile(gateways.read(arguments.folder, arguments.gateway))
    warnings = compiled.warnings
    if arguments.format == "bootstrap":
        warnings = (*warnings, *_without_control_plane(compiled))
    if warnings:
        output.problems(warnings)
    if arguments.format == "bootstrap":
        value = _bootstrap(compiled, Path(arguments.folder))
    else:
        value = _resources(compiled.snapshot, arguments.type)
    _print(value, arguments.output)
    return 0


def _resources(snapshot: Snapshot, wanted: list[str] | None) -> dict[str, Any]:
    from xds_server.translate.readable import readable

    known = {type_.name: type_ for type_ in snapshot}
    names = wanted or list(known)
    for name in names:
        if name not in known:
            raise WrongUsage(f"there is no type '{name}'; known: {', '.join(known)}")
    types: list[ResourceType] = [known[name] for name in names]
    return {
        type_.name: {name: readable(type_, one) for name, one in snapshot[type_].items()} for type_ in types
    }


def _without_control_plane(compiled: Compiled) -> Iterator[Problem]:
    """Yield a warning for each of our own services that answers requests by rules, which only a control plane sends."""
    from xds_server.translate.composer_entry import COMPOSITION
    from xds_server.translate.translator import RULE_TYPES

    remedy = "serve the gateway with xds run instead"
    for name, route in compiled.gateway.sections.routes.items():
        if route.composed is not None:
            path = ("routes", name, "graphql" if route.aggregate is None else "aggregate")
            yield Problem(
                path=path,
                message="the composer answers this route, and a control plane has to tell it how",
                remedy=remedy,
                severity="warning",
                place=compiled.gateway.place(path),
            )
    types = (type_ for name, type_ in RULE_TYPES.items() if name != COMPOSITION.name)
    if any(compiled.snapshot[type_] for type_ in types):
        yield Problem(
            path=("policies",),
            message="the policy server decides about requests, and a control plane has to tell it how",
            remedy=remedy,
            severity="warning",
        )


def _bootstrap(compiled: Compiled, folder: Path) -> Any:
    """Return a static bootstrap. It refers to private keys and does not copy them: Envoy reads their source."""
    from envoy.config.core.v3 import base_pb2

    from xds_server.translate.readable import plain
    from xds_server.translate.static import bootstrap

    keys = {}
    for name, secret in compiled.gateway.sections.secrets.items():
        source = secret.private_key
        if source.file is not None:
            keys[name] = base_pb2.DataSource(filename=str((folder / source.file).resolve()))
        else:
            keys[name] = base_pb2.DataSource(environment_variable=source.env or "")
    return plain(bootstrap(compiled.snapshot, keys))


def _print(value: Any, form: str) -> None:
    if form == "json":
        print(_indented(value))
        return
    output.data(value, form)


_encode = json.JSONEncoder(ensure_ascii=False).encode


def _indented(value: Any, levels: int = 6, indent: str = "") -> str:
    """Return JSON with one line for each of the outer values. A route is deep inside and has one line."""
    if not levels or not value or not isinstance(value, dict | list):
        return _encode(value)
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{inner}{_encode(key)}: {_indented(one, levels - 1, inner)}" for key, one in value.items()]
    else:
        items = [inner + _indented(one, levels - 1, inner) for one in value]
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n" + ",\n".join(items) + f"\n{indent}{end}"
