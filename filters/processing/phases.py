"""The phases of an HTTP exchange in which processors take part, and Envoy's processing mode for them."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Literal

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
Side = Literal["request", "response"]
PIECES = frozenset({Phase.REQUEST_CHUNK, Phase.RESPONSE_CHUNK})
BUFFERED = frozenset({Phase.REQUEST_BODY, Phase.RESPONSE_BODY})
"""Phases for which Envoy holds a whole message back, so that no stream passes."""


class Body(StrEnum):
    """What the processors of an exchange want of the body that follows headers, if it differs from the route's mode."""

    SIZED = "sized"
    """They want it as a whole, and it has a content-length."""
    UNSIZED = "unsized"
    """They want it as a whole, and it has none."""
    UNSEEN = "unseen"
    """They do not want it."""


_BODY_MODES = {
    Body.SIZED: pb.ProcessingMode.BUFFERED,
    Body.UNSIZED: pb.ProcessingMode.BUFFERED_PARTIAL,
    Body.UNSEEN: pb.ProcessingMode.NONE,
}
"""With BUFFERED, Envoy stops reading a body without a length at its limit, and then waits for the rest."""


def mode(phases: Phases, side: Side = "request", body: Body | None = None) -> pb.ProcessingMode:
    """Envoy's processing mode of a route with these phases, or of one exchange whose next `body` is known.

    A route never begins with a buffered body: Envoy would buffer it even before the response to its headers, and reject
    a large one that no processor wants. Trailers are sent where they end a body in pieces.
    """
    request, response = _pieces(phases, "request"), _pieces(phases, "response")
    result = pb.ProcessingMode(
        request_header_mode=pb.ProcessingMode.SEND,
        response_header_mode=_sent(any(one.startswith("response") for one in phases)),
        request_body_mode=pb.ProcessingMode.STREAMED if request else pb.ProcessingMode.NONE,
        response_body_mode=pb.ProcessingMode.STREAMED if response else pb.ProcessingMode.NONE,
        request_trailer_mode=_sent(request),
        response_trailer_mode=_sent(response),
    )
    if body is not None and side == "request":
        result.request_body_mode = _BODY_MODES[body]
        result.request_trailer_mode = pb.ProcessingMode.SKIP
    elif body is not None:
        result.response_body_mode = _BODY_MODES[body]
        result.response_trailer_mode = pb.ProcessingMode.SKIP
    return result


def _pieces(phases: Phases, side: Side) -> bool:
    """True if the body of a side is given in pieces. If a processor wants it as a whole, no processor gets pieces."""
    return f"{side}_chunk" in phases and f"{side}_body" not in phases


def _sent(wanted: bool) -> pb.ProcessingMode.HeaderSendMode:
    return pb.ProcessingMode.SEND if wanted else pb.ProcessingMode.SKIP
