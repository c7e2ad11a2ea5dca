"""xds schema: the JSON Schema of the language or of tests, or the reference for people."""

from __future__ import annotations

import argparse

from xds_server.cli import output
from xds_server.errors import WrongUsage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--format",
        choices=("json", "markdown", "crds"),
        default="json",
        help="json: JSON Schema for editors; markdown: the reference of the language; "
        "crds: the definitions of our own kinds of Kubernetes objects, with rules that reject unknown keys",
    )
    parser.add_argument(
        "--tests", action="store_true", help="of the files that `xds test` reads; json and markdown only"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the schema. Raises WrongUsage."""
    if arguments.tests:
        from xds_server.testing import documents

        if arguments.format == "crds":
            raise WrongUsage("--tests: there are no such objects of Kubernetes; choose json or markdown")
        if arguments.format == "markdown":
            print(documents.reference(), end="")
        else:
            output.data(documents.schema(), "json")
    elif arguments.format == "markdown":
        from xds_server.gateway.reference import reference

        print(reference(), end="")
    elif arguments.format == "crds":
        from xds_server.gateway_api import kinds_document

        print(kinds_document.document(), end="")
    else:
        from xds_server.gateway.schema import schema

        output.data(schema(), "json")
    return 0
