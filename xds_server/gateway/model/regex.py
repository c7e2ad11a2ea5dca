"""Regular expressions are RE2, and Envoy compiles them: RE2 itself says here what Envoy would not take."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|\(\?P?<\w+>|\(\?|.", re.DOTALL)
_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)
_DOLLAR = re.compile(r"\$(?:\d|\{\w+\})")


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


def check_substitution(pattern: str, substitution: str) -> Iterator[Mistake]:
    """Yield what is wrong with the text that takes the place of a match in a path."""
    groups = compiled(pattern).groups
    for found in _REFERENCE.finditer(substitution):
        if found[1] == "\\":
            continue
        if not found[1].isascii() or not found[1].isdigit():
            yield Mistake(
                f"'{found[0]}' is no reference to a group", "write \\1 for the first group, \\\\ for \\"
            )
            return
        if int(found[1]) > groups:
            has = f"has only {groups}" if groups else "has none"
            yield Mistake(
                f"there is no group {found[0]}: the expression {has}", "add the group, or remove it"
            )
            return
    if dollar := _DOLLAR.search(substitution):
        yield Mistake(f"'{dollar[0]}' is no reference to a group here", "write \\1 for the first group")
    elif "?" in substitution or "#" in substitution:
        yield Mistake("a path has no ? and no #", "the query of the request goes on as it is; remove it")
    elif _may_match_the_beginning(pattern) and not _begins_with_slash(pattern, substitution):
        yield Mistake(
            "the rewritten path would not always begin with /",
            "begin the substitution with /, or with a group that begins with /",
        )


def _may_match_the_beginning(pattern: str) -> bool:
    """Whether a match may include the slash at the beginning of every path."""
    first = next((one for one in _TOKENS.findall(pattern) if one != "^"), "")
    if first.startswith("[^") and "/" in first:
        return False
    try:
        low, high = compiled(pattern).possiblematchrange(10)
    except re2.error:
        return True  # nothing is known of an expression that may begin with anything
    return bool(high) and low <= b"/\xff" and high >= b"/"


def _begins_with_slash(pattern: str, substitution: str) -> bool:
    if substitution.startswith(("/", "\\0")):
        return True
    reference = re.match(r"\\([1-9])", substitution)
    return reference is not None and _group_begins_with_slash(pattern, int(reference[1]))


def _group_begins_with_slash(pattern: str, number: int) -> bool:
    """Whether every text of a group begins with a slash, as far as that is easily told."""
    tokens = _TOKENS.findall(pattern)
    opened = [at for at, one in enumerate(tokens) if one == "(" or one.startswith(("(?P<", "(?<"))]
    begin, depth = opened[number - 1], 0
    for at in range(begin, len(tokens)):
        depth += tokens[at].startswith("(")
        depth -= tokens[at] == ")"
        if tokens[at] == "|" and depth == 1:
            return False
        if depth == 0:
            optional = at + 1 < len(tokens) and tokens[at + 1] in "?*{"
            first, second = tokens[begin + 1], tokens[begin + 2]
            return first in ("/", r"\/") and second not in ("?", "*", "{") and not optional
    return False
