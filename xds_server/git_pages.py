"""What the admin address does for a gateway in git: webhooks, and pinned commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from xds_server.admin import NONE, Actions, Incoming, Page
from xds_server.errors import WrongUsage
from xds_server.sources import git_webhook
from xds_server.sources.git_repository import GitFailed
from xds_server.sources.git_source import GitSource
from xds_server.sources.source import Version

WEBHOOK, PIN, ROLLBACK, UNPIN = "/git/webhook", "/git/pin", "/git/rollback", "/git/unpin"
_TIMEOUT = 60.0
"""Seconds in which a commit that is to be pinned must be fetched."""


def actions(
    source: GitSource | None, webhook_secret: Path | None, previews: Callable[[], None] = lambda: None
) -> Actions:
    """Return the actions. They are called in other threads than the event loop that runs now.

    A webhook has the source and the `previews` fetch.
    """
    if source is None:
        return NONE
    loop = asyncio.get_running_loop()

    def pinned(wanted: Callable[[], str]) -> Page:
        async def pin() -> Version:
            return await source.pin(wanted())

        return _changed(pin, loop, source)

    def rollback(incoming: Incoming) -> Page:
        text = incoming.text().strip()
        return pinned(lambda: text or source.pins.earlier())

    def pin(incoming: Incoming) -> Page:
        text = incoming.text().strip()
        return pinned(lambda: text) if text else Page.of({"error": "name a commit"}, 400)

    def unpin(_: Incoming) -> Page:
        async def change() -> None:
            source.unpin()

        return _changed(change, loop, source)

    found = {PIN: pin, ROLLBACK: rollback, UNPIN: unpin}
    if webhook_secret is not None:
        secret = webhook_secret

        def notify() -> None:
            source.notify()
            previews()

        found[WEBHOOK] = lambda incoming: _webhook(incoming, secret, loop, source.name, notify)
    return found


def _changed(
    change: Callable[[], Coroutine[Any, Any, Version | None]],
    loop: asyncio.AbstractEventLoop,
    source: GitSource,
) -> Page:
    """Run a change in the event loop. Returns the pinned commit and whether a restart keeps it."""
    changing = asyncio.run_coroutine_threadsafe(change(), loop)
    try:
        version = changing.result(_TIMEOUT)
    except (GitFailed, WrongUsage) as error:
        return Page.of({"error": str(error)}, 409)
    except TimeoutError:
        changing.cancel()
        return Page.of({"error": f"the commit was not fetched in {_TIMEOUT:g} s; nothing has changed"}, 504)
    return Page.of(
        {
            "commit": version.id if version is not None else None,
            "survives_restart": source.pins.survives,
        }
    )


def _webhook(
    incoming: Incoming, secret: Path, loop: asyncio.AbstractEventLoop, name: str, notify: Callable[[], None]
) -> Page:
    headers = {name.lower(): value for name, value in incoming.headers.items()}
    known = secret.read_text().strip().encode()
    if not known or not git_webhook.verified(known, headers, lambda: incoming.chunks(git_webhook.LARGEST)):
        names = " or ".join(git_webhook.HEADERS)
        return Page.of(
            {"error": f"the signature or token is missing or wrong; it is expected in the header {names}"},
            401,
        )
    loop.call_soon_threadsafe(notify)
    return Page.of({"fetching": name}, 202)
