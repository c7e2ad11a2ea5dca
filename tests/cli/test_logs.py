"""The log of a process: plain lines, lines above a status line on a terminal, and JSON."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import termios
from collections.abc import Iterator

import pytest

from xds_server.cli import logs


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What it shows: a cleared line is not there."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Put the handlers of pytest back."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    logger.handlers.clear()
    yield
    logger.handlers[:] = before
    logger.setLevel(level)


def test_lines_stand_above_the_status_line() -> None:
    screen = Screen()
    terminal = logs.start("text", screen)
    assert terminal is not None
    terminal.show("2 routes")
    logging.getLogger("x").info("first")
    logging.getLogger("x").error("second")
    terminal.show("3 routes")
    first, second, status = screen.lines
    assert first.endswith("INFO    first")
    assert second.startswith(logs.RED)
    assert "second" in second
    assert "3 routes" in status
    terminal.show("")
    assert screen.lines[-1] == ""


def test_without_a_terminal_there_are_plain_lines() -> None:
    stream = io.StringIO()
    assert logs.start("text", stream) is None
    logging.getLogger("x").warning("three\x1b[1m")
    assert stream.getvalue().endswith("WARNING three\\x1b[1m\n")
    assert "\r" not in stream.getvalue()


def test_json_is_one_object_in_each_line() -> None:
    stream = Screen()
    assert logs.start("json", stream) is None
    logging.getLogger("x.y").info("gateway published routes=%d", 3)
    try:
        raise ValueError("two\nlines \x1b[31m")
    except ValueError:
        logging.getLogger("x.y").exception("fault\nof xds")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], first["level"], first["logger"]) == (
        "gateway published routes=3",
        "info",
        "x.y",
    )
    assert first["time"].endswith("Z")
    assert second["message"] == "fault\nof xds"
    assert "ValueError: two" in second["exception"]


def test_what_a_client_sends_begins_no_line_and_controls_no_terminal() -> None:
    stream = io.StringIO()
    logs.start("text", stream)
    logging.getLogger("x").info(
        "connected node=%s", "a\n17:00:00 INFO    forged\x1b]0;t\x07\u2028\u202e\udcff\x9b"
    )
    first, second, end = stream.getvalue().split("\n")
    assert first.endswith("connected node=a")
    assert second == "    17:00:00 INFO    forged\\x1b]0;t\\x07\\u2028\\u202e\\udcff\\x9b"
    assert end == ""


def test_the_status_line_fits_into_a_narrow_terminal() -> None:
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, 8))
        with os.fdopen(theirs, "w", closefd=False) as stream:
            terminal = logs.start("text", stream)
            assert terminal is not None
            terminal.show("1000 routes  1 of 1 Envoys current")
        shown = b""
        while not shown.endswith(logs.PLAIN.encode()):
            shown += os.read(ours, 4096)
        assert shown.endswith(b"1000 ro\x1b[0m")
    finally:
        os.close(ours)
        os.close(theirs)
