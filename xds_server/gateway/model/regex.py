"""Regular expressions of Envoy are RE2. RE2 itself finds here the expressions that Envoy would reject."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

from filters.language import Mistake

REMEDY = "rewrite the expression"
LARGEST = 2000
"""The maximum number of instructions in the program that RE2 compiles an expression to.

Our bootstraps set it in Envoy's runtime (`re2.max_program_size.error_level`), because Envoy's own limit of 100 is too
small for ``\\p{L}``, for templates of more than six names, and for long paths with escapes.
"""
_QUIET = re2.Options()
_QUIET.log_errors = False
_BYTES = re2.Options()
_BYTES.log_errors = False
_BYTES.encoding = re2.Options.Encoding.LATIN1
"""As Envoy compiles: it knows no characters above U+00FF."""


@lru_cache(maxsize=65536)
def compiled(pattern: str) -> Any:
    """Return the compiled expression. Raises Mistake with RE2's own message."""
    try:
        return re2.compile(pattern, _QUIET)
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise Mistake(f"RE2 rejects this: {text}", REMEDY, value=pattern) from None


@lru_cache(maxsize=65536)
def _compiled_by_envoy(pattern: str) -> Any:
    try:
        return re2.compile(pattern.encode(), _BYTES)
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise Mistake(
            f"Envoy's RE2, which reads bytes, rejects this: {text}", REMEDY, value=pattern
        ) from None


def check(pattern: str) -> None:
    """Raise Mistake if Envoy would reject an expression."""
    size = max(compiled(pattern).programsize, _compiled_by_envoy(pattern).programsize)
    if size > LARGEST:
        raise Mistake(
            f"RE2 compiles this to {size} instructions, and Envoy accepts at most {LARGEST}",
            "write a shorter expression, with fewer repetitions, Unicode classes and names",
            value=pattern,
        )


def matches(pattern: str, text: str) -> bool:
    """True if an expression matches a whole text."""
    return compiled(pattern).fullmatch(text) is not None


def extremes(pattern: str, length: int) -> tuple[bytes, bytes]:
    """Return the smallest and the largest text that an expression can match as a whole, rounded to `length` bytes.

    RE2 does not respect assertions such as ``\\b``. Raises Mistake if RE2 rejects the expression.
    """
    try:
        low, high = compiled(pattern).possiblematchrange(length)
    except re2.error:  # RE2 knows nothing of it
        return b"", b"\xff"
    return low, high
