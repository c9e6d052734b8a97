"""Retention: rows past their time are deleted a batch at a time, and what they added up to stays.

Each batch is one short transaction that deletes rows and adds them to ``daily_sum``; so the view
``ledger_sum``, which adds up both, never changes by it. Nothing that is still at work is deleted: no
request or change of a batch whose events are unsent, no open call. Safe to run by several at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, TextClause, text

AT_ONCE = 5000
"""Rows a transaction deletes at most."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept."""

    # decided requests, batches, calls, readings of the balance; replayed dead letters, from their replay
    ledger: timedelta
    # dead letters nobody replayed, from their receipt
    dead_letters: timedelta
    # from when the change was seen
    port_changes: timedelta
    # callers' lists, from when they last got on
    jobs: timedelta

    def bounds(self, now: datetime) -> dict[str, datetime]:
        """The moments before which rows go, as the statements name them."""
        return {
            "ledger": now - self.ledger,
            "dead_letters": now - self.dead_letters,
            "port_changes": now - self.port_changes,
            "jobs": now - self.jobs,
        }


@dataclass(frozen=True, slots=True)
class _Prunable:
    """Rows of a table that may go, and what of them is added up."""

    table: str
    # which rows r; :ledger, :dead_letters, :port_changes, :jobs are moments
    old: str
    # rows are deleted in this order, along an index where there are many
    order: str

    @property
    def count(self) -> TextClause:
        return text(f"SELECT count(*) FROM {self.table} r WHERE {self.old}")  # noqa: S608 - ours

    @property
    def delete(self) -> TextClause:
        return _delete(self.table, f"{self.old} ORDER BY {self.order} LIMIT :most FOR UPDATE SKIP LOCKED")


def _delete(table: str, which: str) -> TextClause:
    """Delete these rows r of a table, add them up, and return how many they were."""
    sums = _SUMS.get(table)
    added = (
        ""
        if sums is None
        else f""", added AS (
            INSERT INTO daily_sum AS d (day, lane, kind, name, total) {sums} ORDER BY 1, 2, 3, 4
            ON CONFLICT (day, lane, kind, name) DO UPDATE SET total = d.total + excluded.total
        )"""
    )
    return text(f"""
        WITH old AS (
            SELECT r.ctid FROM {table} r WHERE {which}
        ), gone AS (
            DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM old)) RETURNING *
        ){added}
        SELECT count(*) FROM gone
    """)  # noqa: S608 - ours


_OLD_JOB = "r.job_id IN (SELECT id FROM job WHERE changed_at < :jobs)"
_UNSENT = "EXISTS (SELECT FROM lookup_batch b WHERE b.id = r.batch_id AND b.emitted_at IS NULL)"

# day, lane, kind, name and total of deleted rows, in the words of the view ledger_sum (see migrations/)
_DECISIONS = """
    SELECT (decided_at AT TIME ZONE 'Asia/Shanghai')::date, lane, 'decisions',
           decision || ' (' || reason || ')', count(*)
    FROM gone GROUP BY 1, 2, 4
"""
_CALLS = """
    SELECT (sent_at AT TIME ZONE 'Asia/Shanghai')::date, lane, part.kind, outcome, sum(part.total)
    FROM gone, LATERAL (VALUES
        ('calls', 1), ('numbers', numbers), ('billed', billed),
        ('unanswered', cardinality(unanswered)), ('overtaken', cardinality(overtaken))
    ) AS part(kind, total)
    WHERE part.total > 0 GROUP BY 1, 2, 3, 4
"""
_PORT_CHANGES = """
    SELECT (observed_before AT TIME ZONE 'Asia/Shanghai')::date, '', 'port changes',
           donor || ' to ' || recipient, count(*)
    FROM gone GROUP BY 1, 4
"""
_DEAD_LETTERS = """
    SELECT (received_at AT TIME ZONE 'Asia/Shanghai')::date,
           CASE WHEN task LIKE 'recharge.%' THEN 'recharge' WHEN task LIKE 'sms.%' THEN 'sms' ELSE '' END,
           'dead letters', CASE WHEN replayed_at IS NULL THEN 'not replayed' ELSE 'replayed' END, count(*)
    FROM gone GROUP BY 1, 2, 4
"""

NEVER_REPLAYED = "dead_letter, never replayed"
"""Going unseen would be a loss: whoever prunes says how many went."""

_SUMS = {
    "check_request": _DECISIONS,
    "lookup_call": _CALLS,
    "port_change": _PORT_CHANGES,
    "dead_letter": _DEAD_LETTERS,
}

_PRUNED = {
    "check_request": _Prunable("check_request", f"r.decided_at < :ledger AND NOT {_UNSENT}", "r.decided_at"),
    "lookup_call": _Prunable("lookup_call", "r.sent_at < :ledger AND r.outcome <> 'calling'", "r.sent_at"),
    "lookup_batch": _Prunable(
        "lookup_batch",
        "r.decided_at < :ledger AND r.emitted_at IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM check_request c WHERE c.batch_id = r.id)",
        "r.decided_at",
    ),
    "port_change": _Prunable(
        "port_change",
        f"r.observed_before < :port_changes AND NOT {_UNSENT}",
        "r.observed_before",
    ),
    "balance_reading": _Prunable("balance_reading", "r.asked_at < :ledger", "r.account, r.asked_at"),
    # a letter is received before it is replayed, and there is an index on its receipt
    "dead_letter, replayed": _Prunable(
        "dead_letter", "r.received_at < :ledger AND r.replayed_at < :ledger", "r.received_at"
    ),
    NEVER_REPLAYED: _Prunable(
        "dead_letter",
        "r.received_at < :dead_letters AND r.replayed_at IS NULL",
        "r.received_at",
    ),
    "job_part": _Prunable("job_part", _OLD_JOB, "r.job_id, r.place"),
    "job_error": _Prunable("job_error", _OLD_JOB, "r.job_id, r.line"),
    "job": _Prunable(
        "job",
        "r.changed_at < :jobs AND NOT EXISTS (SELECT FROM job_part p WHERE p.job_id = r.id)"
        " AND NOT EXISTS (SELECT FROM job_error e WHERE e.job_id = r.id)",
        "r.changed_at",
    ),
}

PRUNED = tuple(_PRUNED)
"""What is pruned, in this order: a batch goes after its requests, a job after its parts."""


def count_old(connection: Connection, what: str, retention: Retention, now: datetime) -> int:
    """Return how many rows of one of :data:`PRUNED` are past their time; needs a transaction."""
    connection.execute(text("SET LOCAL statement_timeout = '10min'"))  # nobody waits, and it takes no locks
    return int(connection.execute(_PRUNED[what].count, retention.bounds(now)).scalar_one())


def prune_some(
    connection: Connection, what: str, retention: Retention, now: datetime, *, most: int = AT_ONCE
) -> int:
    """Delete at most so many rows of one of :data:`PRUNED`, oldest first; return how many."""
    deleted = connection.execute(_PRUNED[what].delete, retention.bounds(now) | {"most": most})
    return int(deleted.scalar_one())


def delete_summed(connection: Connection, table: str, which: str, values: Mapping[str, object]) -> int:
    """Delete the rows ``r`` of a table for which ``which`` holds, and add them up; return how many."""
    return int(connection.execute(_delete(table, f"{which} FOR UPDATE"), values).scalar_one())
