"""What the provider's ``/balance`` said and when: two rows a stretch of time without a change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from worker.carrier.protocol import FeeType
from worker.portability.reconciliation import LedgerCall, Reading

LONGEST_CALL = timedelta(minutes=15)
"""A call that began longer before a reading is not open in it."""

_LATEST = text("""
    SELECT asked_at, answered_at, fee_type, balance FROM balance_reading
    WHERE account = :account ORDER BY asked_at DESC LIMIT 2
""")
# The second of two equal readings moves on, so that a stretch keeps its first and its last.
_MOVE_ON = text("""
    UPDATE balance_reading SET asked_at = :asked_at, answered_at = :answered_at
    WHERE account = :account AND asked_at = :latest
""")
_ADD = text("""
    INSERT INTO balance_reading (account, asked_at, answered_at, fee_type, balance)
    VALUES (:account, :asked_at, :answered_at, :fee_type, :balance)
    ON CONFLICT (account, asked_at) DO NOTHING
""")
_BETWEEN = text("""
    SELECT asked_at, answered_at, balance FROM balance_reading
    WHERE account = :account AND asked_at <= :until AND asked_at >= coalesce((
        SELECT max(asked_at) FROM balance_reading WHERE account = :account AND asked_at <= :since
    ), '-infinity')
    ORDER BY asked_at
""")
_CALLS = text("""
    SELECT id, sent_at,
           CASE WHEN outcome = 'calling' THEN NULL ELSE coalesce(answered_at, until) END,
           numbers, coalesce(billed, 0), coalesce(cardinality(unanswered), 0), outcome = 'refused'
    FROM lookup_call
    WHERE provider = :provider AND sent_at >= :since AND sent_at <= :until ORDER BY sent_at
""")


def latest(connection: Connection, account: str) -> tuple[Reading, FeeType] | None:
    """Return the account's newest reading, and how it is billed."""
    row = connection.execute(_LATEST, {"account": account}).first()
    if row is None:
        return None
    return Reading(row.asked_at, row.answered_at, row.balance), FeeType(row.fee_type)


def add(connection: Connection, account: str, reading: Reading, fee_type: FeeType) -> None:
    """Keep a reading; of equal ones in a row the first and the last stay. Safe to run again."""
    values = {
        "account": account,
        "asked_at": reading.asked_at,
        "answered_at": reading.answered_at,
        "fee_type": fee_type.value,
        "balance": reading.balance,
    }
    before = connection.execute(_LATEST, {"account": account}).all()
    unchanged = len(before) == 2 and all((row[2], row[3]) == (fee_type, reading.balance) for row in before)
    if unchanged and reading.asked_at > before[0][0]:
        connection.execute(_MOVE_ON, values | {"latest": before[0][0]})
    else:
        connection.execute(_ADD, values)


def between(connection: Connection, account: str, *, since: datetime, until: datetime) -> list[Reading]:
    """Return the readings of a time, oldest first, beginning with the last one before it."""
    values = {"account": account, "since": since, "until": until}
    return [Reading(*row) for row in connection.execute(_BETWEEN, values)]


def calls(connection: Connection, provider: str, *, since: datetime, until: datetime) -> Iterator[LedgerCall]:
    """Yield the provider's calls that may have been open between two moments, by when they were sent.

    Needs a transaction, in which they are read a thousand at a time.
    """
    values = {"provider": provider, "since": since - LONGEST_CALL, "until": until + LONGEST_CALL}
    rows = connection.execution_options(yield_per=1000).execute(_CALLS, values)
    for call_id, sent_at, ended_at, numbers, billed, lost, failed in rows:
        yield LedgerCall(str(call_id), sent_at, ended_at, numbers, billed, lost, failed)
