"""xds explain: which route a request takes, why the other routes do not match, and which policies run where."""

from __future__ import annotations

import argparse
import dataclasses

from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import WrongUsage
from xds_server.translate.explain import Explanation, Request, explain, nearest

NEAREST = 3
"""Routes with another path that are shown: those whose path is most similar to that of the request."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser, live=True)
    parser.add_argument("method", help="HTTP method of the request, such as GET")
    parser.add_argument("url", help="URL of the request, such as http://api.example.com/api/users/1?x=1")
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="header of the request; may be repeated",
    )
    parser.add_argument(
        "--listener",
        metavar="NAME",
        help="listener that receives the request; default: the one with the URL's port or scheme",
    )
    parser.add_argument(
        "--all", action="store_true", help="show every route, not only those with a similar path"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation. Returns 1 if no route matches. Raises InvalidGateway, UnreadableFolder, WrongUsage."""
    compiled = Compiler().compile(gateways.read(arguments.folder, arguments.gateway))
    headers = {}
    for text in arguments.header:
        name, colon, value = text.partition(":")
        if not colon:
            raise WrongUsage(f"--header: '{text}' is not 'name: value'")
        headers[name.strip().lower()] = value.strip()
    try:
        request = Request(method=arguments.method.upper(), url=arguments.url, headers=headers)
        explanation = explain(compiled.gateway, request, arguments.listener)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    if arguments.output != "text":
        output.data(dataclasses.asdict(explanation), arguments.output)
    else:
        _print(explanation, most=len(explanation.candidates) if arguments.all else NEAREST)
    return 0 if explanation.route is not None or "redirect" in explanation.action else 1


def _print(explanation: Explanation, most: int) -> None:
    print(f"listener {explanation.listener}, host {explanation.host}, path {explanation.path}")
    for note in explanation.notes:
        print(f"  {note}")
    candidates, others = nearest(explanation, most)
    for candidate in candidates:
        mark, why = "-" if candidate.why_not else ">", candidate.why_not or "matches"
        print(f"  {mark} {candidate.route}  {candidate.path}  {why}")
    if others:
        print(f"  - {output.counted(others, 'other route')} with other paths; --all shows them")
    print(explanation.action)
    for policy in explanation.policies:
        print(f"  {policy.stage:<13} {policy.key:<17} {policy.enforced}  (from {policy.level})")
