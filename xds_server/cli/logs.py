"""The log of a process: lines for people with a status line on a terminal, plain lines, or JSON."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from typing import TextIO

from filters.language import printable
from xds_server.cli.output import PLAIN, RED, YELLOW

FORMATS = ("text", "json")
_CLEAR = "\r\x1b[K"
_DIM = "\x1b[2m"
_SHADES = {logging.ERROR: RED, logging.CRITICAL: RED, logging.WARNING: YELLOW}


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the argument for the form of the log."""
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default="text",
        help="lines for people, or one JSON object in each line",
    )


def start(form: str, stream: TextIO | None = None) -> Terminal | None:
    """Log to a stream, by default standard error, from now on. Returns the terminal if the stream is one."""
    stream = sys.stderr if stream is None else stream
    handler: logging.Handler
    if form == "json":
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_json())
    else:
        handler = Terminal(stream) if stream.isatty() else logging.StreamHandler(stream)
        handler.setFormatter(_Lines(colour=stream.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return handler if isinstance(handler, Terminal) else None


def _json() -> logging.Formatter:
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )


class _Lines(logging.Formatter):
    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        # Names and reasons of clients are part of messages: what they contain begins no line and controls no terminal.
        text = "\n    ".join(map(printable, super().format(record).split("\n")))
        shade = _SHADES.get(record.levelno) if self._colour else None
        return f"{shade}{text}{PLAIN}" if shade else text


class Terminal(logging.StreamHandler[TextIO]):
    """Writes lines above a status line, which stays the last line."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._status = ""
        self._writing = threading.RLock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        with self._writing:
            if self._status:
                self.stream.write(_CLEAR)
            super().emit(record)
            self._draw()

    def show(self, status: str) -> None:
        """Replace the status line. An empty text removes it."""
        with self._writing:
            if self._status or status:
                self.stream.write(_CLEAR)
            self._status = status
            self._draw()

    def _draw(self) -> None:
        if self._status:
            self.stream.write(f"{_DIM}{self._status[: self._width]}{PLAIN}")
        self.stream.flush()

    @property
    def _width(self) -> int | None:
        """The characters that fit into one line, None if that is unknown. A longer status could not be cleared."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError):
            return None
        return columns - 1 if columns > 0 else None
