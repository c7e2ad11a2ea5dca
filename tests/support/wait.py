"""Wait on conditions, never for luck: `wait_for` blocks, `eventually` lets the loop go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from inspect import isawaitable
from typing import TypeVar

import httpx
import redis

T = TypeVar("T")
Text = str | Callable[[], str]
"""A text, or a function that returns it when it is needed: a log, for example, as it is then."""
Errors = tuple[type[Exception], ...]

LIMIT = 60.0
"""Seconds: generous, because the machine is noisy; a passing test never waits that long."""
PAUSE = 0.01
"""Seconds between two looks at a condition."""
UNREACHABLE: Errors = (
    OSError,
    httpx.TransportError,
    HTTPException,
    redis.ConnectionError,
    redis.TimeoutError,
)
"""What a condition may raise while a server that it asks is not there."""


class ProcessEndedError(Exception):
    """A process ended while a test waited for it: nothing that the test waits for can come."""


def wait_for(condition: Callable[[], T], what: Text, limit: float = LIMIT, *, also: Errors = ()) -> T:
    """Look at a condition until it is true, and return its value.

    An exception of UNREACHABLE, or one that the caller names in `also`, counts as false. Any other goes through, for
    example ProcessEndedError. Raises AssertionError after `limit` seconds.
    """
    deadline = time.monotonic() + limit
    while True:
        last: object
        try:
            last = value = condition()
        except (*UNREACHABLE, *also) as error:
            last = error
        else:
            if value:
                return value
        if time.monotonic() > deadline:
            raise _in_vain(what, limit, last)
        time.sleep(PAUSE)


async def eventually(
    condition: Callable[[], T | Awaitable[T]], what: Text, limit: float = LIMIT, *, also: Errors = ()
) -> T:
    """The same in a coroutine. The condition may be a coroutine function."""
    deadline = time.monotonic() + limit
    while True:
        last: object
        try:
            found = condition()
            last = value = await found if isawaitable(found) else found
        except (*UNREACHABLE, *also) as error:
            last = error
        else:
            if value:
                return value
        if time.monotonic() > deadline:
            raise _in_vain(what, limit, last)
        await asyncio.sleep(PAUSE)


def _in_vain(what: Text, limit: float, last: object) -> AssertionError:
    text = what if isinstance(what, str) else what()
    return AssertionError(f"waited {limit:g} s for {text}; last seen: {last!r}")
