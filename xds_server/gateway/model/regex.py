"""Regular expressions are RE2, and Envoy compiles them: what RE2 does not have is told before that."""

from __future__ import annotations

import re
from functools import lru_cache

REMEDY = "rewrite the expression"
MOST_REPETITIONS = 1000
_TOKENS = re.compile(r"\\(?P<escaped>.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|.", re.DOTALL)
_FOREIGN = re.compile(r"\(\?(?:[=!>(#]|<[=!]|P=|[a-zA-Z]*[aLux])|[*+?}]\+")
_REPETITION = re.compile(r"\{(\d+)(?:,(\d*))?\}")


@lru_cache(maxsize=65536)
def fault(pattern: str) -> str | None:
    """Why RE2 does not take a pattern, or None."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"not a regular expression: {error}"
    tokens = list(_TOKENS.finditer(pattern))
    if any(token["escaped"] and token["escaped"] in "123456789ZuUN" for token in tokens):
        return "RE2 has no back-references, and no \\Z, \\u and \\N"
    outside = "".join("x" if token["escaped"] or token["set"] else token[0] for token in tokens)
    if _FOREIGN.search(outside):
        return "RE2 has no look-around, conditions, comments, atomic groups and possessive quantifiers"
    counts = (int(number) for found in _REPETITION.findall(outside) for number in found if number)
    return (
        f"RE2 repeats at most {MOST_REPETITIONS} times" if max(counts, default=0) > MOST_REPETITIONS else None
    )
