"""The rule by which the policy server validates."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from filters.processing.phases import Phase
from filters.rules import RuleType
from protos import rules_pb2


class ValidationSource(NamedTuple):
    """Schemas as JSON texts, or an OpenAPI document as one, and what happens to messages that do not match.

    The name is a hash of the content, so that routes with the same schema share a rule.
    """

    name: str
    content: bytes

    @classmethod
    def of(cls, *, modes: tuple[str, str], formats: bool, **documents: Any) -> ValidationSource:
        """The rule of these documents: `openapi` with `base`, or `request` and `response`."""
        value = {**documents, "formats": formats, "requests": modes[0], "responses": modes[1]}
        content = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict).encode()
        return cls(hashlib.sha256(content).hexdigest()[:16], content)


def _message(name: str, value: ValidationSource) -> rules_pb2.Validation:
    return rules_pb2.Validation(name=name, content=value.content)


def phases(requests: str, responses: str) -> frozenset[Phase]:
    """The phases in which messages are compared."""
    found = set()
    if requests != "off":
        found |= {Phase.REQUEST_HEADERS, Phase.REQUEST_BODY}
    if responses != "off":
        found |= {Phase.RESPONSE_HEADERS, Phase.RESPONSE_BODY}
    return frozenset(found)


VALIDATION = RuleType(name="validation", message=rules_pb2.Validation, build=_message)
