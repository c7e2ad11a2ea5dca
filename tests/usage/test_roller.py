"""From the spool to the store: each entry once, whatever fails or ends in between, against a model."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.support.usage import entry
from xds_server.database import DatabaseFailed
from xds_server.usage.metrics import UsageMetrics
from xds_server.usage.roller import Roller
from xds_server.usage.spool import Spool
from xds_server.usage.store import Question, Store

NOW = 1_800_000_000
IDENTITIES = [str(uuid.UUID(int=number)) for number in range(30)]
BATCH = st.lists(st.sampled_from(IDENTITIES), min_size=1, max_size=6, unique=True)
STEP = st.one_of(
    st.tuples(st.just("take"), BATCH),
    st.tuples(st.just("count"), st.sampled_from(["works", "fails before", "fails after"])),
    st.tuples(st.just("restart"), st.booleans()),
)


class Failing(Store):
    """A store that can fail before a transaction, or when it has been committed."""

    fails = "works"

    def add(self, *arguments: Any) -> int:
        how, self.fails = self.fails, "works"
        if how == "fails before":
            raise DatabaseFailed("locked")
        added = super().add(*arguments)
        if how == "fails after":
            raise DatabaseFailed("the connection was lost")
        return added


class Server:
    """The inner parts of a usage server, whose steps a test takes one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Failing(f"sqlite:///{folder}/usage.db")
        self.start()

    def start(self) -> None:
        self.spool = Spool(self.folder / "spool", segment=600)
        self.spool.start()
        self.roller = Roller(self.spool, self.store, UsageMetrics(CollectorRegistry()), clock=lambda: NOW)
        self.roller.begin()

    async def take(self, identities: list[str]) -> None:
        entries = [entry(identity=one, start=NOW, route=one[-2:]) for one in identities]
        await self.spool.append("\n".join(entries).encode(), NOW)

    def count(self, how: str) -> None:
        """Count the next part. A transaction that fails is repeated."""
        add, self.store.fails = self.roller.counted_next(), how
        with suppress(DatabaseFailed):
            add()
            return
        add()

    def restart(self, *, counting: bool) -> None:
        """End and start again. If it was `counting`, it had read a part that is not in the store."""
        if counting:
            self.roller.counted_next()
        self.spool.stop()
        self.start()

    def rest(self) -> int:
        """Count the rest of the spool. Returns the number of requests in the store."""
        while self.store.position(self.spool.name) < self.spool.durable and self.spool.durable.offset:
            self.count("works")
        return int(self.store.report(Question())[0]["requests"])

    def end(self) -> None:
        self.spool.stop()
        self.store.close()


@given(st.lists(STEP, max_size=20))
@settings(max_examples=40)
def test_each_entry_counts_once_whatever_happens(steps: list[tuple[str, Any]]) -> None:
    async def follow(server: Server) -> set[str]:
        taken: set[str] = set()
        for what, how in steps:
            if what == "take":
                await server.take(how)
                taken |= set(how)
            elif what == "count":
                server.count(how)
            else:
                server.restart(counting=how)
        await server.take([IDENTITIES[0]])
        return {*taken, IDENTITIES[0]}

    async def whole(folder: Path) -> None:
        server = Server(folder)
        try:
            assert len(await follow(server)) == server.rest()
        finally:
            server.end()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(whole(Path(folder)))
