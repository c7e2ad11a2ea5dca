"""The first look at an OpenAPI document: its size, its syntax and its version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from filters.api_documents.faults import DocumentFaults, Fault, check_size
from filters.language.problems import short_repr
from filters.validation.documents import DocumentError, parsed

_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escaped half of a character (a surrogate), which no page can show without the other one."""


def opened(content: bytes) -> tuple[Mapping[str, Any], str]:
    """Return the value of a document and its version: 3.0, 3.1 or 3.2. Raises DocumentFaults."""
    check_size(content)
    try:
        value = parsed.__wrapped__(content)  # references are kept, so documents need not be
    except DocumentError as error:
        found = _LINE.fullmatch(str(error))
        line, message = (int(found[1]), found[2]) if found else (1, str(error))
        raise DocumentFaults(Fault(message=message, line=line, column=1)) from None
    if _HALF.search(content):
        value = _without_halves(value)
    version = str(value.get("openapi", "")) if isinstance(value, dict) else ""
    if not re.fullmatch(r"3\.[0-2]\.\d+(-.*)?", version):
        is_older = isinstance(value, dict) and "swagger" in value
        raise DocumentFaults(
            Fault(
                message="this is no OpenAPI document of version 3.0, 3.1 or 3.2",
                path=("swagger",) if is_older else ("openapi",),
                line=0 if isinstance(value, dict) and (is_older or "openapi" in value) else 1,
                column=1,
                value=short_repr(value.get("swagger") if is_older else version)
                if isinstance(value, dict)
                else None,
                remedy="convert it to OpenAPI 3.1" if is_older else "begin it with openapi: 3.1.0",
            )
        )
    return value, version


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_halves(one) for one in value]
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(one) for name, one in value.items()}
    return value
