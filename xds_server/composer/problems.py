"""Responses of the composer that are errors: problem+json (RFC 9457) with a reason, as those of Envoy for the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from filters.composer_reasons import BY_NAME
from xds_server.composer.json_values import encode
from xds_server.composer.messages import Request, Response
from xds_server.translate.composer_entry import REASON_HEADER

Overrides = Mapping[str, Mapping[str, Any]]
"""The overrides of a gateway (`errors:`), by reason."""


def problem(
    request: Request,
    reason: str,
    status: int | None = None,
    *,
    overrides: Overrides,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Return the response for a reason. `status` replaces that of the reason, and `more` are further members of the problem."""
    known = BY_NAME[reason]
    override = overrides.get(reason, {})
    status = override.get("status") or status or known.status or 500
    if (body := override.get("body")) is None:
        body = {
            "type": override.get("type") or "about:blank",
            "title": override.get("title") or known.title,
            "status": status,
            "reason": reason,
            "request_id": request.id,
            **({"detail": override["detail"]} if override.get("detail") else {}),
            **(more or {}),
            **request.gateway_version,
        }
    headers = (
        ("content-type", "application/problem+json"),
        (REASON_HEADER, reason),
        ("cache-control", "no-store"),
        *override.get("headers", {}).items(),
    )
    return Response(status=status, headers=headers, body=encode(body), outcome=reason)
