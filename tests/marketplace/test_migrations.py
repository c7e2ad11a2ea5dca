"""The tables are made and removed by migrations, also with rows in them, and are those of the schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from tests.support.market import Market
from xds_server import marketplace
from xds_server.database import DatabaseFailed
from xds_server.database_url import checked
from xds_server.errors import EnvironmentFailed, WrongUsage
from xds_server.marketplace import logins
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.schema import METADATA
from xds_server.marketplace.store import Marketplace


def _engine(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(checked(url))


def _config(connection: sqlalchemy.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(marketplace.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table="market_revision")
    return config


def test_the_migrations_make_the_tables_of_the_schema(store: Marketplace, url: str) -> None:
    engine = _engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "market_revision"})
        found = [one for one in compare_metadata(context, METADATA) if "market_" in str(one)]
        assert found == []
    engine.dispose()
    store.migrate()  # again: nothing to do


def test_tables_with_rows_can_be_removed_and_made_again(market: Market, url: str) -> None:
    product = market.product()
    market.key(market.subscribe(market.application(), product))
    engine = _engine(url)
    with engine.begin() as connection:
        command.downgrade(_config(connection), "base")
        assert [
            one for one in sqlalchemy.inspect(connection).get_table_names() if one != "market_revision"
        ] == []
    market.store.migrate()
    Market(market.store, market.clock)
    engine.dispose()


def test_invitations_that_there_are_get_who_made_them(market: Market, url: str) -> None:
    with market.store.begin(market.actor("ada")) as now:
        made, link = logins.invite(now, "new@example.com", organisation="acme", role="owner")
    with market.store.begin(COMMAND) as now:
        shell, _ = logins.invite(now, "x@example.com", role="admin")
    engine = _engine(url)
    with engine.begin() as connection:
        command.downgrade(_config(connection), "004")
        columns = sqlalchemy.inspect(connection).get_columns("market_invitations")
        assert "invited_by" not in [one["name"] for one in columns]
    market.store.migrate()
    with market.store.begin(COMMAND) as now:
        inviters = {one.id: one.invited_by for one in logins.invitations(now).items}
        assert inviters == {made.id: market.users["ada"].id, shell.id: None}
        assert logins.accept(now, link, name="New").email == "new@example.com"
    engine.dispose()


def test_a_store_of_a_newer_version_is_refused(store: Marketplace, url: str) -> None:
    engine = _engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE market_revision SET version_num = '999'")
    with pytest.raises(EnvironmentFailed, match="made by a newer version"):
        store.migrate()
    engine.dispose()


def test_what_is_no_url_of_a_store_is_refused_without_its_password() -> None:
    with pytest.raises(WrongUsage, match="the marketplace store must be sqlite") as error:
        Marketplace("mysql://root:secret@host/db")
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but a text that is long enough" * 100)
    with pytest.raises(DatabaseFailed, match="not a database"):
        Marketplace(f"sqlite:///{tmp_path}/text").migrate()
    with pytest.raises(EnvironmentFailed, match="there is no marketplace store"):
        Marketplace(f"sqlite:///{tmp_path}/missing.db", exists=True)
