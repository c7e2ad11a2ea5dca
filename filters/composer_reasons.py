"""Reasons of responses that the composer makes instead of Envoy. They have no condition, because no local reply has them."""

from __future__ import annotations

from filters.reasons import Reason


def _reason(name: str, title: str, status: int | None) -> Reason:
    return Reason(name=name, title=title, status=status, when="false")


REASONS = (
    _reason("call_rejected", "A service that this answer needs has rejected the request", None),
    _reason("call_failed", "A service that this answer needs has failed", 502),
    _reason("call_timeout", "A service that this answer needs did not respond in time", 504),
    _reason("value_missing", "The request lacks a value that this answer needs", 400),
    _reason("malformed_body", "The request body is malformed", 400),
    _reason("unsupported_media_type", "The content type is not supported", 415),
    _reason("body_too_large", "The request body is too large", 413),
    _reason("composition_unknown", "The composer does not know this route yet", 503),
    _reason("overloaded", "The gateway is overloaded", 503),
    _reason("internal_error", "The gateway encountered an internal error", 500),
)
"""The status of `call_rejected` is that of the service."""
BY_NAME = {one.name: one for one in REASONS}
