"""xds pin: has a running control plane serve one commit, or the newest one again."""

from __future__ import annotations

import argparse
import http.client
import time
from typing import Any

from xds_server.cli import admin_address, flags, output
from xds_server.errors import EnvironmentFailed, WrongUsage, XdsError

_PATIENCE = 30.0
"""Seconds in which a pinned commit should be served."""
_PAUSE = 0.05


class NotServed(XdsError):  # noqa: N818 - a state of a commit
    """The gateway of a commit has errors, so it is not pinned."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "commit",
        nargs="?",
        help="the id of a commit, the first digits of one that was served, or the name of a branch or tag of now",
    )
    parser.add_argument("--off", action="store_true", help="serve the newest commit again")
    parser.add_argument("--admin", default=flags.ADMIN, metavar="ADDRESS", help=admin_address.HELP)
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pin a commit, and wait until it is served. Raises EnvironmentFailed, WrongUsage, NotServed."""
    if bool(arguments.commit) == arguments.off:
        raise WrongUsage("name a commit, or --off")
    from xds_server.git_pages import PIN, UNPIN

    if arguments.off:
        return change(arguments, UNPIN, "")
    return change(arguments, PIN, arguments.commit)


def change(arguments: argparse.Namespace, path: str, commit: str) -> int:
    """Send a change to the admin address, and print what is served then."""
    before = _ask(arguments.admin, "GET", "/status")["gateway"]["pinned"]
    done = _ask(arguments.admin, "POST", path, commit)
    try:
        served = _served(arguments.admin, done["commit"]) if done["commit"] else None
    except NotServed:
        from xds_server.git_pages import PIN, UNPIN

        _ask(arguments.admin, "POST", *((PIN, before["commit"]) if before else (UNPIN, "")))
        raise
    answer = {"pinned": done["commit"], "served": served, "survives_restart": done["survives_restart"]}
    if arguments.output != "text":
        output.data(answer, arguments.output)
        return 0
    if served is None:
        print("new commits are served again; `xds status` shows the commit and its errors")
        return 0
    print(f"serving commit {served['id'][:12]} of {served['author']}: {served['subject']}")
    print("newer commits are not served until `xds pin --off`")
    if not done["survives_restart"]:
        print(
            "a restart of `xds run` forgets this; --state FILE of `xds run` keeps it if FILE.pin can be written"
        )
    return 0


def _served(admin: str, commit: str) -> dict[str, Any]:
    """Wait until a commit is served, and return it. Raises NotServed, EnvironmentFailed."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        gateway = _ask(admin, "GET", "/status")["gateway"]
        found: dict[str, Any] | None = gateway["commit"]
        if found is not None and found["id"] == commit:
            return found
        wrong = [*gateway["problems"], *([gateway["unreadable"]] if gateway["unreadable"] else [])]
        newest = gateway["newest"]
        if not gateway["healthy"] and newest is not None and newest["id"] == commit:
            raise NotServed(
                "\n".join(
                    (f"commit {commit[:12]} has errors and is not pinned; what is served stays", *wrong)
                )
            )
        time.sleep(_PAUSE)
    raise EnvironmentFailed(
        f"commit {commit[:12]} is pinned and not served after {_PATIENCE:g} s; see xds status"
    )


def _ask(admin: str, method: str, path: str, body: str | None = None) -> dict[str, Any]:
    status, found = admin_address.call(admin, method, path, body)
    if status == admin_address.NOT_FOUND:
        raise EnvironmentFailed(f"the control plane at {admin} does not serve a gateway in git")
    if status != http.client.OK:
        raise WrongUsage(str(found.get("error", status)))
    return dict(found)
