"""The tables of the store. The migrations make them, and a test compares both."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, SmallInteger, String, Table

from xds_server.usage import latency

REVISION = "003"
"""The revision of the tables: the newest file in migrations/versions."""
METADATA = MetaData()


def _buckets() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in latency.COLUMNS]


HOURS = Table(
    "usage_hours",
    METADATA,
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970 in UTC"),
    Column("consumer", String(255), primary_key=True),
    Column("plan", String(255), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("status", SmallInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("bytes_received", BigInteger, nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    *_buckets(),
    sqlite_with_rowid=False,
)
DAYS = Table(
    "usage_days",
    METADATA,
    Column("consumer", String(255), primary_key=True),
    Column(
        "day",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="the first hour of a day in UTC, in hours since 1970",
    ),
    Column("plan", String(255), primary_key=True),
    Column("route", String(255), primary_key=True),
    Column("status", SmallInteger, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("bytes_received", BigInteger, nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    *_buckets(),
    sqlite_with_rowid=False,
)
"""The sums of HOURS by day, which change in the same transaction. Those of a consumer are side by side."""
BATCHES = Table(
    "usage_batches",
    METADATA,
    Column("batch", LargeBinary(16), primary_key=True),
    Column("arrival", BigInteger, nullable=False, comment="Unix seconds"),
    Index("usage_batches_arrival", "arrival"),
)
"""The batches that are counted, so that none is counted twice, whichever server it is sent to."""
SPOOLS = Table(
    "usage_spools",
    METADATA,
    Column("spool", String(64), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False, comment="bytes of the segment that are counted"),
)
"""How far each spool is counted. It changes with the counts in one transaction."""
