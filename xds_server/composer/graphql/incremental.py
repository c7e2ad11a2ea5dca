"""Responses in parts: `@defer` and `@stream` as multipart/mixed.

https://github.com/graphql/graphql-over-http/blob/main/rfcs/IncrementalDelivery.md, with the payloads that have `pending`, `incremental` and `completed`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from graphql.execution import ExperimentalIncrementalExecutionResults

from filters.graphql import errors
from xds_server.composer.graphql.loading import Loader

CONTENT_TYPE = 'multipart/mixed; boundary="-"'
_PART = b"\r\n---\r\ncontent-type: application/json; charset=utf-8\r\n\r\n"
_END = b"\r\n-----\r\n"


async def parts(found: ExperimentalIncrementalExecutionResults, loader: Loader) -> AsyncGenerator[bytes]:
    """Yield the parts of a response. Closing the iterator cancels the calls."""
    try:
        initial: dict[str, Any] = dict(found.initial_result.formatted)
        yield _part(initial, found.initial_result)
        async for one in found.subsequent_results:
            value: dict[str, Any] = dict(one.formatted)
            for key, results in (("incremental", one.incremental), ("completed", one.completed)):
                if results:
                    value[key] = [_with_errors(result.formatted, result) for result in results]
            yield _part(value, one)
        yield _END
    finally:
        await found.subsequent_results.aclose()
        await loader.close()


def _part(value: Mapping[str, Any], found: Any) -> bytes:
    text = json.dumps(_with_errors(value, found), ensure_ascii=False, separators=(",", ":"))
    return _PART + text.encode("utf-8", "replace")


def _with_errors(value: Mapping[str, Any], found: Any) -> Mapping[str, Any]:
    """A payload with its errors as clients get them."""
    own = getattr(found, "errors", None)
    return {**value, "errors": [errors.formatted(one) for one in own]} if own else value
