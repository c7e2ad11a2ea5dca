"""What is wrong with a document, with its place in it."""

from __future__ import annotations

from dataclasses import dataclass

from filters.language import Path

LARGEST = 5_000_000
"""Bytes of the largest document that is read."""
MOST_FAULTS = 20
"""Faults that are reported of one document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Its place is a path in the document, or a line and column that count from 1."""

    message: str
    remedy: str = "correct the document"
    path: Path = ()
    line: int = 0
    column: int = 0
    value: str | None = None


class DocumentFaults(ValueError):  # noqa: N818 - carries the user's mistakes, as data
    """The faults because of which a document cannot be read."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(one.message for one in faults))
        self.faults = faults


def check_size(content: bytes) -> None:
    """Raise DocumentFaults if a document is too large to be read."""
    if len(content) > LARGEST:
        message = f"the document has {len(content) / 1e6:.1f} MB, and at most {LARGEST / 1e6:.0f} MB are read"
        raise DocumentFaults(Fault(message=message, remedy="divide the API, or shorten its examples"))
