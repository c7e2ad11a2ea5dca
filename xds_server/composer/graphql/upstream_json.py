"""The JSON of answers and events of upstreams."""

from __future__ import annotations

import re
from math import isinf
from typing import Any

import jiter

_PERHAPS_TOO_LARGE = re.compile(rb"[eE]\+?\d{3}|\d{309}")
"""What a text has if one of its numbers is too large for a float (IEEE 754 binary64)."""


def decoded(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for a number that no response could have, such as 1e999."""
    value = jiter.from_json(content, allow_inf_nan=False, cache_mode="keys")
    if _PERHAPS_TOO_LARGE.search(content) and _is_infinite(value):
        raise ValueError("a number is too large")
    return value


def _is_infinite(value: Any) -> bool:
    """True if a value has a number that is not finite."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, float) and isinf(one):
            return True
    return False
