"""``presend db``: the database's tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from worker.cli.screen import console, counted, print_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.storage.retention import Retention

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


@db.command(epilog="\b\nExamples:\n  presend db prune --dry-run\n  presend db prune\n")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, rows by table.")
@click.option(
    "--batch",
    "most",
    default=5000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Rows a transaction deletes at most.",
)
def prune(dry_run: bool, as_json: bool, most: int) -> None:
    """Delete rows past their time, in small transactions; the view ledger_sum keeps their sums.

    PRESEND_LEDGER_DAYS, PRESEND_DEAD_LETTER_DAYS and PRESEND_PORT_CHANGE_DAYS say how long that is. Upkeep
    does the same by itself, little by little. Safe while workers run, and to interrupt.
    """
    from worker import bootstrap, config

    settings = config.load()
    retention = bootstrap.retention(settings)
    with _database(settings.database_url) as database:
        begin = time.monotonic()
        rows = _count_old(database, retention) if dry_run else _prune(database, retention, most)
        seconds = time.monotonic() - begin
    if as_json:
        print_json({"dry_run": dry_run, "seconds": round(seconds, 3), "rows": rows})
        return
    if not any(rows.values()):
        click.echo("no row is past its time")
        return
    for what, number in rows.items():
        click.echo(f"{number:>12,}  {what}")
    total = counted(sum(rows.values()), "row")
    click.echo(f"would delete {total}" if dry_run else f"deleted {total} in {seconds:.1f} s")


def _count_old(database: Engine, retention: Retention) -> dict[str, int]:
    from functools import partial

    from worker.storage import engine
    from worker.storage.retention import PRUNED, count_old

    count = partial(count_old, retention=retention, now=datetime.now(UTC))
    return {what: engine.transact(database, partial(count, what=what)) for what in PRUNED}


def _prune(database: Engine, retention: Retention, most: int) -> dict[str, int]:
    from functools import partial

    from worker.storage import engine
    from worker.storage.retention import PRUNED, prune_some

    now = datetime.now(UTC)
    rows = dict.fromkeys(PRUNED, 0)
    with console(stderr=True).status("pruning") as shown:
        for what in PRUNED:
            while gone := engine.transact(
                database, partial(prune_some, what=what, retention=retention, now=now, most=most)
            ):
                rows[what] += gone
                shown.update(f"pruning {what}: {counted(rows[what], 'row')}")
    return rows


@contextmanager
def _database(database_url: str) -> Iterator[Engine]:
    from worker.storage.engine import connect

    database = connect(database_url, connections=1)
    try:
        yield database
    finally:
        database.dispose()
