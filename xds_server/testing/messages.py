"""Messages of gRPC methods: their types by name, as JSON and as bytes, and the frames around them. Does no IO."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

from filters.grpc_transcoding.descriptors import linked
from filters.language import Mistake, Path
from filters.language.problems import did_you_mean

_FRAME = struct.Struct(">BI")
"""What precedes a message: 1 if it is compressed, and its length (PROTOCOL-HTTP2.md of gRPC)."""
_NAMES: Mapping[int, str] = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
"""The names of types of fields in .proto files."""

_TRAILERS = 0x80
"""The flag of a frame of gRPC-Web that has trailers."""
CHECK = "envoy.service.auth.v3.Authorization/Check"
"""The method of services of `ext_authz: {grpc: …}`, which every file of tests knows."""
_CHECK: MethodDescriptor = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].methods_by_name[
    "Check"
]


class Types:
    """The methods of serialized descriptor sets, and `CHECK`. Raises Mistake if a set is not valid."""

    def __init__(self, sets: Iterable[bytes] = ()) -> None:
        # one by one, because two routes may have different versions of a file
        self._linked = tuple(linked((one,)) for one in dict.fromkeys(sets))

    def method(self, name: str) -> MethodDescriptor | None:
        """Return the method ``package.Service/Method``, or None."""
        own = (found for one in self._linked if (found := one.method(name)) is not None)
        return next(own, _CHECK if name == CHECK else None)

    def required(self, name: str) -> MethodDescriptor:
        """Return the method ``package.Service/Method``. Raises Mistake with a remedy if there is none."""
        found = self.method(name.removeprefix("/"))
        if found is None:
            known = (CHECK,) if name.startswith("envoy.") else tuple(self._names())
            remedy = did_you_mean(name, known) or "name its file in this file: protos: [shop.proto]"
            raise Mistake("no descriptor has this method", remedy, value=name)
        return found

    def _names(self) -> Iterator[str]:
        for one in self._linked:
            for service in one.services:
                methods = one.pool.FindServiceByName(service).methods
                yield from (f"{service}/{method.name}" for method in methods)


def encoded(type_: Descriptor, value: Any, *, streams: bool) -> tuple[bytes, ...]:
    """Return the messages of JSON values: of one, or of a list if the method `streams`. None is an empty message.

    Raises Mistake with the path of the value that does not fit.
    """
    return tuple(_message(type_, one, path).SerializeToString() for path, one in _each(value, streams))


def expected(type_: Descriptor, value: Any, *, streams: bool) -> Any:
    """Return JSON values as `decoded` writes them, but only the fields that are given. Raises Mistake."""
    found = [_canonical(type_, one, path) for path, one in _each(value, streams)]
    return found if streams else found[0]


def decoded(type_: Descriptor, messages: Iterable[bytes], *, streams: bool) -> Any:
    """Return messages as JSON values, with all fields: a list if the method `streams`. None if there is no message.

    Raises ValueError.
    """
    try:
        found = [_json(message_factory.GetMessageClass(type_).FromString(one)) for one in messages]
    except (DecodeError, json_format.Error, TypeError) as error:
        raise ValueError(f"not a message {type_.full_name}: {error}") from None
    return found if streams else next(iter(found), None)


def framed(messages: Iterable[bytes]) -> bytes:
    """Return messages as the body of a request or of a response."""
    return b"".join(_FRAME.pack(0, len(one)) + one for one in messages)


def unframed(body: bytes) -> tuple[bytes, ...]:
    """Return the messages of a body. Raises ValueError."""
    found, position = [], 0
    while position < len(body):
        if len(body) - position < _FRAME.size:
            raise ValueError("the body ends inside a gRPC frame")
        compressed, length = _FRAME.unpack_from(body, position)
        position += _FRAME.size
        if compressed:
            raise ValueError("the gRPC message is compressed, or no gRPC")
        if len(body) - position < length:
            raise ValueError("the body ends inside a gRPC frame")
        found.append(body[position : position + length])
        position += length
    return tuple(found)


def checked_headers(body: bytes) -> Mapping[str, str]:
    """Return the headers of the request that a call of `CHECK` is about; none if it is not readable."""
    try:
        (message,) = unframed(body)
        request = external_auth_pb2.CheckRequest.FromString(message)
    except (ValueError, DecodeError):
        return {}
    return request.attributes.request.http.headers


def without_web_trailers(body: bytes) -> tuple[bytes, tuple[tuple[str, str], ...] | None]:
    """Return a body of gRPC-Web without its last frame, and the trailers in that; None if it has none (PROTOCOL-WEB.md)."""
    position = 0
    while len(body) - position >= _FRAME.size:
        flags, length = _FRAME.unpack_from(body, position)
        end = position + _FRAME.size + length
        if flags & _TRAILERS:
            lines = body[position + _FRAME.size : end].decode("latin-1").split("\r\n")
            fields = (line.partition(":") for line in lines if line)
            return body[:position], tuple((name.strip().lower(), value.strip()) for name, _, value in fields)
        position = end
    return body, None


def status_message(text: str) -> str:
    """Return the text of a status as the value of `grpc-message` (percent-encoded)."""
    return quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~")


def text_of_status(value: str) -> str:
    """Return the text of the value of `grpc-message`."""
    return unquote(value)


def _each(value: Any, streams: bool) -> Iterator[tuple[Path, Any]]:
    if streams and isinstance(value, list):
        yield from (((number,), one) for number, one in enumerate(value))
    elif isinstance(value, list):
        raise Mistake("the method has one message here, and this is a list", "write one message")
    else:
        yield (), value


def _message(type_: Descriptor, value: Any, path: Path) -> Message:
    _fits(type_, value, path)
    return _parsed(type_, {} if value is None else value, path)


def _fits(type_: Descriptor, value: Any, path: Path) -> None:
    """Raise Mistake with the path of the innermost value that does not fit."""
    if value is None or _has_own_form(type_):
        return
    if not isinstance(value, Mapping):
        remedy = "write its fields, such as {id: 1}"
        raise Mistake(f"a message {type_.full_name} is needed", remedy, path=path, value=value)
    for key, one in value.items():
        field = _field(type_, key, path)
        inner = _inner(field)
        if inner is None or not _has_shape(field, one):
            _parsed(type_, {key: one}, (*path, key), field)
            continue
        for below, member in _members(field, one):
            _fits(inner, member, (*path, key, *below))


def _has_shape(field: FieldDescriptor, value: Any) -> bool:
    """True if a value is a list, an object or neither, as the field is."""
    if _is_map(field):
        return isinstance(value, Mapping)
    return value is not None and isinstance(value, list) == field.is_repeated


def _members(field: FieldDescriptor, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the messages of a field with their paths below it."""
    if _is_map(field):
        yield from (((name,), one) for name, one in value.items())
    elif field.is_repeated:
        yield from (((number,), one) for number, one in enumerate(value))
    else:
        yield (), value


def _field(type_: Descriptor, key: Any, path: Path) -> FieldDescriptor:
    for field in type_.fields:
        if key in (field.name, field.json_name):
            return field
    remedy = did_you_mean(str(key), [field.name for field in type_.fields]) or "remove it"
    message = f"the message {type_.full_name} has no field '{key}'"
    raise Mistake(message, remedy, path=(*path, key), value=str(key))


def _parsed(type_: Descriptor, value: Any, path: Path, field: FieldDescriptor | None = None) -> Message:
    message = message_factory.GetMessageClass(type_)()
    try:
        json_format.ParseDict(value, message, descriptor_pool=type_.file.pool)
    except (json_format.Error, TypeError, ValueError, AttributeError) as error:
        if field is None:
            words = f"not a message {type_.full_name}: {error}"
            raise Mistake(words, "write it in protobuf's JSON form", path=path) from None
        one = next(iter(value.values()))
        words = f"the field '{field.name}' is of type {_type_name(field)}"
        raise Mistake(words, _remedy(field, one), path=path, value=one) from None
    return message


def _type_name(field: FieldDescriptor) -> str:
    if _is_map(field):
        return "map"
    kind = field.message_type or field.enum_type
    name = kind.full_name if kind is not None else _NAMES[field.type]
    return f"repeated {name}" if field.is_repeated else name


def _remedy(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        known = [one.name for one in field.enum_type.values]
        return did_you_mean(str(value), known) or f"write one of {', '.join(known[:10])}"
    if _is_map(field):
        return "write an object"
    return "write a list" if field.is_repeated and not isinstance(value, list) else "write such a value"


def _has_own_form(type_: Descriptor) -> bool:
    """True for messages that JSON writes in a form of their own, such as Timestamp."""
    return type_.full_name.startswith("google.protobuf.")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _inner(field: FieldDescriptor) -> Descriptor | None:
    """Return the type of the messages of a field, also of a map, if they have named fields in JSON too."""
    found: Descriptor | None = field.message_type
    if found is not None and _is_map(field):
        found = found.fields_by_name["value"].message_type
    return None if found is None or _has_own_form(found) else found


def _canonical(type_: Descriptor, value: Any, path: Path) -> Any:
    _message(type_, value, path)  # raises for what does not fit
    return _as_written(type_, value)


def _as_written(type_: Descriptor, value: Any) -> Any:
    """Return the fields of a fitting value with the names and in the forms that `decoded` writes."""
    if value is None:
        return {}
    if _has_own_form(type_):
        return _json(_parsed(type_, value, ()))
    found = {}
    for key, one in value.items():
        field = _field(type_, key, ())
        inner = _inner(field)
        if inner is None or one is None:
            found[field.json_name] = _json(_parsed(type_, {key: one}, ())).get(field.json_name)
        elif _is_map(field):
            found[field.json_name] = {str(name): _as_written(inner, member) for name, member in one.items()}
        elif field.is_repeated:
            found[field.json_name] = [_as_written(inner, member) for member in one]
        else:
            found[field.json_name] = _as_written(inner, one)
    return found


def _json(message: Message) -> Any:
    pool: Any = message.DESCRIPTOR.file.pool
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=pool)
