"""Alembic's entry: run by ``presend db upgrade``, never by hand."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from worker.storage.schema import metadata


def _run() -> None:
    settings = context.config.attributes
    engine = settings["connect"](settings["database_url"], connections=1)
    with engine.connect() as connection:
        # One migration at a time, and never long in the way of running workers.
        connection.execute(text("SET lock_timeout = '3s'"))
        connection.execute(text("SET statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_lock(hashtext('presend migrations'))"))
        connection.commit()
        try:
            context.configure(connection=connection, target_metadata=metadata, compare_type=True)
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(hashtext('presend migrations'))"))
            connection.commit()
    engine.dispose()


_run()
