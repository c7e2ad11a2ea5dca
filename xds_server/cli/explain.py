"""xds explain: which route a request takes, why the other routes do not match, and which policies run where.

With `--graphql`, the calls of a query.
"""

from __future__ import annotations

import argparse
import dataclasses

from xds_server.cli import flags, gateways, output
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import WrongUsage
from xds_server.translate.explain import Request, explain
from xds_server.translate.explanation_lines import NEAREST, lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    flags.add_folder(parser, live=True, optional=True)
    parser.add_argument("method", nargs="?", help="HTTP method of the request, such as GET")
    parser.add_argument(
        "url", nargs="?", help="URL of the request, such as http://api.example.com/api/users/1?x=1"
    )
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
    parser.add_argument(
        "--graphql",
        nargs=2,
        metavar=("FILE", "QUERY"),
        help="instead of a request: show the calls of a query, without making them. FILE is a schema or the folder of a "
        "gateway, QUERY a text or a file",
    )
    parser.add_argument("--variables", metavar="JSON", help="variables of the query")
    parser.add_argument(
        "--route", metavar="NAME", help="graphql route of the gateway; needed if there are several"
    )
    flags.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation. Returns 1 if no route matches. Raises InvalidGateway, UnreadableFolder, WrongUsage."""
    if arguments.graphql is not None:
        from xds_server.cli import explained_query  # imports a large library

        source, query = arguments.graphql
        return explained_query.run(source, query, arguments.variables, arguments.route, arguments.output)
    if None in (arguments.folder, arguments.method, arguments.url):
        raise WrongUsage("write the folder of a gateway, a method and a URL, or --graphql FILE QUERY")
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
        for line in lines(explanation, len(explanation.candidates) if arguments.all else NEAREST):
            print(line)
    return 0 if explanation.route is not None or "redirect" in explanation.action else 1
