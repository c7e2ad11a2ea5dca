from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApiKey(_message.Message):
    __slots__ = ("sha256", "not_after")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    not_after: int
    def __init__(self, sha256: _Optional[bytes] = ..., not_after: _Optional[int] = ...) -> None: ...

class Consumer(_message.Message):
    __slots__ = ("name", "plan", "api_keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    plan: str
    api_keys: _containers.RepeatedCompositeFieldContainer[ApiKey]
    def __init__(self, name: _Optional[str] = ..., plan: _Optional[str] = ..., api_keys: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ...) -> None: ...

class SubscriberBucket(_message.Message):
    __slots__ = ("name", "subscribers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    subscribers: _containers.RepeatedCompositeFieldContainer[Subscriber]
    def __init__(self, name: _Optional[str] = ..., subscribers: _Optional[_Iterable[_Union[Subscriber, _Mapping]]] = ...) -> None: ...

class Subscriber(_message.Message):
    __slots__ = ("name", "plan", "apis", "api_keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    APIS_FIELD_NUMBER: _ClassVar[int]
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    plan: str
    apis: _containers.RepeatedScalarFieldContainer[str]
    api_keys: _containers.RepeatedCompositeFieldContainer[ApiKey]
    def __init__(self, name: _Optional[str] = ..., plan: _Optional[str] = ..., apis: _Optional[_Iterable[str]] = ..., api_keys: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ...) -> None: ...

class PythonPolicy(_message.Message):
    __slots__ = ("name", "file", "function", "source", "modules")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: str
    function: str
    source: bytes
    modules: _containers.RepeatedCompositeFieldContainer[PythonModule]
    def __init__(self, name: _Optional[str] = ..., file: _Optional[str] = ..., function: _Optional[str] = ..., source: _Optional[bytes] = ..., modules: _Optional[_Iterable[_Union[PythonModule, _Mapping]]] = ...) -> None: ...

class PythonProcessor(_message.Message):
    __slots__ = ("name", "file", "class_name", "source", "modules")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    name: str
    file: str
    class_name: str
    source: bytes
    modules: _containers.RepeatedCompositeFieldContainer[PythonModule]
    def __init__(self, name: _Optional[str] = ..., file: _Optional[str] = ..., class_name: _Optional[str] = ..., source: _Optional[bytes] = ..., modules: _Optional[_Iterable[_Union[PythonModule, _Mapping]]] = ...) -> None: ...

class PythonModule(_message.Message):
    __slots__ = ("file", "source")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    file: str
    source: bytes
    def __init__(self, file: _Optional[str] = ..., source: _Optional[bytes] = ...) -> None: ...

class Users(_message.Message):
    __slots__ = ("name", "users")
    NAME_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    users: _containers.RepeatedCompositeFieldContainer[User]
    def __init__(self, name: _Optional[str] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("name", "bcrypt")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BCRYPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    bcrypt: str
    def __init__(self, name: _Optional[str] = ..., bcrypt: _Optional[str] = ...) -> None: ...

class Validation(_message.Message):
    __slots__ = ("name", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class GrpcMethods(_message.Message):
    __slots__ = ("name", "descriptors", "colons_in_ids", "ignore_query", "ignore_unknown_fields")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    COLONS_IN_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_QUERY_FIELD_NUMBER: _ClassVar[int]
    IGNORE_UNKNOWN_FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    descriptors: bytes
    colons_in_ids: bool
    ignore_query: _containers.RepeatedScalarFieldContainer[str]
    ignore_unknown_fields: bool
    def __init__(self, name: _Optional[str] = ..., descriptors: _Optional[bytes] = ..., colons_in_ids: _Optional[bool] = ..., ignore_query: _Optional[_Iterable[str]] = ..., ignore_unknown_fields: _Optional[bool] = ...) -> None: ...

class Mock(_message.Message):
    __slots__ = ("name", "document", "base_path", "plans", "dynamic")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    BASE_PATH_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_FIELD_NUMBER: _ClassVar[int]
    name: str
    document: bytes
    base_path: str
    plans: _containers.RepeatedScalarFieldContainer[str]
    dynamic: bool
    def __init__(self, name: _Optional[str] = ..., document: _Optional[bytes] = ..., base_path: _Optional[str] = ..., plans: _Optional[_Iterable[str]] = ..., dynamic: _Optional[bool] = ...) -> None: ...

class Composition(_message.Message):
    __slots__ = ("name", "kind", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class Waf(_message.Message):
    __slots__ = ("name", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...
