from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class DecodeRequest(_message.Message):
    __slots__ = ("body", "codings", "limit")
    BODY_FIELD_NUMBER: _ClassVar[int]
    CODINGS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    codings: str
    limit: int
    def __init__(self, body: _Optional[bytes] = ..., codings: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class DecodeResponse(_message.Message):
    __slots__ = ("body", "status", "message")
    BODY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    status: int
    message: str
    def __init__(self, body: _Optional[bytes] = ..., status: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
