"""``presend db``: the database's tables."""

from __future__ import annotations

import click

_EPILOG = """\b
Example:
  export PRESEND_DATABASE_URL=postgresql://presend:secret@127.0.0.1:5432/presend
  presend db upgrade
"""


@click.group("db", epilog=_EPILOG)
def db() -> None:
    """Create and upgrade the database's tables."""


@db.command(epilog=_EPILOG)
@click.option("--revision", default="head", show_default=True, help="Stop at this revision.")
def upgrade(revision: str) -> None:
    """Bring the database up to this release's tables.

    Safe to run again, by several at once, and while workers of this release or the one before are running.
    """
    from worker import config
    from worker.storage import migrations
    from worker.storage.engine import connect

    database_url = config.load().database_url
    engine = connect(database_url, connections=1)
    try:
        before = migrations.current(engine)
        migrations.upgrade(database_url, revision)
        after = migrations.current(engine)
    finally:
        engine.dispose()
    if before == after:
        click.echo(f"database is at {after} already")
    else:
        click.echo(f"database upgraded from {before or 'no tables'} to {after}")


@db.command(epilog="\b\nExample:\n  presend db check && presend worker\n")
def check() -> None:
    """Say whether the database has this release's tables; exit code 1 where it has not."""
    from worker import config
    from worker.processes import preflight

    preflight.require_database(config.load().database_url)
    click.echo("database has every table of this release")
