"""Environment variables in texts: ``${NAME}``, ``${NAME:-default}`` (the default may have variables), ``$${`` for
``${``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from filters.language import Mistake

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-|\})")
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Python's representation of bytes in the environment that are not UTF-8."""
_BARE = re.compile(r"(?!~)\S*?(?<![$\\])(\$(?:[A-Z][A-Z0-9_]+|[A-Z](?![A-Za-z0-9_])))\S*")


@dataclass(slots=True)
class Interpolation:
    """A text with the values of its variables.

    `variables` are the variables that were looked up, None for an unset one. In `mistakes`, the value is what the
    user wrote.
    """

    text: str = ""
    variables: dict[str, str | None] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def interpolate(text: str, environment: Mapping[str, str]) -> Interpolation:
    """Return a text with its variables replaced. A default applies if a variable is unset or empty, as in shells."""
    interpolation = Interpolation()
    interpolation.text = _interpolate(text, environment, interpolation)
    return interpolation


def is_one(text: str) -> bool:
    """True if a text is one variable and nothing else."""
    return text.startswith("${") and _end(text, 0) == len(text)


def bare(text: str) -> str | None:
    """Return a variable without braces, such as ``$PORT``, or None if the text has none."""
    match = _BARE.fullmatch(text) if "${" not in text else None
    return match[1] if match is not None else None


_DEEPEST = 20
"""The maximum number of defaults within defaults."""


def _interpolate(text: str, environment: Mapping[str, str], interpolation: Interpolation) -> str:
    parts, at = [], 0
    while (begin := text.find("${", at)) >= 0:
        if begin > at and text[begin - 1] == "$":
            parts.append(text[at : begin - 1] + "${")
            at = begin + 2
            continue
        parts.append(text[at:begin])
        at = _end(text, begin)
        parts.append(_value(text[begin:at], environment, interpolation))
    return "".join(parts) + text[at:]


def _value(written: str, environment: Mapping[str, str], interpolation: Interpolation) -> str:
    if written.count("${") > _DEEPEST:
        interpolation.mistakes.append(
            Mistake("too many variables within each other", f"at most {_DEEPEST}", value=written)
        )
        return ""
    match = _VARIABLE.match(written)
    if match is None or not written.endswith("}"):
        interpolation.mistakes.append(
            Mistake("not a variable", "write ${NAME} or ${NAME:-default}", value=written)
        )
        return written
    name = match[1]
    value = interpolation.variables[name] = environment.get(name)
    if value is not None and not value.isprintable() and _SURROGATE.search(value):
        message, remedy = f"the environment variable {name} is not UTF-8", "set it to text"
        interpolation.mistakes.append(Mistake(message, remedy, value=written))
        return ""
    if match[2] == ":-":
        return value or _interpolate(written[match.end() : -1], environment, interpolation)
    if value is None:
        message, remedy = (
            f"the environment variable {name} is not set",
            f"set it, or write ${{{name}:-default}}",
        )
        interpolation.mistakes.append(Mistake(message, remedy, value=written))
    return value or ""


def _end(text: str, begin: int) -> int:
    """Return the end of the variable that begins at `begin`, or the end of the text if no brace closes it."""
    depth, at = 0, begin
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
            continue
        at += 1
        if text[at - 1] == "}":
            depth -= 1
            if depth == 0:
                return at
    return len(text)
