"""Every test here runs with SQLite and with PostgreSQL."""

from tests.support.market_fixtures import clock, market, postgres, store, url

__all__ = ["clock", "market", "postgres", "store", "url"]
