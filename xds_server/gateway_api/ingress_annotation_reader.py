"""Reads the annotations of an Ingress one by one, as flags, numbers and texts. A value that is not one is a fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from filters.language.scalars import LONGEST
from xds_server.gateway_api.conditions import Fault

T = TypeVar("T")
UNSUPPORTED = "UnsupportedAnnotation"
"""The reason of a fault: the annotation has no equal."""
_NUMBER = re.compile(r"[0-9]{1,15}")
_SHOWN = 100
"""The maximum length of what a fault shows of a value."""


class Reader:
    """Reads annotations with a prefix, and notes which ones are known and what is wrong with them."""

    def __init__(self, annotations: Mapping[str, str], prefix: str, faults: list[Fault]) -> None:
        self._annotations, self._prefix, self._faults = annotations, prefix, faults
        self.known: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """Return the value of an annotation."""
        key = self._prefix + name
        self.known.add(key)
        return self._annotations.get(key, default).strip()

    def has(self, name: str) -> bool:
        """True if there is such an annotation."""
        self.known.add(self._prefix + name)
        return self._prefix + name in self._annotations

    def flag(self, name: str, default: bool = False, *, safe: bool | None = None) -> bool:
        """Return true or false, and `safe` for anything else, by default what is without it."""
        values = {"true": True, "false": False}
        other = default if safe is None else safe
        return self._read(name, default, lambda text: values[text.lower()], "true or false", other)

    def number(self, name: str, default: int = 0, least: int = 0, most: int = 2**31 - 1) -> int:
        """Return a whole number."""

        def read(text: str) -> int:
            if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
                raise ValueError(text)
            return int(text)

        return self._read(name, default, read, f"a number from {least} to {most}")

    def seconds(self, name: str, default: int = 0, least: int = 0) -> int:
        """Return a number of seconds that a duration of the language can have."""
        return self.number(name, default, least, int(LONGEST.total_seconds()))

    def checked(self, name: str, usable: Callable[[str], Any], wanted: str) -> str:
        """Return a text that is `usable`, or else an empty one."""

        def read(text: str) -> str:
            if not usable(text):
                raise ValueError(text)
            return text

        return self._read(name, "", read, wanted)

    def _read(
        self, name: str, default: T, read: Callable[[str], T], wanted: str, wrong: T | None = None
    ) -> T:
        if not self.has(name):
            return default
        try:
            return read(self.text(name))
        except (ValueError, KeyError):
            self.fault(
                name, f"'{shown(self.text(name))}' is not {wanted}", f"write {wanted}", "InvalidAnnotation"
            )
            return default if wrong is None else wrong

    def fault(self, name: str, message: str, remedy: str, reason: str = UNSUPPORTED) -> None:
        """Note a fault of an annotation."""
        path = ("metadata", "annotations", self._prefix + name)
        self._faults.append(Fault(path=path, message=message, remedy=remedy, reason=reason))


def shown(text: str) -> str:
    """Return what a fault shows of a value."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
