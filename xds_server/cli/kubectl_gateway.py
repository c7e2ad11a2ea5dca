"""kubectl gateway: a plugin of kubectl that shows Gateways, which route takes a request, and why a route has no effect.

kubectl runs a program named `kubectl-gateway` of the path for it.
https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from xds_server.cli import main as xds
from xds_server.cli.gateways import CLUSTER
from xds_server.errors import XdsError

_COMMANDS = {
    "status": "show the Gateways of the cluster, and every condition that is not as it should be",
    "explain": "show which route takes a request: METHOD URL, and the flags of xds explain",
    "why": "show what a route does, and why a part has no effect: KIND/NAMESPACE/NAME",
    "check": "report all errors and warnings of the objects of a Gateway: the flags of xds check",
}
_SHOWN = (
    "Gateway",
    "ListenerSet",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "BackendTLSPolicy",
)
_OWN = ("GatewayPolicy", "Consumer", "Plan", "IdentityProvider", "MeshPolicy")
_FALSE = ("Conflicted", "OverlappingTLSConfig", "PartiallyInvalid", "InsecureFrontendValidationMode")
"""Conditions that are as they should be if they are false."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plugin. Exit codes as those of xds."""
    parser = argparse.ArgumentParser(prog="kubectl gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=name == "status")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "status":
        if rest:
            parser.error(f"status takes no arguments: {' '.join(rest)}")
        return _status(arguments.context or None)
    return xds.main([arguments.command, f"{CLUSTER}{arguments.context}", *rest])


def _status(context: str | None) -> int:
    from xds_server.controller.live import live_objects

    try:
        found = asyncio.run(live_objects(context, (*_SHOWN, *_OWN)))
    except XdsError as error:
        print(f"kubectl gateway: {error}", file=sys.stderr)
        return error.exit_code
    for one in found.get("Gateway", ()):
        print(_gateway(one))
    wrong = [line for kind, objects in found.items() for one in objects for line in _wrong(kind, one)]
    print("\n".join(wrong) if wrong else "every condition is as it should be")
    return 1 if wrong else 0


def _gateway(one: dict[str, Any]) -> str:
    status = one.get("status") or {}
    addresses = ", ".join(address["value"] for address in status.get("addresses") or ()) or "no address"
    programmed = _conditions(status).get("Programmed", {}).get("status", "Unknown")
    listeners = ", ".join(
        f"{listener['name']}: {listener.get('attachedRoutes', 0)}"
        for listener in status.get("listeners") or ()
    )
    name = f"Gateway {_name(one)} ({one['spec']['gatewayClassName']})"
    return f"{name}: Programmed is {programmed}; {addresses}; routes of the listeners: {listeners or 'none'}"


def _wrong(kind: str, one: dict[str, Any]) -> Iterator[str]:
    status = one.get("status") or {}
    places = [("", status)]
    places += [(f" listener {each['name']}", each) for each in status.get("listeners") or ()]
    parents = [(each["parentRef"], each) for each in status.get("parents") or ()]
    ancestors = [(each["ancestorRef"], each) for each in status.get("ancestors") or ()]
    places += [(f" at {_reference(where)}", each) for where, each in (*parents, *ancestors)]
    if not any(each.get("conditions") for _, each in places):
        yield f"{kind} {_name(one)}: no controller has written a status"
    for where, each in places:
        for type_, condition in _conditions(each).items():
            expected = "False" if type_ in _FALSE else "True"
            if condition["status"] != expected:
                reason, message = condition["reason"], condition.get("message", "")
                yield f"{kind} {_name(one)}{where}: {type_} is {condition['status']}: {reason}: {message}"


def _conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["type"]: one for one in status.get("conditions") or ()}


def _name(one: dict[str, Any]) -> str:
    return f"{one['metadata']['namespace']}/{one['metadata']['name']}"


def _reference(one: dict[str, Any]) -> str:
    return "/".join(filter(None, (one.get("namespace"), one["name"], one.get("sectionName"))))


if __name__ == "__main__":
    sys.exit(main())
