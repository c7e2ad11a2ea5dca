"""Serialized ProcessingResponses. Equal responses without a body are built once."""

from __future__ import annotations

import json
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import wrappers_pb2

from filters.processing.exchange import GRPC, Changes, Failure
from filters.processing.names import NOTES
from filters.processing.phases import Body, Phase, mode
from filters.processing.plan import side_of
from filters.processing.values import REJECTED, Answer

KINDS = (
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
)
"""The kinds of messages. A response has the kind of its message."""
UNCHANGED = {
    kind: pb.ProcessingResponse(**{kind: {}}).SerializeToString()  # type: ignore[arg-type]
    for kind in KINDS
}
"""The responses that let a message pass as it is."""
RESPONDED = "processor_responded"
"""The details of an answer whose body a processor wrote."""
MOST_KEPT = 512
_Values = tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]


def changed(kind: str, changes: Changes, phases: frozenset[Phase], *, other_mode: bool = False) -> bytes:
    """The response with these changes. `phases` are those of the processors.

    If `other_mode`, Envoy's mode for the route is that of another version.
    """
    if changes.body is not None or changes.note:
        return _changed(kind, changes, phases, other_mode).SerializeToString()
    if not (changes.removed or changes.values or changes.status or changes.next or other_mode):
        return UNCHANGED[kind]
    values = tuple((name, tuple(several)) for name, several in changes.values.items())
    removed = frozenset(changes.removed)
    return _kept(kind, removed, values, changes.status, changes.next, phases, other_mode)


@lru_cache(MOST_KEPT)
def _kept(
    kind: str,
    removed: frozenset[str],
    values: _Values,
    status: int | None,
    body: Body | None,
    phases: frozenset[Phase],
    other_mode: bool,
) -> bytes:
    changes = Changes(
        removed=set(removed),
        values={name: list(several) for name, several in values},
        status=status,
        next=body,
    )
    return _changed(kind, changes, phases, other_mode).SerializeToString()


def _changed(
    kind: str, changes: Changes, phases: frozenset[Phase], other_mode: bool
) -> pb.ProcessingResponse:
    response = pb.ProcessingResponse()
    common = getattr(response, kind).response
    mutation = common.header_mutation
    mutation.remove_headers.extend(sorted(changes.removed))
    for name, several in changes.values.items():
        mutation.set_headers.extend(_header(name, value, append=beside) for value, beside in several)
    if changes.status is not None:
        mutation.set_headers.append(_header(":status", str(changes.status)))
    if changes.body:
        common.body_mutation.body = changes.body
    elif changes.body is not None:
        common.body_mutation.clear_body = True
    if changes.next is not None or (other_mode and kind.endswith("headers")):
        response.mode_override.CopyFrom(mode(phases, side_of(kind), changes.next))
    _write(response, changes.note)
    return response


def _write(response: pb.ProcessingResponse, note: tuple[tuple[str, str], ...]) -> None:
    """Write values for the access log."""
    if note:
        response.dynamic_metadata.update({NOTES: dict(note)})


def answered(answer: Answer) -> bytes:
    """The response that answers the client. Without a body of its own, the gateway writes the problem."""
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = answer.status  # type: ignore[assignment] # checked by respond()
    immediate.headers.set_headers.extend(
        _header(name, value, append=name == "set-cookie") for name, value in answer.headers
    )
    named = answer.body is None or answer.reason != REJECTED
    immediate.details = answer.reason if named else RESPONDED
    if answer.body is not None:
        immediate.body = answer.body
    _write(response, answer.note)
    return response.SerializeToString()


def failed(failure: Failure, request_id: str, content_type: str) -> bytes:
    """The response for a failure: a problem (RFC 9457), which for a client of gRPC is the message of the status."""
    response = pb.ProcessingResponse()
    immediate = response.immediate_response
    immediate.status.code = failure.status  # type: ignore[assignment]
    immediate.details = failure.reason
    problem = {
        "detail": failure.detail,
        "reason": failure.reason,
        "request_id": request_id,
        "status": failure.status,
        "title": TITLES[failure.reason],
        "type": "about:blank",
    }
    immediate.body = json.dumps(problem).encode()
    if not content_type.startswith(GRPC):
        immediate.headers.set_headers.append(_header("content-type", "application/problem+json"))
    return response.SerializeToString()


TITLES = {
    "processor_failed": "A processor failed",
    "processor_timeout": "A processor did not finish in time",
    "processor_missing": "A processor of this route does not exist",
    "processor_stream": "A stream cannot be processed as a whole",
    "body_too_large": "The request body is too large",
    "response_too_large": "The response body is too large",
    "unsupported_content_coding": "The content coding is not supported",
    "malformed_content_coding": "The body does not have its content coding",
}
"""Titles of failures, by reason."""


def _header(name: str, value: str, *, append: bool = False) -> base_pb2.HeaderValueOption:
    """A header. ext_proc takes its value as bytes, and reads `append` and not the newer `append_action`."""
    raw = base_pb2.HeaderValue(key=name, raw_value=value.encode())
    return base_pb2.HeaderValueOption(header=raw, append=wrappers_pb2.BoolValue(value=append))
