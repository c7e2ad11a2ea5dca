"""Verification of passwords with slow hashes, in the policy server.

bcrypt takes 50 ms or more of a processor, so it runs in a few threads. A keyed digest of each right password is kept,
so only the first request of a user takes that long. An unknown name takes as long as a wrong password.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import bcrypt
from envoy.config.core.v3 import base_pb2

from filters.identity.htpasswd import BCRYPT, LEAST_COST, MOST_COST
from filters.identity.password_lookup import USERS
from filters.rules import Refused, Table
from filters.unary import Busy
from protos import rules_pb2

LONGEST = 72
"""Bytes of a password that bcrypt uses. Longer passwords are rejected, because bcrypt would ignore the rest."""
THREADS = 2
WAITING = 64
"""Passwords whose verification is in progress or waits. Further ones are rejected at once."""
REMEMBERED = 10_000
"""Verified passwords whose digest is kept."""


class Missing(Exception):  # noqa: N818 - a state of the rules
    """The list has not arrived yet."""


@dataclass(frozen=True, slots=True)
class Users:
    """Hashes by name. `decoy` takes as long to verify as most of them, and its password is unknown."""

    hashes: Mapping[str, bytes]
    decoy: bytes


def _loaded(message: rules_pb2.Users) -> Users:
    """Raises Refused."""
    costs = []
    for user in message.users:
        if user.bcrypt:
            entry = BCRYPT.fullmatch(user.bcrypt)
            if entry is None or not LEAST_COST <= int(entry["cost"]) <= MOST_COST:
                raise Refused(f"the hash of {user.name} is not one of bcrypt")
            costs.append(entry["cost"])
    if not costs:
        raise Refused("no user has a bcrypt hash")
    decoy = f"$2b${statistics.mode(costs)}$" + "." * 53
    return Users({user.name: user.bcrypt.encode() for user in message.users}, decoy.encode())


class Passwords:
    """Users by list. A change of any list removes all kept digests.

    `remembered` is the number of digests that are kept. `verify` returns True if a password has a hash; it runs in a
    thread.
    """

    def __init__(
        self, *, remembered: int = REMEMBERED, verify: Callable[[bytes, bytes], bool] = bcrypt.checkpw
    ) -> None:
        self._verify = verify
        self._remembered = remembered
        self.table: Table[Users] = Table(USERS, _loaded, self._changed)
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, bytes] = {}
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}
        self._threads = ThreadPoolExecutor(THREADS, "passwords")

    def _changed(self, *_: object) -> None:
        # It is replaced, because verifications in progress write into the mapping that they began with.
        self._right = {}

    async def user(self, list_name: str, headers: Iterable[base_pb2.HeaderValue]) -> str | None:
        """The user of a request's name and password. Raises Missing if there is no list, and Busy.

        Returns None in all other cases, also for users whose password Envoy verifies itself.
        """
        users = self.table.current.get(list_name)
        if users is None:
            raise Missing
        name, password = credentials_of(headers)
        entry = users.hashes.get(name, users.decoy)
        if password is None or not entry or not await self._matches(entry, password):
            return None
        return name if name in users.hashes else None

    async def _matches(self, entry: bytes, password: bytes) -> bool:
        # bcrypt repeats a password with a NUL after it, so a password with a NUL inside can equal another one.
        if len(password) > LONGEST or b"\0" in password:
            return False
        digest = hmac.digest(self._key, entry + password, "sha256")
        if hmac.compare_digest(self._right.get(entry, b""), digest):
            return True
        # Simultaneous requests of one user share a verification, which goes on if some of them are cancelled.
        running = self._under_way.get(digest) or self._begin(entry, password, digest)
        return await asyncio.shield(running)

    def _begin(self, entry: bytes, password: bytes, digest: bytes) -> asyncio.Future[bool]:
        if len(self._under_way) >= WAITING:
            raise Busy(f"{WAITING} passwords are being verified")
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, self._verify, password, entry)
        self._under_way[digest] = running
        running.add_done_callback(partial(self._done, self._right, entry, digest))
        return running

    def _done(
        self, right: dict[bytes, bytes], entry: bytes, digest: bytes, running: asyncio.Future[bool]
    ) -> None:
        del self._under_way[digest]
        if not running.cancelled() and running.exception() is None and running.result():
            if len(right) >= self._remembered:
                del right[next(iter(right))]
            right[entry] = digest

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def credentials_of(headers: Iterable[base_pb2.HeaderValue]) -> tuple[str, bytes | None]:
    """The name and the password (RFC 7617 section 2), parsed like in the script. The password is None without one."""
    found = (one.raw_value or one.value.encode() for one in headers if one.key == "authorization")
    match = re.fullmatch(rb"(?i:basic) +([A-Za-z0-9+/]*)={0,2}", next(found, b""))
    try:
        text = base64.b64decode(match[1] + b"=" * (-len(match[1]) % 4)) if match else b""
    except ValueError:
        text = b""
    name, colon, password = text.partition(b":")
    return name.decode("utf-8", "surrogateescape"), password if colon else None
