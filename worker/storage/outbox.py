"""The outbox: a batch carries a mark, ``emitted_at``, instead of a copy of its events.

Events are rebuilt from ledger rows and changes, byte-equal, so the mark is all that is needed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from worker.portability.requests import Lane
from worker.storage import statements
from worker.storage.statements import Statement

_ADD = text("""
    INSERT INTO lookup_batch (id, lane, decided_at, numbers)
    SELECT CAST(:id AS uuid), :lane, :decided_at, :numbers
    WHERE :with_changes OR EXISTS (SELECT FROM check_request WHERE batch_id = CAST(:id AS uuid))
    ON CONFLICT (id) DO NOTHING
""")

_MARK = text(
    "UPDATE lookup_batch SET emitted_at = :emitted_at WHERE id = CAST(:id AS uuid) AND emitted_at IS NULL"
)

_STALE = text("""
    SELECT id FROM lookup_batch
    WHERE emitted_at IS NULL AND decided_at < now() - make_interval(secs => :older_than_seconds)
    ORDER BY decided_at LIMIT :most FOR UPDATE SKIP LOCKED
""")


def adding(
    batch_id: str, *, lane: Lane, decided_at: datetime, numbers: int, with_changes: bool
) -> Statement[None]:
    """Add a batch whose events are still to be sent, unless it has none: neither a row nor a change."""
    values = {
        "id": batch_id,
        "lane": lane.value,
        "decided_at": decided_at,
        "numbers": numbers,
        "with_changes": with_changes,
    }
    return Statement(_ADD, values, statements.nothing)


def mark_emitted(connection: Connection, batch_id: str, emitted_at: datetime) -> None:
    """Say that the broker has confirmed every event of a batch."""
    connection.execute(_MARK, {"id": batch_id, "emitted_at": emitted_at})


def stale_batches(connection: Connection, *, older_than_seconds: float, most: int) -> list[str]:
    """Return batches whose events were not confirmed in time, locked until the transaction ends."""
    rows = connection.execute(_STALE, {"older_than_seconds": older_than_seconds, "most": most})
    return [str(batch_id) for (batch_id,) in rows]
