"""A condition on a text of a response or of a request, such as its body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from filters.language import Mistake, Shorthand, option
from xds_server.gateway.model.actions import check_regex


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMatch:
    """The condition on a body. A line end at its end does not count."""

    SHORTHAND: ClassVar[Shorthand] = Shorthand(
        (str, int, float, bool), "the exact text", {"type": ["string", "number", "boolean"]}
    )
    exact: str | None = option("Equal to this.", default=None, multiline=True)
    contains: str | None = option("Contains this.", default=None, multiline=True)
    regex: str | None = option("Matches this RE2 as a whole.", default=None, multiline=True)

    @classmethod
    def short(cls, value: Any) -> TextMatch:
        """Return a match of an exact text."""
        return cls(exact=str(value).lower() if isinstance(value, bool) else str(value))

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if there is not exactly one condition."""
        if sum(one is not None for one in (self.exact, self.contains, self.regex)) != 1:
            yield Mistake("exactly one of exact, contains and regex is needed", "keep one")
        if self.regex:
            yield from check_regex(self.regex)
