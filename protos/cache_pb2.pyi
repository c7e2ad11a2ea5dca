from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("key", "headers", "only")
    KEY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    only: bool
    def __init__(self, key: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., only: _Optional[bool] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("state", "entry", "names")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[LookupResponse.State]
        FOUND: _ClassVar[LookupResponse.State]
        FETCH: _ClassVar[LookupResponse.State]
        WAIT: _ClassVar[LookupResponse.State]
    UNKNOWN: LookupResponse.State
    FOUND: LookupResponse.State
    FETCH: LookupResponse.State
    WAIT: LookupResponse.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    state: LookupResponse.State
    entry: bytes
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[LookupResponse.State, str]] = ..., entry: _Optional[bytes] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class StoreRequest(_message.Message):
    __slots__ = ("selection", "entry", "names", "tags", "url", "expires", "epoch", "version")
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    selection: Selection
    entry: bytes
    names: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedScalarFieldContainer[str]
    url: str
    expires: int
    epoch: str
    version: int
    def __init__(self, selection: _Optional[_Union[Selection, _Mapping]] = ..., entry: _Optional[bytes] = ..., names: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[str]] = ..., url: _Optional[str] = ..., expires: _Optional[int] = ..., epoch: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class StoreResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Purge(_message.Message):
    __slots__ = ("kind", "value")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ALL: _ClassVar[Purge.Kind]
        URL: _ClassVar[Purge.Kind]
        PREFIX: _ClassVar[Purge.Kind]
        TAG: _ClassVar[Purge.Kind]
    ALL: Purge.Kind
    URL: Purge.Kind
    PREFIX: Purge.Kind
    TAG: Purge.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: Purge.Kind
    value: str
    def __init__(self, kind: _Optional[_Union[Purge.Kind, str]] = ..., value: _Optional[str] = ...) -> None: ...

class PurgeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangesRequest(_message.Message):
    __slots__ = ("epoch", "version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    version: int
    def __init__(self, epoch: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class ChangesResponse(_message.Message):
    __slots__ = ("epoch", "version", "purges")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PURGES_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    version: int
    purges: _containers.RepeatedCompositeFieldContainer[Purge]
    def __init__(self, epoch: _Optional[str] = ..., version: _Optional[int] = ..., purges: _Optional[_Iterable[_Union[Purge, _Mapping]]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("status", "born", "fresh", "stale", "stale_if_error", "url", "body", "headers", "tags")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BORN_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    STALE_IF_ERROR_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    status: int
    born: int
    fresh: int
    stale: int
    stale_if_error: int
    url: str
    body: bytes
    headers: _containers.RepeatedCompositeFieldContainer[ResponseHeader]
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, status: _Optional[int] = ..., born: _Optional[int] = ..., fresh: _Optional[int] = ..., stale: _Optional[int] = ..., stale_if_error: _Optional[int] = ..., url: _Optional[str] = ..., body: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[ResponseHeader, _Mapping]]] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class ResponseHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Stored(_message.Message):
    __slots__ = ("key", "names", "selected", "entry", "tags", "url", "expires", "generation", "epoch")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SELECTED_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    names: _containers.RepeatedScalarFieldContainer[str]
    selected: str
    entry: bytes
    tags: _containers.RepeatedScalarFieldContainer[str]
    url: str
    expires: int
    generation: str
    epoch: bytes
    def __init__(self, key: _Optional[bytes] = ..., names: _Optional[_Iterable[str]] = ..., selected: _Optional[str] = ..., entry: _Optional[bytes] = ..., tags: _Optional[_Iterable[str]] = ..., url: _Optional[str] = ..., expires: _Optional[int] = ..., generation: _Optional[str] = ..., epoch: _Optional[bytes] = ...) -> None: ...
