"""errors: changes of the responses that the gateway itself makes (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from filters.headers import check_plain_headers
from filters.language import Mistake, option

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOverride:
    """Another response for one reason, such as `no_healthy_upstream`."""

    status: int | None = option("The status.", default=None, minimum=400, maximum=599)
    headers: Mapping[str, str] = option("More response headers.", default=_EMPTY)
    title: str | None = option("The problem's `title`.", default=None, multiline=True)
    detail: str | None = option("The problem's `detail`.", default=None, multiline=True)
    type: str | None = option("The problem's `type`, a URI.", default=None)
    body: Mapping[str, Any] | None = option("The whole body as JSON, instead of the problem.", default=None)

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes of the headers, and a mistake if `body` replaces the other texts."""
        yield from check_plain_headers(self.headers)
        if self.body is not None and (self.title or self.detail or self.type):
            yield Mistake("'body' replaces title, detail and type", "keep one or the other", path=("body",))
