"""Fixtures: the same store of a marketplace in SQLite and in PostgreSQL, so that every test runs with both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.market import Clock, Market
from tests.support.postgres import Postgres
from xds_server.marketplace.store import Marketplace


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/market.db"
    running: Postgres = request.getfixturevalue("postgres")
    running.clear()
    return running.url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Marketplace]:
    store = Marketplace(url, clock)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def market(store: Marketplace, clock: Clock) -> Market:
    return Market(store, clock)
