"""Parts of OpenAPI documents whose form nobody has checked: mappings and lists where there should be some, and the path of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from filters.validation.documents import DocumentError
from filters.validation.faults import pointer

Pointer = tuple[str, ...]
"""The keys from the top of a document to a part of it."""


def mapping(owner: Mapping[str, Any], name: str, where: Pointer) -> Mapping[str, Any]:
    """Return a mapping of an object, an empty one if it is absent or null. Raises DocumentError."""
    value = owner.get(name)
    if value is not None and not isinstance(value, dict):
        raise DocumentError(f"{pointer((*where, name))} is no mapping")
    return value or {}


def sequence(owner: Any, name: str, where: Pointer) -> Sequence[Any]:
    """Return a list of an object, an empty one if it is absent or null. Raises DocumentError."""
    value = owner.get(name) if isinstance(owner, dict) else None
    if value is not None and not isinstance(value, list):
        raise DocumentError(f"{pointer((*where, name))} is no list")
    return value or ()


def base_path(document: Mapping[str, Any]) -> str:
    """Return the path of the first server. Raises DocumentError."""
    servers = sequence(document, "servers", ())
    if not servers or not isinstance(servers[0], dict):
        return ""
    where = ("servers", "0")
    url = str(servers[0].get("url", "/"))
    variables = mapping(servers[0], "variables", where)
    for name in variables:
        default = mapping(variables, name, (*where, "variables")).get("default", "")
        url = url.replace(f"{{{name}}}", str(default))
    try:
        return urlsplit(url).path
    except ValueError as error:
        raise DocumentError(f"{pointer((*where, 'url'))} is no URL: {error}") from None
