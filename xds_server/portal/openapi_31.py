"""OpenAPI 3.2 documents as documents of version 3.1, for generators of clients that know no newer one. It does no IO.

What 3.2 adds is either a remark that clients need not know, such as the parent of a tag, or a thing that 3.1 cannot say, such as
the method QUERY. A document with one of the latter stays as it is, because its client would lack a part of the API.
https://spec.openapis.org/oas/v3.2.0.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from filters.api_documents.faults import DocumentFaults
from filters.api_documents.openapi_versions import opened

_VERSION = "3.1.1"
_MAYBE_NEWER = re.compile(rb"openapi[\"']?\s*:\s*[\"']?3\.2\.")
_ONLY_3_2 = frozenset({"additionalOperations", "itemSchema", "itemEncoding", "prefixEncoding", "mediaTypes"})
_PATHS = ("paths", "webhooks")


@lru_cache(maxsize=16)
def is_sayable(content: bytes) -> bool:
    """True if version 3.1 can say all of a document that is valid."""
    return not _MAYBE_NEWER.search(content) or as_31(content) is not None


def as_31(content: bytes) -> bytes | None:
    """Return a document in version 3.1 or 3.0, None if it has a part that only 3.2 can say."""
    if not _MAYBE_NEWER.search(content):
        return content
    try:
        value, version = opened(content)
    except DocumentFaults:
        return None
    if not version.startswith("3.2."):
        return content
    if any(_is_newer(one) for one in _objects(value)) or any("query" in one for one in _path_items(value)):
        return None
    return json.dumps(_written(value)).encode()


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _is_newer(one: Mapping[str, Any]) -> bool:
    return not _ONLY_3_2.isdisjoint(one) or one.get("in") == "querystring"


def _path_items(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    components = value.get("components")
    some = [value.get(key) for key in _PATHS]
    some.append(components.get("pathItems") if isinstance(components, dict) else None)
    for items in some:
        if isinstance(items, dict):
            yield from (one for one in items.values() if isinstance(one, dict))


def _written(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the version 3.1, and with the descriptions of responses that 3.1 wants."""
    for one in _objects(value):
        responses = one.get("responses")
        for response in responses.values() if isinstance(responses, dict) else ():
            if isinstance(response, dict) and "$ref" not in response:
                response.setdefault("description", "")
    return {key: one for key, one in value.items() if key != "$self"} | {"openapi": _VERSION}
