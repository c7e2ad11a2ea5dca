"""The message that Envoy's transcoder makes of a request, for policies that decide on messages.

Requests that the transcoder or its script would reject are rejected here too, or get another message here, which then
reaches no upstream: both decide on the same bytes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

from filters.grpc_transcoding import templates
from filters.grpc_transcoding.descriptors import HTTP_BODY, annotation
from filters.grpc_transcoding.templates import Template

GRPC = "application/grpc"
_BINARY = tuple(f"{GRPC}{web}{codec}" for web in ("", "-web") for codec in ("", "+proto"))
_TEXT = (f"{GRPC}-web-text", f"{GRPC}-web-text+proto")
_QUERY = re.compile("[^&]+")
_SLASH = re.compile("(%2[fF])")
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")
_RANKS = {"*": 1, "**": 2}
_AS_JSON = frozenset(
    f"google.protobuf.{one}"
    for one in (
        *(
            "Any",
            "BoolValue",
            "BytesValue",
            "DoubleValue",
            "Duration",
            "FieldMask",
            "FloatValue",
            "Int32Value",
        ),
        *(
            "Int64Value",
            "ListValue",
            "StringValue",
            "Struct",
            "Timestamp",
            "UInt32Value",
            "UInt64Value",
            "Value",
        ),
    )
)
"""Messages that policies get as protobuf's JSON mapping has them."""


class NotAMessage(ValueError):  # noqa: N818 - says what is wrong
    """The request is no message of its method."""


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    method: MethodDescriptor
    template: Template
    body: str


class Methods:
    """The methods of a route. `descriptors` is a serialized descriptor set in which these have annotations."""

    def __init__(
        self,
        descriptors: bytes,
        *,
        colons_in_ids: bool = False,
        ignore_query: Collection[str] = (),
        ignore_unknown_fields: bool = False,
    ) -> None:
        self._ignored, self._lax = frozenset(ignore_query), ignore_unknown_fields
        self._pool = descriptor_pool.DescriptorPool()
        self._methods: dict[str, MethodDescriptor] = {}
        self._rules: dict[str, list[_Rule]] = {}
        for verb, rule in self._read(descriptors):
            self._rules.setdefault(verb, []).append(rule)
        every = (one.template.verb for rules in self._rules.values() for one in rules)
        self._verbs = frozenset(every) if colons_in_ids else None
        for rules in self._rules.values():
            rules.sort(key=lambda one: _rank(one.template))

    def _read(self, descriptors: bytes) -> Iterator[tuple[str, _Rule]]:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        for file in files:
            self._pool.Add(file)
        for file in files:
            for service in file.service:
                full_name = f"{file.package}.{service.name}".lstrip(".")
                for name, method in self._pool.FindServiceByName(full_name).methods_by_name.items():
                    rule = annotation(method)
                    if rule is None:
                        continue
                    self._methods[f"{full_name}/{name}"] = method
                    for one in (rule, *rule.additional_bindings):
                        kind = one.WhichOneof("pattern")
                        path = one.custom.path if kind == "custom" else getattr(one, str(kind))
                        template = templates.parse(path)
                        verb = one.custom.kind if kind == "custom" else str(kind).upper()
                        yield verb, _Rule(f"{full_name}/{name}", method, template, one.body)

    def name_of(self, verb: str, path: str, content_type: str) -> str | None:
        """The method that a request calls, as ``package.Service/Method``, or None. `path` has no query."""
        if content_type.startswith(GRPC):
            return path[1:] if path[1:] in self._methods else None
        rule, _ = self._found(verb, path)
        return None if rule is None else rule.name

    def message(
        self, verb: str, path: str, query: str, content_type: str, body: bytes
    ) -> Mapping[str, Any] | None:
        """The message that the method of a request gets, None for a stream of messages. Raises NotAMessage."""
        native = content_type.startswith(GRPC)
        rule, segments = (None, []) if native else self._found(verb, path)
        method = self._methods.get(path[1:]) if native else rule.method if rule is not None else None
        if method is None:
            raise NotAMessage("the request calls no method")
        if method.client_streaming:
            return None
        message = message_factory.GetMessageClass(method.input_type)()
        try:
            if rule is None:
                message.MergeFromString(_frame(body, content_type))
            else:
                self._read_body(message, rule.body, content_type, body)
                self._read_query(message, query)
                self._read_path(message, rule.template, segments)
        except (ValueError, TypeError, DecodeError, json_format.Error, RecursionError) as error:
            raise NotAMessage(str(error)) from None
        return _plain(message, self._pool)

    def _found(self, method: str, path: str) -> tuple[_Rule | None, list[str]]:
        """The rule of a path, and its segments. Envoy ignores empty segments at the end, and so is it here."""
        head, colon, verb = path.rpartition(":")
        if not colon or "/" in verb or (self._verbs is not None and verb not in self._verbs):
            head, verb = path, ""
        segments = head.split("/")[1:]
        while segments and not segments[-1]:
            segments.pop()
        for one in self._rules.get(method, ()):
            if one.template.verb == verb and one.template.fits(segments):
                return one, segments
        return None, segments

    def _read_body(self, message: Message, field_name: str, content_type: str, body: bytes) -> None:
        if not field_name or not body:
            if body and not re.fullmatch(rb"\s*\{\s*\}\s*", body):
                raise NotAMessage("the method reads no body")
            return
        if field_name != "*":
            field = message.DESCRIPTOR.fields_by_name[field_name]
            if field.message_type is None or field.is_repeated:
                value = {field.name: json.loads(body.decode())}
                json_format.ParseDict(
                    value, message, ignore_unknown_fields=self._lax, descriptor_pool=self._pool
                )
                return
            message = getattr(message, field_name)
            message.SetInParent()
        if message.DESCRIPTOR.full_name == HTTP_BODY:
            message.content_type, message.data = content_type, body  # type: ignore[attr-defined]
            return
        json_format.Parse(body.decode(), message, ignore_unknown_fields=self._lax, descriptor_pool=self._pool)

    def _read_query(self, message: Message, query: str) -> None:
        for pair in _QUERY.findall(query):
            name, _, value = pair.partition("=")
            name = unquote_to_bytes(name).decode()
            if name not in self._ignored:
                self._assign(message, name, unquote_to_bytes(value.replace("+", " ")).decode())

    def _read_path(self, message: Message, template: Template, segments: list[str]) -> None:
        for field, value in template.values(segments):
            if template.in_one_segment(field):
                text = unquote_to_bytes(value).decode()
            else:  # an escaped slash stays, so that segments can be told
                parts = _SLASH.split(value)
                text = "".join(
                    one if number % 2 else unquote_to_bytes(one).decode() for number, one in enumerate(parts)
                )
            self._assign(message, field, text)

    def _assign(self, message: Message, name: str, text: str) -> None:
        """Set the field of a path of names to a text. Raises ValueError."""
        *outer, last = name.split(".")
        for part in outer:
            field = _field(message.DESCRIPTOR, part)
            if field.message_type is None or field.is_repeated:
                raise NotAMessage(f"{part!r} is no message")
            message = getattr(message, field.name)
        field = _field(message.DESCRIPTOR, last)
        if field.message_type is not None:
            if field.is_repeated:
                raise NotAMessage(f"{name!r} has messages")
            self._read_text(getattr(message, field.name), text)
        elif field.is_repeated:
            getattr(message, field.name).append(_scalar(field, text))
        else:
            setattr(message, field.name, _scalar(field, text))

    def _read_text(self, message: Message, text: str) -> None:
        """Read a message such as a Timestamp or a StringValue from a parameter."""
        for written in (json.dumps(text), text):
            try:
                json_format.Parse(written, message, descriptor_pool=self._pool)
            except json_format.ParseError:
                message.Clear()
            else:
                message.SetInParent()
                return
        raise NotAMessage(f"{text!r} is no {message.DESCRIPTOR.full_name}")


def _rank(template: Template) -> list[int]:
    """Envoy prefers literal segments, and then * to **, from the first segment on."""
    return [_RANKS.get(one, 0) for one in template.segments]


def _field(message: Any, name: str) -> Any:
    field = message.fields_by_name.get(name)
    field = field or next((one for one in message.fields if one.json_name == name), None)
    if field is None:
        raise NotAMessage(f"the message {message.full_name} has no field {name!r}")
    return field


def _scalar(field: Any, text: str) -> Any:
    """A scalar value of a text in a path or a query. Raises ValueError."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if re.search("[-_]", text) else None
        )
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise NotAMessage(f"{text!r} is neither true nor false")
        return text.lower() in _TRUE
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        value = field.enum_type.values_by_name.get(text)
        return value.number if value is not None else int(text)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise NotAMessage(f"{text!r} is no whole number")
    return int(text)


def _frame(body: bytes, content_type: str) -> bytes:
    """The only message of a call (grpc/doc/PROTOCOL-HTTP2.md). Raises ValueError. Other codecs than protobuf are not read."""
    kind = content_type.partition(";")[0].strip()
    if kind in _TEXT:
        body = base64.b64decode(body, validate=True)
    elif kind not in _BINARY:
        raise NotAMessage(f"the messages of {kind!r} are not read")
    if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise NotAMessage("the body is not one message without compression")
    return body[5:]


def _plain(message: Message, pool: descriptor_pool.DescriptorPool) -> Mapping[str, Any]:
    """All fields by their names in the .proto file. A field that is not set has its default value, or None if it has presence."""

    def value(field: Any, one: Any) -> Any:
        if field.message_type is not None:
            if field.message_type.full_name in _AS_JSON:
                return json_format.MessageToDict(one, descriptor_pool=pool)
            return _plain(one, pool)
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            known = field.enum_type.values_by_number.get(one)
            return known.name if known is not None else one
        return one

    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        one = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of_value = field.message_type.fields_by_name["value"]
            found[field.name] = {key: value(of_value, one[key]) for key in one}
        elif field.is_repeated:
            found[field.name] = [value(field, item) for item in one]
        elif field.has_presence and not message.HasField(field.name):
            found[field.name] = None
        else:
            found[field.name] = value(field, one)
    return found
