"""xds why: what a route of Kubernetes does at each of its Gateways, and why a part of it has no effect.

Gateways of other controllers are shown as ours would serve them.
"""

from __future__ import annotations

import argparse
import dataclasses

from filters.language.problems import did_you_mean
from xds_server.cli import flags, gateways, output
from xds_server.errors import WrongUsage
from xds_server.gateway_api.effects import Effects, effects, known
from xds_server.gateway_api.mesh import with_mesh
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.translation import translate


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "folder", help="folder of Kubernetes manifests, also in git; k8s: or k8s:CONTEXT for a cluster"
    )
    parser.add_argument(
        "route", type=_route, metavar="KIND/NAMESPACE/NAME", help="a route, such as HTTPRoute/shop/users"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what the route does. Returns 1 if a part has no effect. Raises ApiError, UnreadableFolder, WrongUsage."""
    cluster = gateways.read_cluster(arguments.folder)
    translation = with_mesh(translate(cluster, of_every_class=True), cluster)
    kind, key = arguments.route
    found = effects(kind, key, translation, cluster)
    if found is None:
        hint = did_you_mean("/".join((kind, *key)), list(known(cluster)))
        raise WrongUsage(f"there is no {kind} {'/'.join(key)}{f'; {hint}' if hint else ''}")
    if arguments.output != "text":
        output.data(dataclasses.asdict(found), arguments.output)
    else:
        _print(found)
    return 0 if found.complete else 1


def _route(text: str) -> tuple[str, Key]:
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not KIND/NAMESPACE/NAME, such as HTTPRoute/shop/users")
    return parts[0], (parts[1], parts[2])


def _print(found: Effects) -> None:
    print(found.route)
    if not found.parents:
        print("  no Gateway or Service that exists is among its parentRefs")
    for parent in found.parents:
        print(f"  {parent.name}")
        for one in parent.conditions:
            print(f"    {one.type} is {one.status}{f': {one.reason}: {one.message}' if one.message else ''}")
    for match in found.matches:
        mark, why = (
            ("-", f"taken by the older {match.taken_by}") if match.taken_by else (">", "takes requests")
        )
        where = f"{match.gateway} {match.listener} {match.host or 'every host'}"
        print(f"  {mark} {where}: {match.condition}: {why}")
    for backend in found.backends:
        print(f"  Service {backend.service} port {backend.port}: {_endpoints(backend.endpoints)}")


def _endpoints(count: int | None) -> str:
    if count is None:
        return "no EndpointSlices"
    return output.counted(count, "endpoint") if count else "no endpoints, so requests get 503"
