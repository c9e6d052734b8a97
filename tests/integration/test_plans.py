"""Postgres reads rows by key, whatever it took the tables for when it last looked."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.acceptance.waiting import eventually
from tests.integration.bench import Bench, run
from worker.portability.requests import Lane

_READ_WHOLE = "SELECT relname, n_tup_ins, seq_scan FROM pg_stat_user_tables"
_LARGE = {"check_request", "port_record", "lookup_call", "lookup_batch"}


def test_tables_that_were_vacuumed_while_empty_are_not_read_whole(bench: Bench, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        before = scans(connection)
        pipeline, numbers = bench.pipeline(), bench.known_numbers(88)
        for turn in range(8):  # beyond the five runs after which a statement is planned for good
            batch = numbers[turn * 11 : turn * 11 + 10]
            run(pipeline, *(bench.request(Lane.SMS, number) for number in batch))
            run(pipeline, bench.request(Lane.RECHARGE, numbers[turn * 11 + 10]))
        for store in bench.stores:
            store.close()
        bench.database.dispose()  # Postgres counts what a connection did at its end
        eventually(lambda: scans(connection)["check_request"][0] == len(numbers), "the counts")
        after = scans(connection)
    assert {name: after[name][1] - before[name][1] for name in _LARGE} == dict.fromkeys(_LARGE, 0)


def scans(connection: psycopg.Connection) -> dict[str, Any]:
    """Rows inserted, and times read whole, by table."""
    return {name: counts for name, *counts in connection.execute(_READ_WHOLE)}
