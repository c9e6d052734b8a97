"""Migrations: up, down and up again, and nothing in the schema that no migration makes."""

from __future__ import annotations

from sqlalchemy import inspect

from worker.storage import migrations
from worker.storage.engine import connect
from worker.storage.schema import metadata


def test_up_down_and_up_again(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    assert migrations.pending(engine)
    migrations.upgrade(empty_database_url)
    assert not migrations.pending(engine)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    migrations.downgrade(empty_database_url, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrations.upgrade(empty_database_url)
    engine.dispose()


def test_the_migrations_make_the_schema_the_code_expects(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)
    migrations.check(empty_database_url)  # raises on any difference


def test_in_flight_outlives_a_crash_of_postgres(empty_database_url: str) -> None:
    """An unlogged table is emptied then, and a number whose call is on the wire would be bought again."""
    migrations.upgrade(empty_database_url)
    engine = connect(empty_database_url)
    with engine.connect() as connection:
        kind = connection.exec_driver_sql("SELECT relpersistence FROM pg_class WHERE relname = 'in_flight'")
        assert kind.scalar() == "p"
    engine.dispose()
