"""Compile a frozen dataclass into a decoder of plain YAML values that reports every problem with its path.

A decoder is a closure: it inspects types once, when it is compiled, and never while a gateway is read.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin

from filters.language import scalars
from filters.language.options import OFF, About, Mistake, Off, Raw, Shorthand
from filters.language.problems import Path, Problem, did_you_mean, short_repr


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()
"""The result of a decoder that has reported a problem."""


class Problems(list[Problem]):
    """The problems of one reading, and the files and objects that the values refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[tuple[Path, Any]] = []
        """Every decoded value of a class with ``REFERENCE = True`` (a DataSource), with its path."""
        self.names: list[tuple[Path, str, str]] = []
        """Every name that refers to an object: its path, the section and the name. They are verified at the end."""


Decoder = Callable[[Any, Path, Problems], Any]

_Known = Mapping[str, About]
"""The declaration of each key of a class, by the name of its field."""
_NO_ABOUT = About("")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters: headers, names and paths must not contain them, and editors do not show them."""


class _Redacted:
    def __str__(self) -> str:
        return "[redacted]"


REDACTED: Final = _Redacted()
"""Shown instead of a value that may be a secret, written in a key that takes only its hash."""
UINT32 = 2**32 - 1
"""The largest whole number of most of Envoy's fields, for keys that declare no other maximum."""


def _wrong(value: object, path: Path, problems: Problems, expected: str, remedy: str = "") -> _Invalid:
    problems.append(
        Problem(path=path, message=f"expected {expected}", value=short_repr(value), remedy=remedy)
    )
    return INVALID


def _written(number: float | None) -> str:
    return str(int(number)) if number is not None and number == int(number) else f"{number:g}"


def _bounds(about: About, problems: Problems, path: Path, value: Any, number: float) -> Any:
    low, high = about.minimum, about.maximum
    if high is None and isinstance(value, int) and value > UINT32:
        low, high = None, UINT32
    if (low is not None and number < low) or (high is not None and number > high):
        allowed = f"from {_written(low)} to {_written(high)}" if low is not None and high is not None else ""
        allowed = allowed or (f"at least {_written(low)}" if low is not None else f"at most {_written(high)}")
        message = f"expected a value {allowed}"
        problems.append(
            Problem(path=path, message=message, value=short_repr(value), remedy=f"write one {allowed}")
        )
        return INVALID
    return value


def _decoded(decode: Decoder, value: Any, path: Path, problems: Problems) -> Any:
    """Decode a value. A value from the environment is read as YAML without quotes, or as text if only that fits."""
    if value.__class__ is not scalars.FromVariable:
        return decode(value, path, problems)
    attempts = []
    for one in (value.plain, str(value)):
        attempt = Problems()
        result = decode(one, path, attempt)
        attempts.append(attempt)
        if result is not INVALID:
            break
    used = attempts[0] if result is INVALID else attempts[-1]
    problems += [_of_empty(problem) for problem in used] if result is INVALID and value == "" else used
    problems.references += used.references
    problems.names += used.names
    return result


def _of_empty(problem: Problem) -> Problem:
    message = f"{problem.message}, and the environment variable is empty"
    return dataclasses.replace(
        problem, message=message, remedy="set it, or write a default: ${NAME:-default}"
    )


def _string(about: About) -> Decoder:
    pattern = re.compile(about.pattern) if about.pattern else None
    what = about.shape or "text"

    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if type(value) is not str:
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            else:
                return _wrong(value, path, problems, what)
        if not about.multiline and (strange := _CONTROL.search(value)):
            problems.append(
                Problem(
                    path=path,
                    message=f"the character {strange[0]!r} is not allowed here",
                    value=short_repr(REDACTED if about.secret else value),
                    remedy="write the text in one line, without control characters",
                )
            )
            return INVALID
        if pattern is not None and not pattern.fullmatch(value):
            return _wrong(REDACTED if about.secret else value, path, problems, what)
        if about.refers:
            problems.names.append((path, about.refers, value))
        return value

    return decode


def _number(kind: type, about: About) -> Decoder:
    what = "a whole number" if kind is int else "a number"

    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            return _wrong(value, path, problems, what, f"write {what} without quotes")
        return _bounds(about, problems, path, value, value)

    return decode


def _boolean(value: Any, path: Path, problems: Problems) -> Any:
    if value is True or value is False:
        return value
    return _wrong(value, path, problems, "true or false", "write true or false")


def _scalar(parse: Callable[[object], Any], about: About) -> Decoder:
    def decode(value: Any, path: Path, problems: Problems) -> Any:
        try:
            parsed = parse(value)
        except ValueError as error:
            problems.append(Problem(path=path, message=str(error), value=short_repr(value)))
            return INVALID
        number = parsed.total_seconds() if isinstance(parsed, timedelta) else parsed
        return parsed if isinstance(number, scalars.Rate) else _bounds(about, problems, path, parsed, number)

    return decode


def _literal(choices: tuple[Any, ...]) -> Decoder:
    known = frozenset(choices)

    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if isinstance(value, str | int) and not isinstance(value, bool) and value in known:
            return value
        names = [str(choice) for choice in choices]
        near = did_you_mean(value, names) if isinstance(value, str) else ""
        remedy = near if near.startswith("did") else f"write {names[0]}"
        return _wrong(value, path, problems, "one of " + ", ".join(names), remedy)

    return decode


def _list(item: Decoder, about: About) -> Decoder:
    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list):
            return _wrong(
                value, path, problems, "a list", "write it as [ … ] or with a dash before each item"
            )
        if len(value) < about.minimum_items:
            return _wrong(value, path, problems, f"at least {about.minimum_items} item(s)")
        items = [_decoded(item, one, (*path, number), problems) for number, one in enumerate(value)]
        return INVALID if INVALID in items else tuple(items)

    return decode


def _mapping(item: Decoder, about: About) -> Decoder:
    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return _wrong(value, path, problems, "a mapping from name to value")
        if about.refers:
            problems.names += [((*path, name), about.refers, name) for name in value]
        items = {name: _decoded(item, one, (*path, name), problems) for name, one in value.items()}
        return INVALID if INVALID in items.values() else types.MappingProxyType(items)

    return decode


def _raw(value: Any, path: Path, problems: Problems) -> Any:
    return value if isinstance(value, dict) else _wrong(value, path, problems, "a mapping of Envoy's fields")


def _one_of(choices: list[Decoder], accepts: list[Callable[[Any], bool]], what: str) -> Decoder:
    """A union: the first member that accepts the shape of the value decodes it, so its problems are reported."""

    def decode(value: Any, path: Path, problems: Problems) -> Any:
        for accept, choice in zip(accepts, choices, strict=True):
            if accept(value):
                return choice(value, path, problems)
        return _wrong(value, path, problems, what)

    return decode


def _is_a(value: Any, kinds: tuple[type, ...]) -> bool:
    """True if a value is of one of these types; true and false are not numbers."""
    return type(value) in kinds or (isinstance(value, kinds) and type(value) is not bool)


def _accepts(annotation: Any) -> tuple[Callable[[Any], bool], str]:
    origin = get_origin(annotation)
    if annotation is Off:
        return (lambda value: value is False or value == "off"), "off"
    if annotation is bool:
        return (lambda value: isinstance(value, bool)), "true or false"
    if origin is tuple:
        return (lambda value: isinstance(value, list)), "a list"
    if dataclasses.is_dataclass(annotation) and annotation is not scalars.Rate:
        short = getattr(annotation, "SHORTHAND", None)
        takes: tuple[type, ...] = (dict, *(short.types if short else ()))
        return (lambda value: _is_a(value, takes)), short.what if short else "a mapping"
    if origin in (Mapping, dict) or annotation is Raw or origin is Mapping:
        return (lambda value: isinstance(value, dict)), "a mapping"
    if origin is Literal:
        choices = get_args(annotation)
        return (lambda value: _is_a(value, (str, int)) and value in choices), " or ".join(map(str, choices))
    if annotation in (int, float):
        return (lambda value: isinstance(value, int | float) and not isinstance(value, bool)), "a number"
    return (lambda value: isinstance(value, str | int | float) and not isinstance(value, bool)), "text"


def field_key(field: dataclasses.Field[Any]) -> str:
    """The YAML key of a field."""
    about = field.metadata.get("about", _NO_ABOUT)
    return about.key or field.name.rstrip("_")


def _shorten(cls: Any, known: _Known, value: Any, path: Path, problems: Problems) -> Any:
    try:
        result = cls.short(value)
    except Mistake as mistake:
        problems.append(_placed(mistake, path, value))
        return INVALID
    for name, about in known.items():
        text = getattr(result, name)
        if about.pattern and isinstance(text, str) and not re.fullmatch(about.pattern, text):
            return _wrong(REDACTED if about.secret else value, path, problems, about.shape or "text")
        if about.refers:
            problems.names += [(path, about.refers, one) for one in _referred(text)]
    if getattr(cls, "REFERENCE", False):
        problems.references.append((path, result))
    return result


def _referred(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _narrowing(decode: Decoder) -> Decoder:
    """A decoder of a key that selects some out of all. An empty value is an error, because it would select all."""

    def decode_some(value: Any, path: Path, problems: Problems) -> Any:
        if isinstance(value, list) and "" in value:
            message = "an empty text selects nothing"
            remedy = "write a value, or remove it"
            place = (*path, value.index(""))
            problems.append(Problem(path=place, message=message, value=short_repr(""), remedy=remedy))
            return INVALID
        if value is not None and value not in ([], {}, ""):
            return decode(value, path, problems)
        message = f"'{path[-1]}' is empty, which would be the same as to leave it out"
        remedy = f"write a value, or remove '{path[-1]}'"
        found = "an empty mapping" if value == {} else "an empty list" if value == [] else short_repr(value)
        problems.append(Problem(path=path, message=message, value=found, remedy=remedy))
        return INVALID

    return decode_some


def _fields(
    by_key: dict[str, tuple[str, Decoder, bool]],
    others: tuple[str, Decoder] | None,
    value: Any,
    path: Path,
    problems: Problems,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, item in value.items():
        known = by_key.get(key)
        if known is None and others is not None:
            rest[key] = _decoded(others[1], item, (*path, key), problems)
        elif known is None:
            remedy = did_you_mean(key, by_key)
            problems.append(
                Problem(path=(*path, key), message=f"unknown key '{key}'", remedy=remedy, at_key=True)
            )
        elif item is not None or known[2]:
            values[known[0]] = _decoded(known[1], item, (*path, key), problems)
    if others is not None:
        values[others[0]] = types.MappingProxyType(rest)
    return values


@cache
def _object(cls: type) -> Decoder:
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if "about" in field.metadata]
    by_key = {
        field_key(field): (field.name, _compile_key(hints[field.name], about), about.narrows)
        for field, about in ((field, field.metadata["about"]) for field in fields)
        if not about.others
    }
    others = next(
        (
            (field.name, _compile(get_args(hints[field.name])[1]))
            for field in fields
            if field.metadata["about"].others
        ),
        None,
    )
    missing = dataclasses.MISSING
    required = [field_key(field) for field in fields if field.default is missing is field.default_factory]
    known: _Known = {field.name: field.metadata["about"] for field in fields}
    short: Shorthand | None = getattr(cls, "SHORTHAND", None)
    checks, noted = hasattr(cls, "check"), getattr(cls, "REFERENCE", False)
    secret = any(field.metadata["about"].secret for field in fields)
    what = short.what + " or a mapping" if short else "a mapping"

    def decode(value: Any, path: Path, problems: Problems) -> Any:
        if type(value) is not dict:
            if short is not None and _is_a(value, short.types):
                return _shorten(cls, known, value, path, problems)
            return _wrong(REDACTED if secret else value, path, problems, what)
        before = len(problems)
        values = _fields(by_key, others, value, path, problems)
        for key in required:
            if value.get(key) is None:
                message, remedy = f"'{key}' is missing", f"add '{key}'"
                problems.append(Problem(path=path, message=message, remedy=remedy, at_key=True))
        if len(problems) > before:
            return INVALID
        result = cls(**values)
        if checks:
            problems.extend(_placed(mistake, path, ...) for mistake in result.check())
        if noted and len(problems) == before:
            problems.references.append((path, result))
        return result if len(problems) == before else INVALID

    return decode


def _compile_key(annotation: Any, about: About) -> Decoder:
    decode = _compile(annotation, about)
    return _narrowing(decode) if about.narrows else decode


def _placed(mistake: Mistake, path: Path, value: object) -> Problem:
    found = mistake.value if mistake.value is not ... else value
    text = None if found is ... else short_repr(found)
    return Problem(path=(*path, *mistake.path), message=mistake.message, remedy=mistake.remedy, value=text)


_SCALARS: dict[Any, Callable[[object], Any]] = {
    timedelta: scalars.duration,
    scalars.Size: scalars.size,
    scalars.Percent: scalars.percent,
    scalars.Rate: scalars.rate,
}


def _compile(annotation: Any, about: About = _NO_ABOUT) -> Decoder:  # noqa: C901 - one branch for each kind of type
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not types.NoneType]
        if len(members) == 1:
            return _compile(members[0], about)
        accepts = [_accepts(member) for member in members]
        what = " or ".join(dict.fromkeys(text for _, text in accepts))
        return _one_of(
            [_compile(member, about) for member in members], [accept for accept, _ in accepts], what
        )
    if origin is typing.Annotated:
        return _compile(arguments[0], about)
    if annotation in _SCALARS:
        return _scalar(_SCALARS[annotation], about)
    if annotation is str:
        return _string(about)
    if annotation in (int, float):
        return _number(annotation, about)
    if annotation is bool:
        return _boolean
    if annotation is Off:
        return lambda _value, _path, _problems: OFF
    if annotation is Raw:
        return _raw
    if annotation is Any:
        return lambda value, _path, _problems: value
    if origin is Literal:
        return _literal(arguments)
    if origin is tuple:
        return _list(_compile(arguments[0], dataclasses.replace(about, minimum_items=0)), about)
    if origin is Mapping:
        return _mapping(_compile(arguments[1]), about)
    if hasattr(annotation, "decode_value"):
        return typing.cast("Decoder", annotation.decode_value)
    if dataclasses.is_dataclass(annotation):
        return _object(typing.cast("type", annotation))
    raise TypeError(f"the language has no decoder for {annotation!r}")


@cache
def decoder_for(annotation: Any) -> Decoder:
    """The decoder of a type of the language.

    It takes a plain value, its path, and the list to which it appends problems. It returns the typed value,
    or INVALID if it reported a problem.
    """
    return _compile(annotation)
