"""The rule from which the policy server knows the methods of a transcoded route."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from filters.rules import RuleType
from protos import rules_pb2

EXTENSION = "grpc"
"""The context extension of a Check with the name of the rule."""


class MethodsSource(NamedTuple):
    """The methods of a route: the content of `rules_pb2.GrpcMethods`. Its name is a hash of it."""

    descriptors: bytes
    colons_in_ids: bool
    ignore_query: tuple[str, ...]
    ignore_unknown_fields: bool

    @property
    def name(self) -> str:
        """The name of the rule."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]


def _message(name: str, value: MethodsSource) -> rules_pb2.GrpcMethods:
    return rules_pb2.GrpcMethods(name=name, **value._asdict())


METHODS = RuleType(name="grpc_methods", message=rules_pb2.GrpcMethods, build=_message)
