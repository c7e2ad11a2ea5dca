"""Types of the variables of conditions, for CEL's compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2

Type = str | Mapping[str, "Type"]
"""``string``, ``bool``, ``int``, ``timestamp``, ``duration``, ``strings`` (texts by name), ``any`` (values of any type
by name), or the types of a record's fields."""


def environment(variables: Mapping[str, Type]) -> Any:
    """A `cel.Env` of the library, which compiles conditions over these variables."""
    from cel_expr_python import cel  # imported here, because it is large and only conditions need it

    kinds = {"string": cel.Type.STRING, "any": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)}
    types = {name: kinds[one] if isinstance(one, str) else cel.Type(name) for name, one in variables.items()}
    return cel.NewEnv(_pool(variables), variables=types)


_FIELD = descriptor_pb2.FieldDescriptorProto
_FIELDS: Mapping[str, Any] = {
    "string": _FIELD(type=_FIELD.TYPE_STRING),
    "bool": _FIELD(type=_FIELD.TYPE_BOOL),
    "int": _FIELD(type=_FIELD.TYPE_INT64),
    "timestamp": _FIELD(type=_FIELD.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp"),
    "duration": _FIELD(type=_FIELD.TYPE_MESSAGE, type_name=".google.protobuf.Duration"),
}


def _pool(variables: Mapping[str, Type]) -> descriptor_pool.DescriptorPool:
    """A protobuf message for each record, because CEL's types with named fields are messages."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="conditions.proto", syntax="proto3")
    for module in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        file.dependency.append(module.DESCRIPTOR.name)
    records = {name: fields for name, fields in variables.items() if isinstance(fields, Mapping)}
    for name, fields in records.items():
        message = file.message_type.add(name=name)
        for number, (field, type_) in enumerate(fields.items(), 1):
            one = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
            if type_ == "strings":
                entry = message.nested_type.add(name=f"{field.title()}Entry", options={"map_entry": True})
                for at, key in enumerate(("key", "value"), 1):
                    entry.field.add(name=key, number=at, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
                one.type, one.type_name = _FIELD.TYPE_MESSAGE, f".{name}.{entry.name}"
                one.label = _FIELD.LABEL_REPEATED
            else:
                one.MergeFrom(_FIELDS[str(type_)])
    pool.Add(file)
    return pool
