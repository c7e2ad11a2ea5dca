"""Server-sent events, as they come in parts: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r(?=.))", re.DOTALL)


class TooLarge(Exception):  # noqa: N818 - a fact about the stream
    """An event that is larger than allowed."""


class EventStream:
    """Takes the data of events out of a stream. `most` is the size of the largest event in bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Yield the data of each event that ends in this part. Raises TooLarge."""
        self._rest += part
        at = 0
        while (match := _LINE.match(self._rest, at)) is not None:
            at = match.end()
            if match[1]:
                self._line(match[1])
            elif self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0
        self._rest = self._rest[at:]
        if len(self._rest) + self._size > self._most:
            raise TooLarge

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
            if self._size > self._most:
                raise TooLarge
