"""Both stores on the bench: Postgres and memory, each with a clock that the test moves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from unittest.mock import patch

import psycopg
from psycopg import sql
from sqlalchemy import Engine, text

from tests.simulation.memory_store import MemoryStore, Tables
from worker.storage import postgres_store
from worker.storage.budget import Budget
from worker.storage.engine import connect
from worker.storage.postgres_store import PostgresStore
from worker.storage.presence import Absences
from worker.storage.store import Store

BEGAN = datetime(2026, 11, 24, 4, tzinfo=UTC)
JITTER = 0.75


class Stores(Protocol):
    """One kind of store: processes that share its tables, and what the tables hold."""

    def now(self) -> datetime:
        """The database's own time."""

    def pass_time(self, seconds: float) -> None:
        """Let time go by, for the database and for every process."""

    def process(self, daily: Budget = ...) -> Store:
        """The store of one more process."""

    def die(self, process: Store) -> None:
        """End a process, and return once the database knows."""

    def calls(self) -> dict[str, tuple[Any, ...]]:
        """Calls by id: outcome, answered_at, numbers, billed, unanswered, overtaken, reserved."""

    def in_flight(self) -> dict[str, str]:
        """Which call holds each number."""

    def rest(self) -> dict[str, Any]:
        """What else is stored, table by table."""


class InMemory:
    """Stores in memory."""

    def __init__(self) -> None:
        self._at = BEGAN
        self._tables = Tables(self.now)

    def now(self) -> datetime:
        return self._at

    def pass_time(self, seconds: float) -> None:
        self._at += timedelta(seconds=seconds)

    def process(self, daily: Budget = Budget()) -> Store:  # noqa: B008 - frozen
        return MemoryStore(self._tables, daily=daily, clock=self._seconds, jitter=JITTER)

    def _seconds(self) -> float:
        return (self._at - BEGAN).total_seconds()

    def die(self, process: Store) -> None:
        assert isinstance(process, MemoryStore)
        process.close()

    def calls(self) -> dict[str, tuple[Any, ...]]:
        return {
            call_id: (
                row.outcome,
                row.answered_at,
                row.numbers,
                row.billed,
                row.unanswered,
                row.overtaken and sorted(row.overtaken),
                row.reserved,
            )
            for call_id, row in self._tables.calls.items()
        }

    def in_flight(self) -> dict[str, str]:
        return {msisdn: call_id for msisdn, (call_id, _) in self._tables.in_flight.items()}

    def rest(self) -> dict[str, Any]:
        tables = self._tables
        return {
            "letters": {each.id: (each.reason, each.payload) for each in tables.letters.values()},
            "taken": tables.days,
            "changes": {(each.msisdn, each.recipient, each.batch_id) for each in tables.changes.values()},
            "batches": {name: (row.decided_at, row.emitted_at) for name, row in tables.batches.items()},
            "rows": {tuple(row.key): row.batch_id for row in tables.ledger.values()},
        }


class InPostgres:
    """Stores in Postgres, whose ``now()`` is the test's: a function found before the built-in one."""

    def __init__(self, database_url: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA clock")
            connection.execute("CREATE TABLE clock.moment AS SELECT CAST(NULL AS timestamptz) AS at")
            connection.execute(
                "CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE "
                "AS 'SELECT at FROM clock.moment'"
            )
            alter = sql.SQL("ALTER DATABASE {} SET search_path = clock, pg_catalog, public")
            connection.execute(alter.format(sql.Identifier(connection.info.dbname)))
        self._database: Engine = connect(database_url)
        self._processes: list[PostgresStore] = []
        self._move_to(BEGAN)

    def clear(self) -> None:
        """Empty the tables and begin anew, without the processes there were."""
        for process in self._processes:
            self.die(process)
        self._processes.clear()
        with self._database.begin() as to:
            for (name,) in self._rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                if name != "alembic_version":
                    to.execute(text(f"DELETE FROM {name}"))
        self._move_to(BEGAN)

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._database.dispose()

    def _move_to(self, moment: datetime) -> None:
        self._at = moment
        with self._database.begin() as to:
            to.execute(text("UPDATE clock.moment SET at = :at"), {"at": moment})

    def now(self) -> datetime:
        return self._at

    def pass_time(self, seconds: float) -> None:
        self._move_to(self._at + timedelta(seconds=seconds))

    def process(self, daily: Budget = Budget()) -> Store:  # noqa: B008 - frozen
        with patch.object(postgres_store, "Absences", partial(Absences, self._seconds)):
            made = PostgresStore(self._database, daily=daily)
        self._processes.append(made)
        return made

    def _seconds(self) -> float:
        return (self._at - BEGAN).total_seconds()

    def die(self, process: Store) -> None:
        assert isinstance(process, PostgresStore)
        process.close()
        deadline = time.monotonic() + 10
        # a process that has claimed nothing yet has no lock
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = :owner"
        while self._rows(held, owner=process._presence.owner):
            assert time.monotonic() < deadline, "a closed process still holds its lock"
            time.sleep(0.005)

    def calls(self) -> dict[str, tuple[Any, ...]]:
        rows = self._rows(
            "SELECT id, outcome, answered_at, numbers, billed, unanswered, overtaken, reserved "
            "FROM lookup_call"
        )
        return {
            str(id_): (outcome, answered_at, numbers, billed, _words(unanswered), _words(overtaken), reserved)
            for id_, outcome, answered_at, numbers, billed, unanswered, overtaken, reserved in rows
        }

    def in_flight(self) -> dict[str, str]:
        return {str(msisdn): str(id_) for msisdn, id_ in self._rows("SELECT msisdn, call_id FROM in_flight")}

    def rest(self) -> dict[str, Any]:
        return {
            "letters": {
                str(id_): (reason, json.loads(payload) if isinstance(payload, str) else payload)
                for id_, reason, payload in self._rows("SELECT id, reason, payload FROM dead_letter")
            },
            "taken": dict(self._rows("SELECT day, taken FROM budget_day")),
            "changes": {
                (str(msisdn), recipient, str(batch_id))
                for msisdn, recipient, batch_id in self._rows(
                    "SELECT msisdn, recipient, batch_id FROM port_change"
                )
            },
            "batches": {
                str(id_): (decided_at, emitted_at)
                for id_, decided_at, emitted_at in self._rows(
                    "SELECT id, decided_at, emitted_at FROM lookup_batch"
                )
            },
            "rows": {
                tuple(key): str(batch_id)
                for *key, batch_id in self._rows(
                    "SELECT source, lane, reference, attempt, batch_id FROM check_request"
                )
            },
        }

    def _rows(self, query: str, **values: Any) -> list[Any]:
        with self._database.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]


@contextmanager
def in_postgres(database_url: str) -> Iterator[InPostgres]:
    """Stores in a fresh database; the pauses of a failing provider without their chance."""
    with patch("random.uniform", return_value=JITTER):
        made = InPostgres(database_url)
        try:
            yield made
        finally:
            made.close()


def _words(msisdns: list[int] | None) -> list[str] | None:
    return None if msisdns is None else sorted(map(str, msisdns))
