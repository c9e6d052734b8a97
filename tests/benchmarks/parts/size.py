"""Bytes a row: batches of 1000 live answers, claimed, settled and marked through the real store.

Each is of another number, and numbers come in no order, as in earnest; so every index grows as it would.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.acceptance.harness import Place
from tests.benchmarks.ground import Ground
from worker.portability import events
from worker.portability.records import AnsweredFrom, CheckedRequest, PortRecord, Status
from worker.portability.requests import Lane, RequestKey
from worker.storage.calls import ANSWERED, Call, EndedCall
from worker.storage.engine import connect
from worker.storage.ids import new_id
from worker.storage.postgres_store import PostgresStore
from worker.storage.store import Settlement

ROWS, BATCH = 1_000_000, 1000
_TABLES = ("check_request", "port_record", "lookup_call", "lookup_batch")
_SIZES = """
    SELECT pg_table_size(%s::regclass) AS rows, pg_indexes_size(%s::regclass) AS indexes,
        pg_total_relation_size(%s::regclass) AS all
"""


def run(ground: Ground) -> None:
    """In a database of its own."""
    with ground.place_on_rabbitmq() as here:
        measure(ground, here)


def measure(ground: Ground, here: Place) -> None:
    """Store, and look at what has grown."""
    rows = ground.sized(ROWS / BATCH) * BATCH
    database = connect(here.database_url, connections=2)
    store = PostgresStore(database)
    for numbers in _batches(rows):
        _store(store, numbers)
    store.close()
    database.dispose()
    figures: dict[str, Any] = {"rows": rows, "batch": BATCH, "bytes": {}, "bytes_a_row": {}}
    for table in _TABLES:
        size = here.rows(_SIZES, table, table, table)[0]
        count = here.count(table)
        figures["bytes"][table] = size
        figures["bytes_a_row"][table] = {part: round(size[part] / count) for part in size}
    for table, size in figures["bytes_a_row"].items():
        print(f"  {table:16}{size['all']:8} bytes a row, {size['indexes']} of them indexes", flush=True)
    ground.write(figures, here.database_url)


def _batches(rows: int) -> Iterator[list[str]]:
    """Distinct numbers in no order."""
    for first in range(0, rows, BATCH):
        yield [str(13_000_000_000 + index * 7_368_787 % 899_999_963) for index in range(first, first + BATCH)]


def _store(store: PostgresStore, numbers: list[str]) -> None:
    """What a batch that buys them all leaves behind."""
    now, batch_id = datetime.now(UTC), new_id()
    rows = [_row(number, batch_id, now) for number in numbers]
    call = Call(new_id(), batch_id, Lane.SMS, "https://provider.example", now, len(rows), 20.0)
    claim = store.claim(call, {row.msisdn or "": [row.key] for row in rows}, overtaken=())
    assert len(claim.held) == len(rows)
    records = [
        PortRecord(number, Status.NOT_PORTED, "CMCC", "CMCC", "湖北-宜昌", observed_at=now)
        for number in numbers
    ]
    ended = [EndedCall(call, numbers, ANSWERED, now, len(numbers))]
    store.settle(Settlement(batch_id, Lane.SMS, now, rows, records, ended, call.id))
    store.mark_emitted(batch_id, now)


def _row(number: str, batch_id: str, now: datetime) -> CheckedRequest:
    key = RequestKey("", Lane.SMS, uuid4().hex[:20], 1)
    return CheckedRequest(
        source=key.source, lane=key.lane, reference=key.reference, attempt=key.attempt, msisdn=number,
        asked_operator="CMCC", failure_code="MK:0001", status=Status.NOT_PORTED, range_holder="CMCC",
        current_operator="CMCC", target_operator=None, area="湖北-宜昌", observed_at=now, decision="resend",
        reason="same_operator", answered_from=AnsweredFrom.LIVE, batch_id=batch_id, call_id=batch_id,
        event_id=events.event_id(key), received_at=now, decided_at=now,
    )  # fmt: skip
