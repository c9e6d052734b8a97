"""Deleting half of a ledger of a million rows: how long, and what it costs the batches stored meanwhile.

Batches of 1000 rows are stored one after the other, without a pause, in three ways: alone,
beside upkeep's pruning (5,000 rows a second), and beside ``presend db prune``, which does not pause.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median

import psycopg
from sqlalchemy import Engine

from tests.benchmarks.ground import Ground
from tests.commands import command, environment
from worker.portability.records import AnsweredFrom, CheckedRequest, Status
from worker.portability.requests import Lane
from worker.storage import engine, ledger, retention, statements
from worker.storage.engine import connect
from worker.storage.ids import new_id
from worker.storage.retention import Retention

ROWS, OLD_ROWS, BATCHES, ROUNDS = 1_000_000, 500_000, 20, 15
KEPT = Retention(
    ledger=timedelta(days=90),
    dead_letters=timedelta(days=365),
    port_changes=timedelta(days=730),
    jobs=timedelta(days=30),
)
_FILL = """
    INSERT INTO check_request (source, lane, reference, attempt, msisdn, asked_operator, status, range_holder,
        current_operator, decision, reason, answered_from, batch_id, event_id, received_at, decided_at)
    SELECT '', 'sms', md5(n::text), 1, 13000000000 + n, 'CMCC', 'not_ported', 'CMCC', 'CMCC', 'resend',
        'same_operator', 'live', md5((n / 500)::text)::uuid, gen_random_uuid(), at, at
    FROM (SELECT n, now() - interval '180 days' + (n / 500) * interval '129.6 seconds' * 60 AS at
          FROM generate_series(1, %s) n) rows
"""
_references = itertools.count()


def run(ground: Ground) -> None:
    """In a database of its own."""
    with ground.place_on_rabbitmq() as here:
        measure(ground, here.database_url)


def measure(ground: Ground, database_url: str) -> None:
    """Store batches alone and beside both ways of pruning."""
    rows, old_rows = ground.sized(ROWS), ground.sized(OLD_ROWS)
    database = connect(database_url, connections=4)
    fill(database_url, rows=rows)
    alone: list[float] = []
    beside_upkeep: list[float] = []
    beside_command: list[float] = []
    for _ in range(ground.sized(ROUNDS)):  # short turns: a busy machine is busy for both
        alone += store_batches(database)
        beside_upkeep += while_running(lambda: upkeeps_pruning(database), lambda: store_batches(database))
    pruning = subprocess.Popen(
        command("db", "prune"), env=environment(database_url=database_url), stdout=sys.stderr
    )
    while pruning.poll() is None:
        beside_command += store_batches(database, batches=5)
    assert pruning.wait() == 0
    fill(database_url, rows=old_rows)  # as many again, all of them old, for the command by itself
    begin = time.perf_counter()
    subprocess.run(command("db", "prune"), env=environment(database_url=database_url), check=True)
    seconds = time.perf_counter() - begin
    with database.connect() as connection:
        added = connection.exec_driver_sql("SELECT sum(total) FROM daily_sum").scalar()
    database.dispose()
    figures = {
        "rows": rows,
        "pruned": old_rows,
        "seconds": round(seconds, 1),  # the command's start, a second or more, included
        "rows_per_second": round(old_rows / seconds),
        "batch_of_1000_ms": round(median(alone) * 1000, 1),
        "batch_of_1000_beside_upkeep_ms": round(median(beside_upkeep) * 1000, 1),
        "batch_of_1000_beside_command_ms": round(median(beside_command) * 1000, 1),
        "summed": int(added or 0),
    }
    print(f"prune: {figures}", flush=True)
    ground.write(figures, database_url)


def fill(url: str, *, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL.replace("md5(n::text)", f"md5(n::text || '{next(_references)}')"), (rows,))
        connection.execute("VACUUM ANALYZE check_request")


def store_batches(database: Engine, *, batches: int = BATCHES) -> list[float]:
    """Store batches of 1000 rows as a lane does; the seconds of each."""
    seconds = []
    for _ in range(batches):
        rows = batch()
        begin = time.perf_counter()
        engine.transact(database, lambda to, rows=rows: statements.run(to, ledger.adding(rows)))
        seconds.append(time.perf_counter() - begin)
    return seconds


def batch() -> list[CheckedRequest]:
    now, batch_id = datetime.now(UTC), new_id()
    return [
        CheckedRequest(
            source="", lane=Lane.SMS, reference=f"bench-{next(_references)}", attempt=1,
            msisdn=str(13_000_000_000 + next(_references) * 7919 % 900_000_000), asked_operator="CMCC",
            failure_code=None, status=Status.NOT_PORTED, range_holder="CMCC", current_operator="CMCC",
            target_operator=None, area=None, observed_at=now, decision="resend", reason="same_operator",
            answered_from=AnsweredFrom.LIVE, batch_id=batch_id, call_id=batch_id, event_id=new_id(),
            received_at=now, decided_at=now,
        )
        for _ in range(1000)
    ]  # fmt: skip


def upkeeps_pruning(database: Engine) -> None:
    """One batch, and a second's rest, as upkeep does."""
    engine.transact(database, lambda to: retention.prune_some(to, "check_request", KEPT, datetime.now(UTC)))
    time.sleep(1.0)


def while_running(aside: Callable[[], None], measured: Callable[[], list[float]]) -> list[float]:
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            aside()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return measured()
    finally:
        over.set()
        thread.join()
