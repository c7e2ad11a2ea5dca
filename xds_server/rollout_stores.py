"""The stores that replicas of a control plane can share a rollout through, by URL."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from contextlib import AsyncExitStack

from xds_server.control_plane.rollout_agreement import Agreement
from xds_server.control_plane.rollout_store import OwnStore, RolloutStore
from xds_server.errors import WrongUsage

_REDIS = re.compile(r"(rediss?|unix|redis\+cluster|redis\+sentinel)://.+")
_POSTGRESQL = re.compile(r"postgres(ql)?://.+")


def agreement(url: str | None, name: str, stack: AsyncExitStack) -> Agreement:
    """Return the part of this process in the agreement on a rollout, which ends with `stack`. Raises WrongUsage."""
    replica = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    found = Agreement(rollout_store(url, name), replica)
    stack.push_async_callback(found.close)
    return found


def rollout_store(url: str | None, name: str) -> RolloutStore:
    """Return the store at a URL, with the record `name`; None: one that is not shared. Raises WrongUsage.

    The libraries are imported only if a URL needs them. No message has the URL, which can contain a password.
    """
    if url is None:
        return OwnStore(time.time)
    if _REDIS.fullmatch(url):
        from xds_server.control_plane.rollout_redis import RedisRolloutStore

        try:
            return RedisRolloutStore(url, name)
        except ValueError:
            raise WrongUsage(
                "--rollout-store: the URL of the Redis cannot be read; check its parts"
            ) from None
    if _POSTGRESQL.fullmatch(url):
        try:
            from xds_server.control_plane.rollout_postgres import PostgresRolloutStore
        except ImportError:
            raise WrongUsage(
                "--rollout-store: PostgreSQL needs psycopg; install it with: pip install 'psycopg[binary]'"
            ) from None
        return PostgresRolloutStore(url, name)
    raise WrongUsage(
        "--rollout-store: write redis://HOST:PORT, rediss://HOST:PORT, unix://PATH, redis+cluster://HOST:PORT,..., "
        "redis+sentinel://HOST:PORT,.../NAME or postgresql://USER:PASSWORD@HOST/DATABASE"
    )
