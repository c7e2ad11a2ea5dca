"""Regular expressions are RE2, and Envoy compiles them: RE2 itself says here what Envoy would not take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

from filters.language import Mistake

REMEDY = "rewrite the expression"
LARGEST = 2000
"""Instructions of the program that RE2 makes of an expression. Our bootstraps set it in Envoy's runtime
(`re2.max_program_size.error_level`): Envoy's own bound of 100 is too small for ``\\p{L}``, for templates of more than
six names and for long paths with escapes."""
_QUIET = re2.Options()
_QUIET.log_errors = False


@lru_cache(maxsize=65536)
def compiled(pattern: str) -> Any:
    """The compiled expression. Raises Mistake with RE2's own words."""
    try:
        return re2.compile(pattern, _QUIET)
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise Mistake(f"RE2 does not take this: {text}", REMEDY, value=pattern) from None


def check(pattern: str) -> None:
    """Raise a Mistake if Envoy would not take an expression."""
    size = compiled(pattern).programsize
    if size > LARGEST:
        raise Mistake(
            f"RE2 makes {size} instructions of this, and Envoy is told to take at most {LARGEST}",
            "write a shorter expression, with fewer repetitions, Unicode classes and names",
            value=pattern,
        )


def matches(pattern: str, text: str) -> bool:
    """Whether an expression matches a whole text."""
    return compiled(pattern).fullmatch(text) is not None
