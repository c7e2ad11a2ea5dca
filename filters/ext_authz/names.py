"""Names that Envoy's configuration and the policy server share."""

from __future__ import annotations

from typing import NamedTuple

from filters.rules import RuleType
from protos import rules_pb2

PROBLEM = "problem"
"""Metadata of a denial whose body the gateway writes."""
FAILED = "failed"
"""Metadata of a denial because the policy itself failed."""


class PolicySource(NamedTuple):
    """A policy in Python from the gateway's folder, with the files that it imports."""

    file: str
    function: str
    content: bytes
    modules: tuple[tuple[str, bytes], ...] = ()


def _message(name: str, value: PolicySource) -> rules_pb2.PythonPolicy:
    modules = [rules_pb2.PythonModule(file=file, source=source) for file, source in value.modules]
    return rules_pb2.PythonPolicy(
        name=name, file=value.file, function=value.function, source=value.content, modules=modules
    )


POLICY = RuleType(name="python_policy", message=rules_pb2.PythonPolicy, build=_message)
