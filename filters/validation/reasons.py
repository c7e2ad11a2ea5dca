"""The reasons for which messages are invalid."""

from __future__ import annotations

from collections.abc import Mapping

TITLES: Mapping[str, str] = {
    "invalid_request": "The request is invalid",
    "invalid_response": "The upstream's response is invalid",
    "malformed_body": "The request body is malformed",
    "method_not_allowed": "The method is not allowed for this path",
    "not_found": "The API has no such path",
    "unsupported_charset": "The charset of the request body is not supported",
    "unsupported_media_type": "The content type is not supported",
}
STATUSES: Mapping[str, int] = {
    "invalid_request": 400,
    "invalid_response": 500,
    "malformed_body": 400,
    "method_not_allowed": 405,
    "not_found": 404,
    "unsupported_charset": 415,
    "unsupported_media_type": 415,
}
