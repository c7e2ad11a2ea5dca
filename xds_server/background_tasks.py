"""Tasks that run until the stack of a program ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack


def in_background(work: Coroutine[None, None, None], stack: AsyncExitStack) -> asyncio.Task[None]:
    """Start a task, which is cancelled when the stack ends."""
    task = asyncio.create_task(work)
    stack.push_async_callback(_cancelled, task)
    return task


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
