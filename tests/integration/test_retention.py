"""``presend db prune`` and upkeep's own: what goes, what must stay, and that no sum changes by it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from tests.commands import environment, presend
from worker.storage import engine, retention
from worker.storage.engine import connect
from worker.storage.postgres_store import PostgresStore
from worker.storage.retention import PRUNED, Retention
from worker.upkeep import Upkeep

NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=91), NOW - timedelta(days=89)
KEPT = Retention(
    ledger=timedelta(days=90),
    dead_letters=timedelta(days=365),
    port_changes=timedelta(days=730),
    jobs=timedelta(days=30),
)


class Ledger:
    """Rows written by hand, at any age."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def batch(
        self, decided_at: datetime, *, emitted: bool = True, requests: int = 1, lane: str = "sms"
    ) -> str:
        batch_id = str(uuid.uuid4())
        self.connection.execute(
            "INSERT INTO lookup_batch VALUES (%s, %s, %s, 1, %s)",
            (batch_id, lane, decided_at, decided_at if emitted else None),
        )
        for _ in range(requests):
            self.connection.execute(
                "INSERT INTO check_request (source, lane, reference, attempt, msisdn, decision, reason,"
                " batch_id, event_id, received_at, decided_at) VALUES ('', %s, %s, 1, 13912345678, 'resend',"
                " 'same_operator', %s, %s, %s, %s)",
                (lane, uuid.uuid4().hex, batch_id, uuid.uuid4(), decided_at, decided_at),
            )
        return batch_id

    def call(self, sent_at: datetime, outcome: str = "answered", **columns: Any) -> None:
        columns = {"billed": 7, "unanswered": None, "overtaken": None} | columns
        self.connection.execute(
            "INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, billed, unanswered,"
            " overtaken, outcome, until, owner) VALUES (%s, %s, 'sms', 'p', %s, 9, %s, %s, %s, %s, %s, 1)",
            (uuid.uuid4(), uuid.uuid4(), sent_at, *columns.values(), outcome, sent_at),
        )

    def letter(self, received_at: datetime, replayed_at: datetime | None = None) -> None:
        self.connection.execute(
            "INSERT INTO dead_letter VALUES (%s, 'sms.recheck', '{}', 'r', 'sms', %s, %s)",
            (uuid.uuid4(), received_at, replayed_at),
        )

    def change(self, seen_at: datetime, batch_id: str) -> None:
        self.connection.execute(
            "INSERT INTO port_change VALUES (13912345678, 'CMCC', 'CUCC', %s, %s, false, %s, %s)",
            (seen_at - timedelta(days=1), seen_at, batch_id, uuid.uuid4()),
        )

    def job(self, changed_at: datetime, *, parts: int) -> None:
        job_id = uuid.uuid4()
        counts = (
            "rows", "bad_rows", "numbers", "not_ported", "ported", "virtual", "unknown", "invalid",
            "unanswered", "charged", "parts", "parts_done", "failures",
        )  # fmt: skip
        self.connection.execute(
            f"INSERT INTO job (id, account_id, name, state, column_name, created_at, changed_at, "
            f"{', '.join(counts)}) VALUES (%s, %s, 'a.csv', 'paused', '1', %s, %s, {', '.join('1' * 13)})",
            (job_id, uuid.uuid4(), changed_at, changed_at),
        )
        for place in range(parts):
            self.connection.execute(
                "INSERT INTO job_part (job_id, place, lines, refs, msisdns, done, tries)"
                " VALUES (%s, %s, '{1}', '{0}', '{13912345678}', false, 0)",
                (job_id, place),
            )
        self.connection.execute("INSERT INTO job_error VALUES (%s, 2, '1391', 'length')", (job_id,))

    def sums(self) -> list[Any]:
        return self.connection.execute("SELECT * FROM ledger_sum ORDER BY 1, 2, 3, 4").fetchall()

    def counts(self) -> dict[str, int]:
        tables = LEFT
        return {
            table: self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index]
            for table in tables
        }


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    made = Ledger(database_url)
    yield made
    made.connection.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = connect(database_url, connections=2)
    yield made
    made.dispose()


def fill(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.batch(OLD, requests=4)
        ledger.batch(OLD, requests=2, lane="recharge")
    ledger.batch(YOUNG, requests=5)
    ledger.batch(OLD, emitted=False, requests=3)
    for outcome in ("answered", "refused", "calling"):
        ledger.call(OLD, outcome)
    ledger.call(OLD, "lost", billed=None, unanswered=[13912345678, 13912345679], overtaken=[13912345678])
    ledger.call(YOUNG)
    ledger.letter(OLD)
    ledger.letter(NOW - timedelta(days=366))
    ledger.letter(OLD, replayed_at=YOUNG)
    ledger.letter(OLD - timedelta(days=9), replayed_at=OLD)
    ledger.change(NOW - timedelta(days=731), ledger.batch(YOUNG, requests=0))
    ledger.change(NOW - timedelta(days=732), ledger.batch(OLD, emitted=False, requests=0))
    ledger.change(OLD, ledger.batch(YOUNG, requests=0))
    ledger.job(NOW - timedelta(days=31), parts=12)
    ledger.job(NOW - timedelta(days=29), parts=2)


LEFT = {
    "check_request": 5 + 3,  # the young, and those whose events are unsent
    "lookup_call": 2,  # the young, and the open one
    "lookup_batch": 1 + 1 + 3,
    "port_change": 2,
    "dead_letter": 2,  # a year is not over, and a replay is young
    "job_part": 2,
    "job_error": 1,
    "job": 1,
}


def test_prune_deletes_what_is_past_its_time_and_no_sum_changes(ledger: Ledger, database_url: str) -> None:
    fill(ledger)
    env = environment(database_url=database_url)
    before, sums = ledger.counts(), ledger.sums()
    told = json.loads(presend("db", "prune", "--dry-run", "--json", env=env).stdout)
    assert ledger.counts() == before
    assert told["dry_run"]

    done = json.loads(presend("db", "prune", "--json", "--batch", "5", env=env).stdout)
    assert ledger.counts() == LEFT
    assert ledger.sums() == sums
    # batches of pruned requests, and jobs, could not be counted as old before their parts were gone
    assert {**done["rows"], "lookup_batch": 0, "job": 0} == told["rows"]
    assert sum(done["rows"].values()) == sum(before.values()) - sum(LEFT.values())
    assert presend("db", "prune", env=env).stdout == "no row is past its time\n"
    assert ledger.sums() == sums


def test_upkeep_prunes_by_itself(ledger: Ledger, database: Engine) -> None:
    fill(ledger)
    sums = ledger.sums()
    upkeep = Upkeep(
        database=database,
        store=PostgresStore(database),
        carrier=None,
        publisher=None,
        intake={},
        broker_url=None,
        retention=KEPT,  # type: ignore[arg-type]
    )
    upkeep.prune()
    assert ledger.counts() == LEFT
    assert ledger.sums() == sums
    upkeep.prune()  # finds nothing, and rests
    ledger.batch(OLD)
    upkeep.prune()
    assert ledger.counts()["check_request"] == LEFT["check_request"] + 1


def test_pruning_reads_along_an_index(ledger: Ledger, database: Engine) -> None:
    """A batch must not read a ledger of 90 days to find its 5,000 rows."""
    ledger.connection.execute(
        "INSERT INTO check_request (source, lane, reference, attempt, decision, reason, batch_id, event_id,"
        " received_at, decided_at) SELECT '', 'sms', n::text, 1, 'resend', 'same_operator',"
        " gen_random_uuid(), gen_random_uuid(), at, at"
        " FROM (SELECT n, now() - n * interval '1 minute' AS at"
        " FROM generate_series(1, 150000) n) rows"
    )
    ledger.connection.execute("ANALYZE check_request")

    def plan(connection: Any) -> str:
        statement = retention._PRUNED["check_request"].delete
        values = KEPT.bounds(NOW) | {"most": 100}
        rows = connection.execute(type(statement)(f"EXPLAIN {statement.text}"), values)
        return "\n".join(row[0] for row in rows)

    shown = engine.transact(database, plan)
    assert "Index Scan using check_request_decided_at_idx" in shown
    assert "Seq Scan on check_request" not in shown


def test_two_may_prune_at_once(ledger: Ledger, database: Engine) -> None:
    for _ in range(4):
        ledger.batch(OLD, requests=5)
    sums = ledger.sums()
    with database.begin() as one:
        assert retention.prune_some(one, PRUNED[0], KEPT, NOW, most=10) == 10
        # the second takes other rows; the sums of one day wait for the first to commit
        with psycopg.connect(ledger.connection.info.dsn) as second:
            waiting = second.execute(
                "SELECT count(*) FROM (SELECT FROM check_request FOR UPDATE SKIP LOCKED) free"
            ).fetchone()
        assert waiting == (10,)
    with database.begin() as other:
        assert retention.prune_some(other, PRUNED[0], KEPT, NOW, most=100) == 10
    assert ledger.sums() == sums
