"""The marketplace that `xds run` follows, if there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from filters.model.identity import Consumer, Plan
from xds_server.background_tasks import in_background
from xds_server.control_plane.control_loop import GatewayState, Published
from xds_server.serving.store import Store

if TYPE_CHECKING:
    from xds_server.control_plane.subscriptions import Subscriptions

log = logging.getLogger(__name__)

_NOBODY: Mapping[str, Consumer] = {}
"""The consumers before a gateway is served."""


def follow(
    url: str | None, store: Store, serving: GatewayState, stack: AsyncExitStack
) -> Subscriptions | None:
    """Publish the subscriptions of the marketplace at a URL in a store, None for no marketplace. Raises WrongUsage."""
    if url is None:
        return None
    from xds_server.control_plane.subscriptions import Subscriptions  # SQLAlchemy is large
    from xds_server.marketplace.store import Marketplace

    def written() -> Mapping[str, Consumer]:
        return serving.compiled.gateway.sections.consumers if serving.compiled is not None else _NOBODY

    def plans() -> Mapping[str, Plan] | None:
        return serving.compiled.gateway.sections.plans if serving.compiled is not None else None

    marketplace = Marketplace(url)
    stack.callback(marketplace.close)
    following = Subscriptions(marketplace, store, written, plans)
    in_background(following.run(), stack)
    return following


def warning(
    url: str | None, published: Callable[[Published | None, Published], None]
) -> Callable[[Published | None, Published], None]:
    """Return a function that calls `published`, and warns of a gateway with a portal if there is no marketplace."""

    def warn(before: Published | None, now: Published) -> None:
        published(before, now)
        new = now.gateway.sections.portal.declared
        if url is None and new and not (before is not None and before.gateway.sections.portal.declared):
            log.warning(
                "the gateway has a portal, but the keys that are made there do not work; start xds run with --marketplace URL"
            )

    return warn
