"""What people look at: rates, latest calls and batches, decisions, spend, what waits unsent.

Every statement goes along an index and reads a bounded number of rows, whatever the tables hold: a page must
not slow down what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.portability.requests import Lane

MOST_COUNTED = 100_000
"""Rows a count reads at most; it says so where there are more."""


@dataclass(frozen=True, slots=True)
class OpenCalls:
    """A lane's calls to the provider that are on the wire now."""

    calls: int
    numbers: int
    oldest_sent_at: datetime


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call to the provider."""

    id: str
    batch_id: str
    lane: Lane
    sent_at: datetime
    answered_at: datetime | None
    numbers: int
    # None: not known, or not yet
    billed: int | None
    outcome: str
    # numbers that may have been billed without an answer
    unanswered: int
    # numbers bought although another call had them in flight
    overtaken: int

    @property
    def seconds(self) -> float | None:
        """From sending to the answer."""
        return None if self.answered_at is None else (self.answered_at - self.sent_at).total_seconds()


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One transaction, and when its events were confirmed."""

    id: str
    lane: Lane
    decided_at: datetime
    numbers: int
    emitted_at: datetime | None


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One decided request."""

    lane: Lane
    source: str
    reference: str
    attempt: int
    msisdn: str | None
    status: str | None
    current_operator: str | None
    target_operator: str | None
    decision: str
    reason: str
    answered_from: str | None
    batch_id: str
    call_id: str | None
    received_at: datetime
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class DecisionCount:
    """How often something was decided."""

    lane: Lane
    decision: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """Batches whose events the broker has not confirmed."""

    batches: int
    oldest_at: datetime | None


SPEND_SLOT = timedelta(minutes=15)
"""What spend is added up by: every time zone's midnight begins one."""


@dataclass(frozen=True, slots=True)
class SpendSlot:
    """What the calls of a quarter of an hour bought, by lane."""

    begin: datetime
    lane: Lane
    calls: int
    numbers: int
    billed: int
    # numbers whose answer was lost: they may have been billed too
    unanswered: int


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the provider took, of the latest calls answered, in seconds."""

    calls: int
    median: float | None
    p95: float | None


_RATES = text("""
    SELECT lane, count(*) FROM (
        SELECT lane FROM check_request
        WHERE decided_at >= now() - make_interval(secs => :seconds) LIMIT :most
    ) r GROUP BY lane
""")
_OPEN_CALLS = text("""
    SELECT lane, count(*), sum(numbers), min(sent_at) FROM lookup_call WHERE outcome = 'calling' GROUP BY lane
""")
# a batch is a row whatever it holds, so this reads a thousandth of what the ledger would cost at full load
_SERIES = text("""
    SELECT floor(extract(epoch FROM decided_at) / :step)::bigint * :step, lane, sum(numbers)
    FROM lookup_batch WHERE decided_at >= :since AND decided_at < :until GROUP BY 1, 2
""")
_BOUGHT_SERIES = text("""
    SELECT floor(extract(epoch FROM sent_at) / :step)::bigint * :step, sum(numbers)
    FROM lookup_call WHERE sent_at >= :since AND sent_at < :until GROUP BY 1
""")
_CALL_COLUMNS = """
    id, batch_id, lane, sent_at, answered_at, numbers, billed, outcome,
    coalesce(cardinality(unanswered), 0), coalesce(cardinality(overtaken), 0)
"""
_CALLS = """
    SELECT {columns} FROM lookup_call
    WHERE sent_at < coalesce(CAST(:before AS timestamptz), 'infinity')
      AND (CAST(:lane AS text) IS NULL OR lane = CAST(:lane AS text)) {which}
    ORDER BY sent_at DESC LIMIT :most
"""
_CALLS_OF = {
    "": text(_CALLS.format(columns=_CALL_COLUMNS, which="")),
    "failed": text(_CALLS.format(columns=_CALL_COLUMNS, which="AND outcome IN ('lost', 'refused')")),
}
_CALLS_BY_ID = text(f"""
    SELECT {_CALL_COLUMNS} FROM lookup_call WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY sent_at
""")  # noqa: S608 - the columns are ours
_BATCH_COLUMNS = "id, lane, decided_at, numbers, emitted_at"
_BATCHES = text(f"""
    SELECT {_BATCH_COLUMNS} FROM lookup_batch
    WHERE decided_at < coalesce(CAST(:before AS timestamptz), 'infinity')
      AND (CAST(:lane AS text) IS NULL OR lane = CAST(:lane AS text))
    ORDER BY decided_at DESC LIMIT :most
""")  # noqa: S608
_BATCH = text(f"SELECT {_BATCH_COLUMNS} FROM lookup_batch WHERE id = CAST(:id AS uuid)")  # noqa: S608
_UNSENT_BATCHES = text(f"""
    SELECT {_BATCH_COLUMNS} FROM lookup_batch
    WHERE emitted_at IS NULL AND decided_at < now() - interval '1 second' ORDER BY decided_at LIMIT :most
""")  # noqa: S608
_REQUEST_COLUMNS = """
    lane, source, reference, attempt, msisdn, status, current_operator, target_operator, decision, reason,
    answered_from, batch_id, call_id, received_at, decided_at
"""
_LATEST_REQUESTS = text(f"""
    SELECT {_REQUEST_COLUMNS} FROM check_request
    WHERE decided_at < coalesce(CAST(:before AS timestamptz), 'infinity')
    ORDER BY decided_at DESC LIMIT :most
""")  # noqa: S608
_OF_BATCH = text(f"""
    SELECT {_REQUEST_COLUMNS} FROM check_request WHERE batch_id = CAST(:batch_id AS uuid)
    ORDER BY source, lane, reference, attempt LIMIT :most
""")  # noqa: S608
_DECISIONS = text("""
    SELECT lane, decision, reason, count(*) FROM (
        SELECT lane, decision, reason FROM check_request
        WHERE decided_at >= now() - CAST(:past AS interval) ORDER BY decided_at DESC LIMIT :most
    ) r GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3
""")
_UNSENT = text("""
    SELECT count(*), min(decided_at) FROM (
        SELECT decided_at FROM lookup_batch
        WHERE emitted_at IS NULL AND decided_at < now() - interval '1 second' ORDER BY decided_at LIMIT :most
    ) b
""")
_SPEND = text("""
    SELECT date_bin('15 minutes', sent_at, TIMESTAMPTZ 'epoch'), lane, count(*), sum(numbers),
           coalesce(sum(billed), 0), coalesce(sum(cardinality(unanswered)), 0)
    FROM lookup_call WHERE sent_at >= :since AND sent_at < :until GROUP BY 1, 2 ORDER BY 1, 2
""")
_LATENCY = text("""
    SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)
    FROM (
        SELECT extract(epoch FROM answered_at - sent_at)::float8 AS seconds FROM lookup_call
        WHERE sent_at >= now() - interval '5 minutes' AND answered_at IS NOT NULL
        ORDER BY sent_at DESC LIMIT 2000
    ) c
""")


def rates(connection: Connection, *, seconds: float) -> dict[Lane, float]:
    """Return how many requests a second each lane decided lately."""
    rows = connection.execute(_RATES, {"seconds": seconds, "most": MOST_COUNTED})
    return {Lane(lane): count / seconds for lane, count in rows}


def open_calls(connection: Connection) -> dict[Lane, OpenCalls]:
    """Return the calls on the wire now, by lane."""
    return {Lane(lane): OpenCalls(*rest) for lane, *rest in connection.execute(_OPEN_CALLS)}


def series(
    connection: Connection, *, since: datetime, until: datetime, step_seconds: int
) -> dict[tuple[int, Lane], int]:
    """Return the numbers decided by step (Unix seconds of its beginning) and lane."""
    values = {"since": since, "until": until, "step": step_seconds}
    return {(int(at), Lane(lane)): int(total) for at, lane, total in connection.execute(_SERIES, values)}


def bought_series(
    connection: Connection, *, since: datetime, until: datetime, step_seconds: int
) -> dict[int, int]:
    """Return the numbers asked of the provider by step."""
    values = {"since": since, "until": until, "step": step_seconds}
    return {int(at): int(total) for at, total in connection.execute(_BOUGHT_SERIES, values)}


def calls(
    connection: Connection,
    *,
    most: int,
    before: datetime | None = None,
    lane: Lane | None = None,
    failed: bool = False,
) -> list[CallLine]:
    """Return the latest calls, newest first; only those that were lost or refused where ``failed``."""
    values = {"before": before, "lane": lane and lane.value, "most": most}
    return [_call(row) for row in connection.execute(_CALLS_OF["failed" if failed else ""], values)]


def calls_by_id(connection: Connection, ids: Sequence[str]) -> list[CallLine]:
    """Return these calls."""
    return [_call(row) for row in connection.execute(_CALLS_BY_ID, {"ids": list(ids)})]


def batches(
    connection: Connection, *, most: int, before: datetime | None = None, lane: Lane | None = None
) -> list[BatchLine]:
    """Return the latest batches, newest first."""
    values = {"before": before, "lane": lane and lane.value, "most": most}
    return [_batch(row) for row in connection.execute(_BATCHES, values)]


def batch(connection: Connection, batch_id: str) -> BatchLine | None:
    """Return one batch."""
    row = connection.execute(_BATCH, {"id": batch_id}).one_or_none()
    return None if row is None else _batch(row)


def unsent_batches(connection: Connection, *, most: int) -> list[BatchLine]:
    """Return the batches that :func:`unsent` counts, oldest first."""
    return [_batch(row) for row in connection.execute(_UNSENT_BATCHES, {"most": most})]


def requests(connection: Connection, *, most: int, before: datetime | None = None) -> list[RequestLine]:
    """Return the requests decided last, newest first."""
    return [_request(row) for row in connection.execute(_LATEST_REQUESTS, {"before": before, "most": most})]


def of_batch(connection: Connection, batch_id: str, *, most: int) -> list[RequestLine]:
    """Return what a batch decided, in key order."""
    return [_request(row) for row in connection.execute(_OF_BATCH, {"batch_id": batch_id, "most": most})]


def decisions(connection: Connection, *, past: timedelta) -> list[DecisionCount]:
    """Return what was decided lately, most frequent first; of the newest :data:`MOST_COUNTED` requests."""
    rows = connection.execute(_DECISIONS, {"past": past, "most": MOST_COUNTED})
    return [DecisionCount(Lane(lane), *rest) for lane, *rest in rows]


def unsent(connection: Connection) -> Unsent:
    """Return how many batches wait for their events' confirms for more than a second."""
    return Unsent(*connection.execute(_UNSENT, {"most": MOST_COUNTED}).one())


def spend(connection: Connection, *, since: datetime, until: datetime) -> list[SpendSlot]:
    """Return what was bought, by :data:`SPEND_SLOT` and lane; calls still open count as unbilled."""
    rows = connection.execute(_SPEND, {"since": since, "until": until})
    return [SpendSlot(begin, Lane(lane), *map(int, rest)) for begin, lane, *rest in rows]


def latency(connection: Connection) -> Latency:
    """Return how long the provider took lately."""
    return Latency(*connection.execute(_LATENCY).one())


def is_id(text: str) -> bool:
    """Whether a text is an id as the tables hold it."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _call(row: Any) -> CallLine:
    call_id, batch_id, lane, *rest = row
    return CallLine(str(call_id), str(batch_id), Lane(lane), *rest)


def _batch(row: Any) -> BatchLine:
    batch_id, lane, *rest = row
    return BatchLine(str(batch_id), Lane(lane), *rest)


def _request(row: Any) -> RequestLine:
    (
        lane, source, reference, attempt, msisdn, status, current_operator, target_operator, decision, reason,
        answered_from, batch_id, call_id, received_at, decided_at,
    ) = row  # fmt: skip
    return RequestLine(
        lane=Lane(lane),
        source=source,
        reference=reference,
        attempt=attempt,
        msisdn=None if msisdn is None else str(msisdn),
        status=status,
        current_operator=current_operator,
        target_operator=target_operator,
        decision=decision,
        reason=reason,
        answered_from=answered_from,
        batch_id=str(batch_id),
        call_id=None if call_id is None else str(call_id),
        received_at=received_at,
        decided_at=decided_at,
    )
