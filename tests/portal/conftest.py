"""Every test here runs with SQLite and with PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.market import Market
from tests.support.market_fixtures import clock, market, postgres, store, url
from tests.support.portal import ApiOf, api_of
from tests.support.shop_portal import ShopPortal, shop_portal

__all__ = ["clock", "market", "postgres", "store", "url"]


@pytest.fixture
def api(market: Market) -> Iterator[ApiOf]:
    with api_of(market) as served:
        yield served


@pytest.fixture
def portal(market: Market, tmp_path: Path) -> Iterator[ShopPortal]:
    with shop_portal(market, tmp_path / "gateway") as served:
        yield served
