"""What the script knows of queries and JSON bodies: the message of each request of a route, and the fields of it."""

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


def table(found: Iterable[Rule], *, verbs: bool, names: bool) -> dict[str, Any]:
    """The requests with their messages, and the messages by full name, as the script reads them.

    A field has its number, so that two spellings of one name are the same, and the message of its value. A request has in
    `input` the message of its query, and in `message` that of its JSON body, or False without `names`. `bodiless` is true if
    its rule reads no body; of the table, it says whether ``all``, ``some`` or ``none`` of the requests are so.
    """
    rules = list(found)
    messages: dict[str, Any] = {}
    waiting: list[Descriptor] = [rule.method.input_type for rule in rules]
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
            "input": rule.method.input_type.full_name,
            "message": _root(rule) if names and rule.json_body else False,
            "bodiless": not rule.rule.body,
        }
        for rule in rules
    ]
    count = sum(not rule.rule.body for rule in rules)
    bodiless = "none" if count == 0 else "all" if count == len(rules) else "some"
    return {"requests": requests, "messages": messages, "verbs": verbs, "bodiless": bodiless}


def _root(rule: Rule) -> str | bool:
    """The message whose fields a JSON body has; False if it may have any names."""
    request: Descriptor = rule.method.input_type
    body = request if rule.rule.body == "*" else descriptors.field_of(request, rule.rule.body).message_type
    root = _checked(body)
    return root.full_name if root is not None else False


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
    elif field.is_repeated:
        known["many"] = True
    if value is not None:
        known["message"] = value.full_name
    return {field.name: known, field.json_name: known}
