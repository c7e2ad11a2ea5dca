"""The store, as SQLite and as PostgreSQL: each batch once, whatever fails in between."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from tests.support.postgres import Postgres
from tests.support.usage import entry
from xds_server import usage
from xds_server.database import DatabaseFailed
from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.usage.latency import summarized
from xds_server.usage.rollup import HOUR, Batch, Seen, count
from xds_server.usage.schema import METADATA
from xds_server.usage.spool import Position
from xds_server.usage.store import KEPT, Question, Store, StoreReplacedError

NOW = 500_000 * HOUR


@contextmanager
def database(url: str) -> Iterator[sqlalchemy.Connection]:
    """Connect to a database beside the store."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/usage.db"
    running: Postgres = request.getfixturevalue("postgres")
    running.clear()
    return running.url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    store.migrate()
    yield store
    store.close()


def add(
    store: Store, begin: Position, end: Position, *batches: Batch, spool: str = "s", now: int = NOW
) -> int:
    return store.add(spool, begin, end, batches, count(batches, Seen()), now)


def batch(identity: bytes, *entries: str) -> Batch:
    return Batch(identity * 16, NOW, entries)


START, ONE, TWO = Position(0, 0), Position(1, 10), Position(1, 20)


def test_counts_add_up_by_every_group(store: Store) -> None:
    add(store, START, ONE, batch(b"a", entry(start=NOW, sent=5), entry(start=NOW + HOUR, consumer="b")))
    add(store, ONE, TWO, batch(b"b", entry(start=NOW, sent=7), entry(start=NOW, status=404, consumer="b")))
    assert store.position("s") == TWO
    assert store.report(Question()) == [
        {"requests": 4, "bytes_received": 4, "bytes_sent": 16, "duration_ms": 12}
    ]
    rows = store.report(Question(by=("hour", "consumer")))
    assert [(row["hour"], row["consumer"], row["requests"]) for row in rows] == [
        (500_000, "acme", 2),
        (500_000, "b", 1),
        (500_001, "b", 1),
    ]
    rows = store.report(Question(by=("day", "status"), only={"consumer": ["b"]}))
    assert [(row["day"], row["status"], row["requests"]) for row in rows] == [
        (500_000 // 24 * 24, 200, 1),
        (500_000 // 24 * 24, 404, 1),
    ]
    assert [row["requests"] for row in store.report(Question(since=500_001))] == [1]
    assert [row["requests"] for row in store.report(Question(until=500_001))] == [3]
    assert store.report(Question(since=600_000, by=("route",))) == []


def test_a_transaction_that_is_repeated_adds_nothing(store: Store) -> None:
    assert add(store, START, ONE, batch(b"a", entry(start=NOW))) == 1
    add(store, START, ONE, batch(b"a", entry(start=NOW)))
    assert store.report(Question())[0]["requests"] == 1


def test_a_batch_that_another_server_counted_is_left_out(store: Store, url: str) -> None:
    other = Store(url)
    first, second = batch(b"a", entry(start=NOW)), batch(b"b", entry(start=NOW), entry(start=NOW))
    add(other, START, ONE, first, spool="other")
    assert add(store, START, ONE, first, second) == 2
    assert store.report(Question())[0]["requests"] == 3
    other.close()


def test_many_servers_at_once_count_each_batch_once(store: Store, url: str) -> None:
    batches = [batch(bytes([number]), entry(start=NOW), entry(start=NOW, route="b")) for number in range(40)]

    def work(spool: str, order: list[Batch]) -> None:
        own, at = Store(url), START
        for number, one in enumerate(order):
            end = Position(1, number + 1)
            add(own, at, end, one, spool=spool)
            at = end
        own.close()

    threads = [
        threading.Thread(target=work, args=(str(number), batches[:: (-1) ** number])) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.report(Question())[0]["requests"] == 80


def test_old_batches_are_forgotten(store: Store) -> None:
    one = batch(b"a", entry(start=NOW))
    add(store, START, ONE, one)
    store.forget(NOW)
    assert add(store, ONE, TWO, one) == 0
    store.forget(NOW + KEPT)
    assert add(store, TWO, Position(1, 30), one) == 1


def test_another_store_in_its_place_is_noticed(store: Store) -> None:
    with pytest.raises(StoreReplacedError):
        add(store, ONE, TWO, batch(b"a", entry(start=NOW)))
    assert store.report(Question())[0]["requests"] == 0


def test_the_migrations_make_the_tables_of_the_schema(store: Store, url: str) -> None:
    store.migrate()
    with database(url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "usage_revision"})
        assert compare_metadata(context, METADATA) == []


def test_servers_that_start_together_make_the_tables_once(url: str) -> None:
    errors: list[Exception] = []

    def migrate() -> None:
        own = Store(url)
        try:
            own.migrate()
        except DatabaseFailed as error:
            errors.append(error)
        own.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_store_of_a_newer_version_is_not_touched(store: Store, url: str) -> None:
    with database(url) as connection:
        connection.exec_driver_sql("UPDATE usage_revision SET version_num = '999'")
    with pytest.raises(EnvironmentFailed, match="newer version"):
        store.migrate()


def test_what_is_no_store_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match="there is no usage store"):
        Store(f"sqlite:///{tmp_path}/none.db", reads=True)
    assert not (tmp_path / "none.db").exists()
    sqlite3.connect(tmp_path / "other.db").close()
    with pytest.raises(EnvironmentFailed, match="is no usage store"):
        Store(f"sqlite:///{tmp_path}/other.db", reads=True).report(Question())
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(DatabaseFailed, match="not a database"):
        Store(f"sqlite:///{tmp_path}/text.db").migrate()


@pytest.mark.parametrize(
    "url", ["", "usage.db", "mysql://root@host/db", "sqlite:/x", "sqlite://", "sqlite:///:memory:", "://"]
)
def test_what_is_no_url_of_a_store_is_wrong_usage(url: str) -> None:
    with pytest.raises(WrongUsage, match="sqlite:///FILE or postgresql://"):
        Store(url)


def test_a_url_with_a_bad_port_is_wrong_usage_and_hides_its_password() -> None:
    with pytest.raises(WrongUsage, match="cannot be read") as failure:
        Store("postgres://user:secret@host:port/db")
    assert "secret" not in str(failure.value)


def test_an_error_never_shows_the_password() -> None:
    store = Store("postgresql://user:secret@127.0.0.1:1/usage")
    assert "secret" not in store.name
    with pytest.raises(DatabaseFailed) as failure:
        store.migrate()
    assert "secret" not in str(failure.value)


def test_sums_by_day_are_those_by_hour(store: Store) -> None:
    day = NOW // HOUR // 24 * 24
    batches = [
        batch(bytes([65 + number]), entry(start=(day + hour) * HOUR, consumer=consumer, sent=number))
        for number, (hour, consumer) in enumerate(
            ((0, "a"), (5, "a"), (23, "b"), (24, "a"), (5, "b"), (-1, "a"))
        )
    ]
    late = (day + 25) * HOUR
    begin = START
    for number, one in enumerate(batches, 1):
        end = Position(1, number)
        store.add("s", begin, end, [one], count([one._replace(arrival=late)], Seen()), late)
        begin = end
    add(store, Position(1, 5), Position(1, 6), batches[5], now=late)  # again, after a lost answer
    groups = ("day", "consumer", "status")
    by_day = store.report(Question(by=groups))
    sums: dict[tuple[object, ...], list[int]] = {}
    for row in store.report(Question(by=("hour", "consumer", "status"))):
        key = row["hour"] - row["hour"] % 24, row["consumer"], row["status"]
        found = sums.setdefault(key, [0, 0])
        found[0] += row["requests"]
        found[1] += row["bytes_sent"]
    assert {tuple(row[one] for one in groups): [row["requests"], row["bytes_sent"]] for row in by_day} == sums
    assert sum(row["requests"] for row in by_day) == 6
    only = Question(since=day, until=day + 24, by=("consumer",), only={"consumer": ["a"]})
    assert [row["requests"] for row in store.report(only)] == [2]
    assert [row["requests"] for row in store.report(Question(since=day + 5, until=day + 24))] == [3]


def test_quantiles_are_those_of_all_hours(store: Store) -> None:
    slow, fast = (entry(start=NOW + HOUR * 30, lasted=700), [entry(start=NOW, lasted=4) for _ in range(3)])
    add(store, START, ONE, batch(b"a", slow, *fast, entry(start=NOW, lasted="-")))
    row = store.report(Question(latency=True))[0]
    assert (row["requests"], row["to_5ms"], row["to_1000ms"]) == (5, 3, 1)
    assert summarized(row) == {
        "requests": 5,
        "bytes_received": 5,
        "bytes_sent": 10,
        "duration_ms": 712,
        "p50_ms": 4,
        "p99_ms": 980,
    }


def test_a_store_without_sums_by_day_gets_them(store: Store, url: str) -> None:
    add(
        store,
        START,
        ONE,
        batch(b"a", entry(start=NOW), entry(start=NOW + HOUR), entry(start=NOW, status=404)),
    )
    before = store.report(Question(by=("day", "consumer", "status")))
    config = Config()
    config.set_main_option("script_location", str(Path(usage.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with database(url) as connection:
        config.attributes.update(connection=connection, version_table="usage_revision")
        command.downgrade(config, "001")
        assert not sqlalchemy.inspect(connection).has_table("usage_days")
    store.migrate()
    assert store.report(Question(by=("day", "consumer", "status"))) == before
    assert [row["requests"] for row in before] == [2, 1]
    old = store.report(Question(latency=True))[0]  # the buckets went with the downgrade
    assert summarized(old)["p50_ms"] is None
