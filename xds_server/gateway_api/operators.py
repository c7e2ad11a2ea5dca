"""Which of Envoy's command operators a policy of a cluster may have: those that can neither fail nor read what is not its own.

Envoy rejects all routes of a listener if the argument of one operator is wrong, and some operators read the environment of
Envoy, or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from filters.language import Path, Problem
from filters.operators import OPERATORS

_ANY = re.compile(r"%%|%([A-Z][A-Z0-9_]*)(\([^%]*\))?(:[0-9]+)?%")
_NAME = r"[A-Za-z0-9_-]+"
_WITH_NAME = ("REQ", "RESP", "REQUEST_HEADER", "TRAILER", "RESPONSE_TRAILER")
_HEADER = re.compile(rf"\(:?{_NAME}(\?:?{_NAME})?\)")
_PARAMETER = re.compile(rf"\({_NAME}\)")


def problems(value: Any, path: Path) -> Iterator[Problem]:
    """Yield a problem for each operator in the texts of a value that a policy may not have."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from problems(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from problems(one, (*path, number))
    elif isinstance(value, str):
        for found in _ANY.finditer(value):
            if found[0] != "%%" and not _allowed(found[1], found[2] or "", found[3] or ""):
                message = f"the operator {found[0]} is not taken from a policy of a cluster"
                remedy = "use one without an argument, %REQ(NAME)%, %RESP(NAME)% or %QUERY_PARAM(NAME)%"
                yield Problem(path=path, message=message, remedy=remedy)


def _allowed(name: str, argument: str, length: str) -> bool:
    if name in _WITH_NAME:
        return _HEADER.fullmatch(argument) is not None
    if name == "QUERY_PARAM":
        return _PARAMETER.fullmatch(argument) is not None and not length
    return OPERATORS.get(name) is False and not argument and not length
