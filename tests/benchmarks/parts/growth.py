"""The drain's rate with a ledger of 0, 1 and 10 million rows, and as many port records.

Three databases on one server are filled beforehand and drained into in turn; what a run added is deleted
afterwards. The drained numbers and references lie between the filled ones, which are 1 to 80 days old, each
500 of one batch and call. A ratio is of one round: it says what the tables' size costs. In the first round,
after a checkpoint, each page touched is written whole to the log; in later ones only where the server's
settings bring the next checkpoint so soon. They are in the record.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import psycopg
from psycopg import sql

from tests.benchmarks.contestants import PRESEND, Contestant
from tests.benchmarks.course import course
from tests.benchmarks.ground import Ground

ROWS = (0, 1_000_000, 10_000_000)
_FIRST_INDEX = 1_000_000
"""Of the filled items; the drained ones come before it."""
_SINGLES = Contestant(
    "singles", PRESEND, 60_000, fewest=32_000, events="quorum", settings={"PRESEND_TASK_EVENTS": "false"}
)
_CONTESTANTS = (_SINGLES, _SINGLES.but("many", items=120_000, many=True))

_TABLES = ("check_request", "port_record", "lookup_batch", "lookup_call")
_ITEMS = """
    SELECT n, 13900000000 + n::bigint * 7919 %% 99999989 AS msisdn, md5((n / 500)::text)::uuid AS batch,
        now() - interval '80 days' + (n - %(first)s)::float / %(rows)s * interval '79 days' AS at
    FROM generate_series(%(first)s, %(first)s + %(rows)s - 1) n
"""
_FILL = (
    f"""
    INSERT INTO check_request (source, lane, reference, attempt, msisdn, asked_operator, failure_code, status,
        range_holder, current_operator, area, observed_at, decision, reason, answered_from, batch_id, call_id,
        event_id, received_at, decided_at)
    SELECT '', 'sms', 'm' || n, 1, msisdn, 'CMCC', 'MK:0001', 'not_ported', 'CMCC', 'CMCC', '湖北-宜昌', at,
        'undeliverable', 'permanent_failure', 'live', batch, batch, gen_random_uuid(), at, at
    FROM ({_ITEMS}) items
    """,
    f"""
    INSERT INTO port_record (msisdn, status, range_holder, current_operator, area, observed_at, source)
    SELECT msisdn, 'not_ported', 'CMCC', 'CMCC', '湖北-宜昌', at, 'provider' FROM ({_ITEMS}) items
    """,
    f"""
    INSERT INTO lookup_batch (id, lane, decided_at, numbers, emitted_at)
    SELECT batch, 'sms', max(at), count(*), max(at) FROM ({_ITEMS}) items GROUP BY batch
    """,
    f"""
    INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, answered_at, numbers, billed, outcome,
        until, owner)
    SELECT batch, batch, 'sms', 'provider', max(at), max(at), count(*), count(*), 'answered', max(at), 1
    FROM ({_ITEMS}) items GROUP BY batch
    """,
)
_INDEXES = """
    SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), pg_get_constraintdef(c.oid)
    FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid
    WHERE i.indrelid = %s::regclass
"""
_SETTINGS = ("shared_buffers", "huge_pages", "max_wal_size", "checkpoint_timeout", "wal_compression")
_ADDED = {
    "check_request": "decided_at",
    "port_record": "observed_at",
    "lookup_batch": "decided_at",
    "lookup_call": "sent_at",
}


def run(ground: Ground) -> None:
    """Over RabbitMQ, the provider answers at once."""
    rates: dict[str, dict[int, list[float]]] = {who.name: defaultdict(list) for who in _CONTESTANTS}
    postgres: dict[str, dict[int, list[float]]] = {who.name: defaultdict(list) for who in _CONTESTANTS}
    faults: dict[str, dict[str, int]] = {}
    sizes = {rows: ground.sized(rows) if rows else 0 for rows in ROWS}
    with course(ground.folder) as here, ExitStack() as open_here:
        databases = {rows: open_here.enter_context(here.database()) for rows in ROWS}
        for rows, url in databases.items():
            begin = perf_counter()
            fill(url, rows=sizes[rows])
            print(f"  filled {sizes[rows]:,} rows in {perf_counter() - begin:.0f} s", flush=True)
        for turn in range(ground.rounds):
            for who in _CONTESTANTS:
                sized = who.but(who.name, items=max(who.fewest, ground.sized(who.items)))
                for rows, url in databases.items():
                    done = here.drain(sized, kept_database=url)
                    take_back(url)
                    rates[who.name][rows].append(done.rate)
                    postgres[who.name][rows].append(done.postgres_microseconds)
                    if done.faults:
                        faults[f"{turn + 1}, {who.name}, {rows}"] = done.faults
                    print(
                        f"  {turn + 1}  {who.name:8} {sizes[rows]:12,} rows {done.rate:8.0f}/s"
                        f"  Postgres {done.postgres_microseconds:5.1f} us an item  {done.faults or ''}",
                        flush=True,
                    )
        figures: dict[str, Any] = {
            "scale": ground.scale,
            "postgres": _settings(here.postgres_url),
            "rates": rates,
            "postgres_microseconds": postgres,
            "over_empty": {
                name: {rows: _ratio(each[rows], each[0]) for rows in ROWS[1:]} for name, each in rates.items()
            },
            "faults": faults,
        }
        for name, ratios in figures["over_empty"].items():
            for rows, ratio in ratios.items():
                print(f"{ratio:6.2f}  {name}, {sizes[rows]:,} rows : none   [8: 0.95 (0.85)]")
        ground.write(figures, here.broker_url, here.postgres_url)


def fill(url: str, *, rows: int) -> None:
    """Add so many decided requests and port records; indexes are made once the rows are there."""
    with psycopg.connect(url, autocommit=True) as database:
        if rows:
            database.execute("SET maintenance_work_mem = '512MB'")
            made_again = [statement for table in _TABLES for statement in _drop_indexes(database, table)]
            for statement in _FILL:
                database.execute(statement, {"first": _FIRST_INDEX, "rows": rows})  # type: ignore[arg-type]
            for statement in made_again:
                database.execute(statement)  # type: ignore[arg-type]
        database.execute("VACUUM (FREEZE, ANALYZE)")
        database.execute("CHECKPOINT")


def take_back(url: str) -> None:
    """Delete what a run added, so that the next one finds the tables as this one did."""
    with psycopg.connect(url, autocommit=True) as database:
        for table, moment in _ADDED.items():
            database.execute(
                sql.SQL("DELETE FROM {} WHERE {} > now() - interval '1 hour'").format(
                    sql.Identifier(table), sql.Identifier(moment)
                )
            )
        database.execute("VACUUM ANALYZE")


def _drop_indexes(database: psycopg.Connection, table: str) -> list[str]:
    """Drop a table's indexes; return what makes them again."""
    made_again = []
    for name, index, constraint in database.execute(_INDEXES, (table,)).fetchall():
        if constraint is None:
            database.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            made_again.append(index)
        else:
            identifiers = sql.Identifier(table), sql.Identifier(name)
            database.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(*identifiers))
            made_again.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {constraint}")
    return made_again


def _settings(url: str) -> dict[str, str]:
    """What the server is told that matters once the tables are large."""
    with psycopg.connect(url) as database:
        return {
            name: database.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchall()[0][0]
            for name in _SETTINGS
        }


def _ratio(rates: list[float], empty: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(rates, empty, strict=True)), 2)
