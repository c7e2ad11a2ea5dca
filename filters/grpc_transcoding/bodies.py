"""What the script knows of JSON bodies: the message of each request of a route, and the fields of these messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from filters.grpc_transcoding import descriptors
from filters.grpc_transcoding.rules import Rule

_ANY_JSON = frozenset(f"google.protobuf.{one}" for one in ("Any", "ListValue", "Struct", "Value"))
"""Messages whose JSON may have any names."""
_TEXT = frozenset(
    f"google.protobuf.{one}"
    for one in (
        *("BoolValue", "BytesValue", "DoubleValue", "Duration", "FieldMask", "FloatValue", "Int32Value"),
        *("Int64Value", "StringValue", "Timestamp", "UInt32Value", "UInt64Value"),
    )
)
"""Messages whose JSON is no object (protobuf.dev/programming-guides/json)."""


def table(found: Iterable[Rule], *, verbs: bool) -> dict[str, Any]:
    """The requests with their messages, and the messages by full name, as the script reads them.

    A field has its number, so that two spellings of one name are the same, and the message of its value.
    """
    roots = [(rule, _root(rule)) for rule in found]
    messages: dict[str, Any] = {}
    waiting = [root for _, root in roots if root is not None]
    for one in waiting:
        if one.full_name not in messages:
            messages[one.full_name] = {}
            for field in one.fields:
                value = _value(field)
                if value is not None and value.full_name not in messages:
                    waiting.append(value)
                messages[one.full_name] |= _named(field, value)
    requests = [
        {
            "segments": list(rule.template.segments),
            "verb": rule.template.verb,
            "message": root.full_name if root is not None else False,
        }
        for rule, root in roots
    ]
    return {"requests": requests, "messages": messages, "verbs": verbs}


def _root(rule: Rule) -> Descriptor | None:
    """The message whose fields a JSON body has; None if it may have any names."""
    request: Descriptor = rule.method.input_type
    if rule.rule.body == "*":
        return _checked(request)
    return _checked(descriptors.field_of(request, rule.rule.body).message_type)


def _checked(message: Descriptor | None) -> Descriptor | None:
    return None if message is None or message.full_name in _ANY_JSON | _TEXT else message


def _value(field: FieldDescriptor) -> Descriptor | None:
    """The message of a field's values, also of those of a map."""
    message: Descriptor | None = field.message_type
    if message is not None and message.GetOptions().map_entry:
        message = message.fields_by_name["value"].message_type
    return _checked(message)


def _named(field: FieldDescriptor, value: Descriptor | None) -> Mapping[str, Any]:
    known: dict[str, Any] = {"number": field.number}
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        known["map"] = True
    if value is not None:
        known["message"] = value.full_name
    return {field.name: known, field.json_name: known}
