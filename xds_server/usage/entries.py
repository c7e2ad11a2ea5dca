"""The entries of an Export message: opentelemetry/proto/collector/logs/v1/logs_service.proto."""

from __future__ import annotations

import re
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos.usage_pb2 import ExportLogsServiceRequest
from xds_server.translate.usage_entry import SEPARATOR, VERSION

LONGEST = 255
"""The maximum number of bytes of a name. The gateway language allows 128."""
ABSENT = "-"
"""Envoy's word for a value that a request does not have."""

_NUMBER = r"\d{1,15}"  # so that sums fit into 64 bits
_NAME = rf"[^\x00-\x1f\x7f]{{1,{LONGEST}}}"
_ENTRY = re.compile(
    SEPARATOR.join(
        (
            VERSION,
            r"[0-9a-f-]{36}",
            _NUMBER,
            r"\d{1,3}",
            _NUMBER,
            _NUMBER,
            rf"(?:{_NUMBER}|{ABSENT})",
            _NAME,
            _NAME,
            _NAME,
        )
    ).encode()
)


class MalformedExport(Exception):  # noqa: N818 - a fact about a message, reported to its sender
    """The bytes are not an Export message."""


class Entries(NamedTuple):
    """The good entries of a message, and the number of its records that are not entries of this version."""

    good: list[bytes]
    rejected: int


def entries(message: bytes) -> Entries:
    """Return the entries of a message. Raises MalformedExport."""
    try:
        export = ExportLogsServiceRequest.FromString(message)
    except DecodeError:
        raise MalformedExport("the message is not an ExportLogsServiceRequest") from None
    found = [
        record.body.string_value
        for resource in export.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    matches = _ENTRY.fullmatch
    good = [entry for entry in found if matches(entry)]
    return Entries(good, len(found) - len(good))
