"""The JSON Schema and the reference of files of tests, made from the fields that the decoder uses."""

from __future__ import annotations

from xds_server.gateway.reference import reference_of
from xds_server.gateway.schema import Schema, schema_of
from xds_server.testing.language import Suite

_HEAD = """# Reference of tests

Made by `make docs` from the fields that the decoder itself reads. A file in the folder `tests` of a gateway has these keys;
[test a gateway](../how-to/test-a-gateway.md) shows how to use them. Durations are written `250ms`, `5s`, `1h`. `${NAME}` and
`${NAME:-default}` read the environment of `xds test`. A key in bold must be given.

## A file
"""


def schema() -> Schema:
    """Return the schema of a file of tests."""
    return schema_of(Suite, "tests", "Tests of a gateway, which `xds test` runs.")


def reference() -> str:
    """Return the reference of files of tests as Markdown."""
    return reference_of(Suite, _HEAD)
