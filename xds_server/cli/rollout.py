"""xds rollout: shows, promotes, aborts, pauses or resumes the rollout of a new version."""

from __future__ import annotations

import argparse
import http.client
from typing import Any

from xds_server.cli import admin_address, flags, output
from xds_server.errors import WrongUsage

_ACTIONS = {
    "status": "show the step, its Envoys, and the health",
    "promote": "serve the new version, or the withdrawn one, to all Envoys",
    "abort": "withdraw the new version",
    "pause": "stay at the step; conditions still withdraw the version",
    "resume": "go on",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "action",
        choices=tuple(_ACTIONS),
        nargs="?",
        default="status",
        help="; ".join(f"{name}: {text}" for name, text in _ACTIONS.items()),
    )
    parser.add_argument("--admin", default=flags.ADMIN, metavar="ADDRESS", help=admin_address.HELP)
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the rollout after the action. Returns 1 if a version is withdrawn. Raises EnvironmentFailed, WrongUsage."""
    show = arguments.action == "status"
    path = "/rollout" if show else f"/rollout/{arguments.action}"
    status, found = admin_address.call(arguments.admin, "GET" if show else "POST", path)
    if status != http.client.OK:
        raise WrongUsage(str(found.get("error", f"the control plane answers {status}")))
    if arguments.output != "text":
        output.data(found, arguments.output)
    else:
        print("\n".join(lines(found)))
    return 1 if found["withdrawn"] else 0


def short(state: dict[str, Any]) -> str:
    """Return a line about the state of a rollout, empty if there is nothing to say."""
    if state["candidate"]:
        named = _named(state["candidate"], state["commit"])
        holds = f"; HOLDS: {state['waiting']}" if state["waiting"] else ""
        return f"rollout of version {named} at step {state['step'] + 1}{holds}"
    if withdrawn := state["withdrawn"]:
        named = _named(withdrawn["version"], withdrawn["commit"])
        return f"WITHDRAWN and not served: version {named}: {withdrawn['reason']}"
    return f"rollout HOLDS: {state['waiting']}" if state["waiting"] else ""


def lines(found: dict[str, Any]) -> list[str]:
    """Return the state of a rollout in words."""
    return [*_of_version(found), *_of_replicas(found)]


def _of_replicas(found: dict[str, Any]) -> list[str]:
    """Say which control planes decide together."""
    if not found["store"]:
        return [
            "  this control plane decides alone, for the Envoys that are connected to it (no --rollout-store)"
        ]
    result = [f"  shared through {found['store']}"]
    for name, one in sorted(found["replicas"].items()):
        served = one["candidate"] and f", and {one['candidate']} in the rollout"
        envoys = output.counted(one["envoys"], "Envoy")
        result.append(f"    {name}: {envoys}, serves {one['stable'] or 'nothing'}{served}")
    if found["problem"] and not found["candidate"]:
        result.append(f"  HOLDS: {found['problem']}")
    return result


def _of_version(found: dict[str, Any]) -> list[str]:
    if found["candidate"]:
        return _of_candidate(found)
    result = [f"all Envoys are served version {found['stable'] or 'none'}; there is no rollout"]
    if withdrawn := found["withdrawn"]:
        result.append(f"WITHDRAWN: version {_named(withdrawn['version'], withdrawn['commit'])}")
        result.append(f"  {withdrawn['reason']}")
    return result


def _of_candidate(found: dict[str, Any]) -> list[str]:
    health = found["health"]
    state = "paused at" if found["paused"] else "at"
    named = _named(found["candidate"], found["commit"])
    envoys = f"{len(found['chosen'])} of {output.counted(found['envoys'], 'Envoy')}"
    result = [
        f"rollout of version {named} {state} step {found['step'] + 1} of {len(found['steps'])}: {envoys}",
        f"  the others are served version {found['stable']}",
        f"  failed requests: {_counts(health['candidate'])}; before {_counts(health['before'])}",
        f"  rejections: {found['rejections']}",
    ]
    return [*result, f"  HOLDS: {found['waiting']}"] if found["waiting"] else result


def _named(version: str, commit: str) -> str:
    return f"{version} (commit {commit[:12]})" if commit else version


def _counts(counts: dict[str, int]) -> str:
    return f"{counts['errors']} of {counts['requests']}"
