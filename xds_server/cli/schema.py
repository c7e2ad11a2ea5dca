"""xds schema: the JSON Schema of the language, or its reference for people."""

from __future__ import annotations

import argparse

from xds_server.cli import output


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--format",
        choices=("json", "markdown", "crds"),
        default="json",
        help="json: JSON Schema for editors; markdown: the reference of the language; "
        "crds: the definitions of our own kinds of Kubernetes objects, with rules that reject unknown keys",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    if arguments.format == "markdown":
        from xds_server.gateway.reference import reference

        print(reference(), end="")
    elif arguments.format == "crds":
        from xds_server.gateway_api import kinds_document

        print(kinds_document.document(), end="")
    else:
        from xds_server.gateway.schema import schema

        output.data(schema(), "json")
    return 0
