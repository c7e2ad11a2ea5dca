"""The phases of an HTTP exchange in which processors take part, and Envoy's processing mode for them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2 as pb


class Phase(StrEnum):
    """The phases. Each is also the name of the method that a processor has for it.

    A body is given as a whole (`BODY`), or in the pieces in which it arrives (`CHUNK`).
    """

    REQUEST_HEADERS = "request_headers"
    REQUEST_BODY = "request_body"
    REQUEST_CHUNK = "request_chunk"
    RESPONSE_HEADERS = "response_headers"
    RESPONSE_BODY = "response_body"
    RESPONSE_CHUNK = "response_chunk"


Phases = Collection[Phase]
PIECES = frozenset({Phase.REQUEST_CHUNK, Phase.RESPONSE_CHUNK})
BUFFERED = frozenset({Phase.REQUEST_BODY, Phase.RESPONSE_BODY})
"""Phases for which Envoy holds a whole message back, so that no stream passes."""


def mode(phases: Phases, body: Phase | None = None, *, sized: bool = True) -> pb.ProcessingMode:
    """Envoy's processing mode of a route with these phases, or for one exchange whose next `body` is to be buffered.

    A route never begins with a buffered body: Envoy would buffer it even before the response to its headers, and reject
    a large one that no processor wants. If such a body has no content-length (`sized` is false), only
    BUFFERED_PARTIAL is safe: with BUFFERED, Envoy stops reading at its limit and then waits for the rest. Trailers are
    sent where they end a body in pieces.
    """
    buffered = pb.ProcessingMode.BUFFERED if sized else pb.ProcessingMode.BUFFERED_PARTIAL
    request, response = _pieces(phases, "request"), _pieces(phases, "response")
    result = pb.ProcessingMode(
        request_header_mode=pb.ProcessingMode.SEND,
        response_header_mode=_sent(any(one.startswith("response") for one in phases)),
        request_body_mode=pb.ProcessingMode.STREAMED if request else pb.ProcessingMode.NONE,
        response_body_mode=pb.ProcessingMode.STREAMED if response else pb.ProcessingMode.NONE,
        request_trailer_mode=_sent(request),
        response_trailer_mode=_sent(response),
    )
    if body == Phase.REQUEST_BODY:
        result.request_body_mode = buffered
    elif body == Phase.RESPONSE_BODY:
        result.response_body_mode = buffered
    return result


def _pieces(phases: Phases, side: str) -> bool:
    """True if the body of a side is given in pieces. If a processor wants it as a whole, no processor gets pieces."""
    return f"{side}_chunk" in phases and f"{side}_body" not in phases


def _sent(wanted: bool) -> pb.ProcessingMode.HeaderSendMode:
    return pb.ProcessingMode.SEND if wanted else pb.ProcessingMode.SKIP
