from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limit(_message.Message):
    __slots__ = ("name", "algorithm", "amount", "per", "timezone", "rolling", "burst", "unit", "shadow", "deny_on_error", "by", "statuses", "cost", "cost_header", "direction", "lease")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    TIMEZONE_FIELD_NUMBER: _ClassVar[int]
    ROLLING_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    DENY_ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    COST_HEADER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    name: str
    algorithm: str
    amount: int
    per: str
    timezone: str
    rolling: bool
    burst: int
    unit: str
    shadow: bool
    deny_on_error: bool
    by: _containers.RepeatedScalarFieldContainer[str]
    statuses: _containers.RepeatedScalarFieldContainer[int]
    cost: int
    cost_header: str
    direction: str
    lease: int
    def __init__(self, name: _Optional[str] = ..., algorithm: _Optional[str] = ..., amount: _Optional[int] = ..., per: _Optional[str] = ..., timezone: _Optional[str] = ..., rolling: _Optional[bool] = ..., burst: _Optional[int] = ..., unit: _Optional[str] = ..., shadow: _Optional[bool] = ..., deny_on_error: _Optional[bool] = ..., by: _Optional[_Iterable[str]] = ..., statuses: _Optional[_Iterable[int]] = ..., cost: _Optional[int] = ..., cost_header: _Optional[str] = ..., direction: _Optional[str] = ..., lease: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("name", "place", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    place: str
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    def __init__(self, name: _Optional[str] = ..., place: _Optional[str] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ...) -> None: ...

class UncheckedRequest(_message.Message):
    __slots__ = ("descriptors",)
    class Descriptor(_message.Message):
        __slots__ = ("entries",)
        ENTRIES_FIELD_NUMBER: _ClassVar[int]
        entries: _containers.RepeatedCompositeFieldContainer[UncheckedRequest.Entry]
        def __init__(self, entries: _Optional[_Iterable[_Union[UncheckedRequest.Entry, _Mapping]]] = ...) -> None: ...
    class Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: bytes
        value: bytes
        def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    descriptors: _containers.RepeatedCompositeFieldContainer[UncheckedRequest.Descriptor]
    def __init__(self, descriptors: _Optional[_Iterable[_Union[UncheckedRequest.Descriptor, _Mapping]]] = ...) -> None: ...
