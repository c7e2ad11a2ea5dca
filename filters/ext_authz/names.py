"""Names that the Envoy side and the Python side of ext_authz agree on."""

from __future__ import annotations

from typing import NamedTuple

from filters.rules import RuleType
from protos import rules_pb2

PROBLEM = "problem"
"""Metadata of a refusal that leaves its body to the gateway."""
FAILED = "failed"
"""Metadata of a refusal because the policy itself failed."""


class Source(NamedTuple):
    """A policy in Python as it stands in the gateway's folder, with the files that it imports."""

    file: str
    function: str
    content: bytes
    modules: tuple[tuple[str, bytes], ...] = ()


def _message(name: str, value: Source) -> rules_pb2.PythonPolicy:
    modules = [rules_pb2.PythonModule(file=file, source=source) for file, source in value.modules]
    return rules_pb2.PythonPolicy(
        name=name, file=value.file, function=value.function, source=value.content, modules=modules
    )


POLICY = RuleType(name="python_policy", message=rules_pb2.PythonPolicy, build=_message)
