"""xds status: every connected Envoy, and the responses that it acknowledged or rejected."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

from filters.policy_server import NODE_CLUSTER
from xds_server.cli import flags, output, rollout
from xds_server.cli.admin_address import page
from xds_server.discovery.rejection import essence
from xds_server.errors import EnvironmentFailed
from xds_server.translate.composer_entry import NODE_CLUSTER as COMPOSERS

_KINDS = ("Envoy", "policy server", "composer")
_SERVICES = {NODE_CLUSTER: "policy server", COMPOSERS: "composer"}
"""Our own services by the cluster of their node. All other nodes are Envoys."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("node", nargs="?", help="name of one Envoy; default: all")
    parser.add_argument(
        "--admin",
        metavar="ADDRESS",
        default=flags.ADMIN,
        help="admin address of `xds run`: HOST:PORT or unix:/PATH",
    )
    parser.add_argument(
        "--objects", action="store_true", help="show the status of every object of the gateway"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status. Returns 1 if the gateway has errors or an Envoy rejected a response.

    Raises EnvironmentFailed, WrongUsage.
    """
    if arguments.objects:
        return _objects(page(arguments.admin, "/status/objects"), arguments.output)
    status = page(arguments.admin, "/status")
    envoys = [envoy for envoy in status["envoys"] if arguments.node in (None, envoy["node"])]
    if arguments.node is not None and not envoys:
        known = ", ".join(sorted({envoy["node"] for envoy in status["envoys"]})) or "none"
        raise EnvironmentFailed(f"no Envoy called '{arguments.node}' is connected; connected: {known}")
    if arguments.output != "text":
        output.data({**status, "envoys": envoys}, arguments.output)
    else:
        _print(status["gateway"], envoys)
        _print_previews(status["previews"])
        if status["marketplace"] is not None:
            _print_marketplace(status["marketplace"])
        _print_proof(status["prover"], status["held"])
        if line := rollout.short(status["rollout"]):
            print(line)
    rejected = any(envoy["rejection"] and not envoy["rejection"]["mended"] for envoy in envoys)
    held = any(resource["rejected_by"] for resource in status["held"])
    return 0 if status["gateway"]["healthy"] and not rejected and not held else 1


def _objects(status: dict[str, Any], form: str) -> int:
    """Print the status of every object. Returns 1 if anything has errors, or is not served as it was written."""
    objects = status["objects"]
    if form != "text":
        output.data(status, form)
    else:
        if not status["healthy"]:
            print(f"the newest gateway has errors; {_kept(status['serving'])}")
        for problem in status["problems"]:
            print(f"  {problem}")
        for one in objects:
            _print_object(one)
        for held in status["held"]:
            print(f"HELD BACK: {held['type']} {held['name']}: {essence(held['message'])}")
    fine = all(one["accepted"] and not one["held_back"] for one in objects)
    return 0 if status["healthy"] and fine and not status["held"] else 1


def _kept(serving: bool) -> str:
    return "the last good gateway is served, and this is its status" if serving else "nothing is served yet"


def _print_object(item: dict[str, Any]) -> None:
    waiting = ", ".join(item["waiting_for"])
    states = [
        "accepted" if item["accepted"] else "NOT ACCEPTED",
        *(["HELD BACK"] if item["held_back"] else []),
        f"acknowledged by {output.counted(item['acknowledged'], 'Envoy')}",
        *([f"waiting for {waiting}"] if waiting else []),
    ]
    print(f"{item['section']}.{item['name']}  {item['place'] or ''}  {', '.join(states)}")
    for problem in item["problems"]:
        print(f"  {problem}")
    for held in item["held_back"]:
        print(f"  {essence(held['message'])}")


def _print(gateway: dict[str, Any], envoys: list[dict[str, Any]]) -> None:
    kept = "the last good one is served" if gateway["serving"] else "nothing is served yet"
    state = "served" if gateway["healthy"] else f"has errors; {kept}"
    print(f"gateway {gateway['folder']}: {state}")
    _print_commits(gateway)
    if pin := gateway["pinned"]:
        print(
            f"  PINNED to {pin['commit'][:12]} for {_age(pin['since'])}; xds pin --off serves the newest commit"
        )
    for problem in gateway["problems"]:
        print(f"  {problem}")
    of = Counter(_SERVICES.get(one["cluster"], "Envoy") for one in envoys)
    print(
        f"{' and '.join(output.counted(of[kind], kind) for kind in _KINDS if of[kind] or kind == 'Envoy')} connected"
    )
    for envoy in envoys:
        age = _age(envoy["connected_since"])
        release = f"  {envoy['release']}" if envoy["release"] else ""
        print(
            f"{envoy['node']}{release}  cluster={envoy['cluster']}  {envoy['protocol']}  {envoy['peer']}  for {age}"
        )
        if envoy["commit"]:
            print(f"  {_commit(envoy['commit'])}")
        waiting = envoy["waiting_for"] or ()
        for name, version in envoy["versions"].items():
            print(f"  {name:<18} {version}{'  (not the newest)' if name in waiting else ''}")
        if others := [name for name in waiting if name not in envoy["versions"]]:
            print(f"  not acknowledged yet: {', '.join(others)}")
        if envoy["rejection"]:
            _print_rejection(envoy["rejection"])


def _print_marketplace(market: dict[str, Any]) -> None:
    print(
        f"marketplace: {output.counted(market['subscriptions'], 'subscription')}, change {market['sequence']}"
    )
    if not market["complete"]:
        print("  not read yet")
    if market["problem"]:
        print(f"  NOT READABLE: {market['problem']}; keys that are known stay, and new ones wait")
    for name in market["clashes"]:
        print(
            f"  CLASH: the consumer '{name}' of the gateway has the name of a subscription; rename the consumer"
        )
    for name, count in sorted(market["without_limits"].items()):
        print(
            f"  NO LIMITS: the gateway has no plan '{name}', which {output.counted(count, 'subscription')} have"
        )


def _print_previews(previews: list[dict[str, Any]]) -> None:
    for one in previews:
        kept = "its last good commit is served" if one["serving"] else "nothing is served yet"
        state = "served" if one["healthy"] else f"has errors; {kept}"
        print(f"preview of branch {one['branch']} for group {one['group']}: {state}")
        _print_commits(one)
        for problem in one["problems"]:
            print(f"  {problem}")


def _print_commits(gateway: dict[str, Any]) -> None:
    """Print the commit that is served, and the newest one if that has errors."""
    served, newest = gateway["commit"], gateway["newest"]
    if served:
        print(f"  {_commit(served)}")
    if newest and not gateway["healthy"] and newest != served:
        print(f"  NOT SERVED: {_commit(newest)}")


def _commit(commit: dict[str, Any]) -> str:
    age = _age(commit["time"])
    signer = f", signed by {commit['signer']}" if commit["signer"] else ""
    return f"commit {commit['id'][:12]} of {commit['author']}{signer}, {age} old: {commit['subject']}"


def _print_proof(prover: dict[str, Any] | None, held: list[dict[str, Any]]) -> None:
    if prover is not None and not prover["proved"]:
        print("the proving Envoy is not connected or has not responded: the served gateway is unproved")
    for resource in held:
        instead = "served in its last accepted form" if resource["served_instead"] else "left out"
        instead = "answers 503" if resource["answers_503"] else instead
        whom = f" for {resource['for']}" if resource["for"] else ""
        print(f"HELD BACK{whom}, {instead}: {resource['type']} {resource['name']} {resource['place'] or ''}")
        by = (
            f"rejected by {resource['rejected_by']}"
            if resource["rejected_by"]
            else "that release does not support it"
        )
        print(f"  {by}: {essence(resource['message'])}")


def _print_rejection(rejection: dict[str, Any]) -> None:
    state = "accepted since" if rejection["mended"] else "REJECTED"
    places = ", ".join(rejection["places"])
    print(
        f"  {state} {_age(rejection['at'])} ago: {rejection['type']} {', '.join(rejection['resources'])} {places}"
    )
    print(f"    {essence(rejection['message'])}")


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    if seconds < 120:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"
