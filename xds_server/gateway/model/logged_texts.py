"""Texts of access logs and spans with Envoy's command operators: what they read, and which of that contains secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from filters.language import Mistake, Path
from filters.operators import FORMAT, check_operators

_SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"))
_HEADERS = re.compile(r"%(?:REQ|REQUEST_HEADER|RESP|TRAILER|RESPONSE_TRAILER)\(([^()%]*)\)")
_QUERY = re.compile(
    r"%(?:REQ|REQUEST_HEADER)\([^()%]*(?::PATH|REFERER|X-ENVOY-ORIGINAL-PATH)[^()%]*\)|%QUERY_PARAMS\b"
    r"|%PATH(?!\(NQ)",
    re.IGNORECASE,
)
_CEL = re.compile(r"%CEL\(([^()%]*)\)")
_CEL_HEADERS = re.compile(r"\b(?:request|response)\.(?:headers|trailers)\[\s*(['\"])([A-Za-z0-9_-]+)\1\s*\]")
_CEL_SAFE = re.compile(
    r"\brequest\.(?:duration|host|id|method|protocol|scheme|size|time|total_size|url_path|useragent)\b"
    r"|\bresponse\.(?!headers\b|trailers\b)\w+"
)
"""Attributes of a request and a response without secrets.
https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/attributes
"""
_CEL_OBJECT = re.compile(r"\b(?:request|response)\b")
_PARAMETER = re.compile(r"%QUERY_PARAM\(([^()%]*)\)")


def logged_headers(text: str) -> Iterator[str]:
    """Yield the headers that operators in a text name, in lower case. `A?B` names two."""
    for names in _HEADERS.findall(text):
        yield from (name.strip().lower() for name in names.split("?"))
    for expression in _CEL.findall(text):
        yield from (name.lower() for _, name in _CEL_HEADERS.findall(expression))


def logged_parameters(text: str) -> Iterator[str]:
    """Yield the query parameters that operators in a text name."""
    yield from _PARAMETER.findall(text)


def check_logged_text(text: str, path: Path) -> Iterator[Mistake]:
    """Yield mistakes of the operators in a text, and of those that read what may contain a secret."""
    if not FORMAT.fullmatch(text):
        remedy = "write one line, %% for a percent sign, and operators such as %REQ(X-TENANT)%"
        yield Mistake("not a text with Envoy's command operators", remedy, path=path, value=text)
        return
    yield from check_operators(text, path)
    for header in logged_headers(text):
        if header in _SECRET_HEADERS:
            message = f"the header '{header}' contains secrets"
            yield Mistake(message, "log the field consumer instead", path=path, value=text)
    for expression in _CEL.findall(text):
        if _CEL_OBJECT.search(_CEL_SAFE.sub("", _CEL_HEADERS.sub("", expression))):
            message = "the expression reads what may contain secrets, such as the query"
            remedy = "name one attribute, such as request.url_path or request.headers['x-tenant']"
            yield Mistake(message, remedy, path=path, value=text)
    if _QUERY.search(text):
        message = "a query may contain secrets, such as keys and tokens"
        remedy = "write %PATH(NQ)% for the path, and name the parameters to log in 'query'"
        yield Mistake(message, remedy, path=path, value=text)
