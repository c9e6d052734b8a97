"""Step 5: the one transaction of a batch. Safe to run twice: what is there already stays."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from worker.batch import Batch
from worker.buyer import Bought, EndedCall, Purchase
from worker.portability.changes import merged, observed_change
from worker.portability.records import CheckedRequest, PortChange
from worker.portability.requests import RequestKey
from worker.storage import calls, ledger, outbox, port_records


def store(
    connection: Connection, *, batch: Batch, purchase: Purchase | None
) -> dict[RequestKey, CheckedRequest]:
    """Store records, changes, ledger rows, the outbox mark and how the calls ended.

    Returns the rows of keys that were decided before, by another worker or by an earlier run of this
    transaction whose COMMIT was not answered: those rows stand.
    """
    purchase = purchase or Purchase()
    batch.changes = _store_records(connection, batch.id, purchase.bought)
    added = ledger.add(connection, batch.rows)
    if added or batch.changes:
        numbers = len({row.msisdn for row in batch.rows})
        outbox.add_batch(connection, batch.id, lane=batch.lane, decided_at=batch.now, numbers=numbers)
    for ended in purchase.ended:
        _close(connection, ended, purchase)
    others = [row.key for row in batch.rows if row.key not in added]
    return ledger.find(connection, others) if others else {}


def _store_records(connection: Connection, batch_id: str, bought: Mapping[str, Bought]) -> list[PortChange]:
    """Store what was learned; return the changes of operator against the records as they stood."""
    if not bought:
        return []
    stored = port_records.lock(connection, bought)
    changes, records = [], []
    for msisdn, answer in bought.items():
        old, new = stored.get(msisdn), answer.record()
        change = observed_change(old, new, batch_id=batch_id)
        if change is not None:
            changes.append(change)
        records.append(merged(old, new))
    port_records.put(connection, records)
    port_records.add_changes(connection, changes)
    return changes


def _close(connection: Connection, ended: EndedCall, purchase: Purchase) -> None:
    calls.close_call(
        connection,
        ended.call.id,
        outcome=ended.outcome,
        answered_at=ended.answered_at,
        numbers=ended.call.numbers,
        billed=ended.billed,
        unanswered=[msisdn for msisdn in ended.msisdns if purchase.unanswered.get(msisdn)],
    )
    calls.release(connection, ended.call.id, ended.msisdns)
