"""What an export cannot say: problems with the place in the gateway's YAML. Nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, fields
from typing import Any

from filters.language import Path, Place, Problem

REMEDY = "configure it where the manifests are served"


class Unexportable(Exception):  # noqa: N818 - a limit of the target, as data
    """A part of a route that the target cannot do, so that the route must not be served without it.

    `path` is where it is written below the route. With `security` it decides who may call.
    """

    def __init__(self, message: str, *path: str | int, security: bool = False) -> None:
        super().__init__(message)
        self.path, self.security = path, security


class Report:
    """Collects problems. `place` returns the position of a path of the gateway."""

    def __init__(self, place: Callable[[Path], Place | None]) -> None:
        self.problems: list[Problem] = []
        self._place = place

    def warn(self, path: Path, message: str, remedy: str = REMEDY) -> None:
        """Note something that changes what is served."""
        self._add(path, message, remedy, "warning")

    def error(self, path: Path, message: str, remedy: str) -> None:
        """Note that a rule of security is lost."""
        self._add(path, message, remedy, "error")

    def _add(self, path: Path, message: str, remedy: str, severity: Any) -> None:
        self.problems.append(
            Problem(path=path, message=message, remedy=remedy, severity=severity, place=self._found(path))
        )

    def _found(self, path: Path) -> Place | None:
        """Return the position of a path, or of the nearest part above it that is written."""
        for end in range(len(path), 0, -1):
            if (found := self._place(path[:end])) is not None:
                return found
        return None


def written(value: Any) -> Iterator[str]:
    """Yield the YAML keys of an object of the language whose values are not the defaults."""
    for one in fields(value):
        default = one.default if one.default is not MISSING else None
        if one.default_factory is not MISSING:
            default = one.default_factory()
        if getattr(value, one.name) != default:
            yield one.metadata["about"].key or one.name


def left_out(report: Report, value: Any, path: Path, exported: Collection[str], what: str) -> None:
    """Note every key of an object that is written, and that is not exported."""
    for key in written(value):
        if key not in exported:
            report.warn((*path, key), f"'{key}' of {what} has no equal in the Gateway API")
