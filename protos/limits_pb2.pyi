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

class LeaseRequest(_message.Message):
    __slots__ = ("rules", "plans", "styles", "entries", "wanted", "returned")
    class Returned(_message.Message):
        __slots__ = ("receipt", "requests")
        RECEIPT_FIELD_NUMBER: _ClassVar[int]
        REQUESTS_FIELD_NUMBER: _ClassVar[int]
        receipt: bytes
        requests: int
        def __init__(self, receipt: _Optional[bytes] = ..., requests: _Optional[int] = ...) -> None: ...
    RULES_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedScalarFieldContainer[str]
    plans: bool
    styles: _containers.RepeatedScalarFieldContainer[str]
    entries: _containers.RepeatedCompositeFieldContainer[UncheckedRequest.Entry]
    wanted: int
    returned: _containers.RepeatedCompositeFieldContainer[LeaseRequest.Returned]
    def __init__(self, rules: _Optional[_Iterable[str]] = ..., plans: _Optional[bool] = ..., styles: _Optional[_Iterable[str]] = ..., entries: _Optional[_Iterable[_Union[UncheckedRequest.Entry, _Mapping]]] = ..., wanted: _Optional[int] = ..., returned: _Optional[_Iterable[_Union[LeaseRequest.Returned, _Mapping]]] = ...) -> None: ...

class LeaseResponse(_message.Message):
    __slots__ = ("requests", "milliseconds", "receipt", "headers")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    requests: int
    milliseconds: int
    receipt: bytes
    headers: str
    def __init__(self, requests: _Optional[int] = ..., milliseconds: _Optional[int] = ..., receipt: _Optional[bytes] = ..., headers: _Optional[str] = ...) -> None: ...

class LeaseReceipt(_message.Message):
    __slots__ = ("since", "parts")
    class Part(_message.Message):
        __slots__ = ("rule", "limit", "key", "until", "cost")
        RULE_FIELD_NUMBER: _ClassVar[int]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        KEY_FIELD_NUMBER: _ClassVar[int]
        UNTIL_FIELD_NUMBER: _ClassVar[int]
        COST_FIELD_NUMBER: _ClassVar[int]
        rule: str
        limit: str
        key: str
        until: int
        cost: int
        def __init__(self, rule: _Optional[str] = ..., limit: _Optional[str] = ..., key: _Optional[str] = ..., until: _Optional[int] = ..., cost: _Optional[int] = ...) -> None: ...
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    since: int
    parts: _containers.RepeatedCompositeFieldContainer[LeaseReceipt.Part]
    def __init__(self, since: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[LeaseReceipt.Part, _Mapping]]] = ...) -> None: ...
