"""The ledger: one row a request with its decision. A key has one row for ever; the first one stands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection, text

from worker.portability.records import AnsweredFrom, CheckedRequest, Status
from worker.portability.requests import Lane, RequestKey
from worker.storage import statements
from worker.storage.arrays import columns, selecting
from worker.storage.schema import check_request
from worker.storage.statements import Statement

_FIELDS = CheckedRequest.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)

# The lateral form keeps to the primary key at any size; an IN over unnest scans the table
# once the planner has seen it young.
_FIND = text(f"""
    SELECT c.* FROM ({selecting(check_request, RequestKey._fields)}) AS k({", ".join(RequestKey._fields)})
    JOIN LATERAL (
        SELECT {_COLUMNS} FROM check_request r
        WHERE r.source = k.source AND r.lane = k.lane AND r.reference = k.reference AND r.attempt = k.attempt
        OFFSET 0
    ) c ON true
""")  # noqa: S608 - the columns are ours

DECIDED = """
    SELECT FROM check_request
    WHERE source = :source AND lane = :lane AND reference = :reference AND attempt = :attempt
"""
"""As a subquery: whether a request has its row."""

_INSERT = f"INSERT INTO check_request ({_COLUMNS}) {selecting(check_request, _FIELDS)} ORDER BY 3, 1, 2, 4"
_ADD_NEW = text(_INSERT)
# Keys come back only where some had a row before: a thousand of them cost as much as decoding an answer.
_ADD = text(f"""
    WITH added AS (
        {_INSERT}
        ON CONFLICT (source, lane, reference, attempt) DO NOTHING
        RETURNING source, lane, reference, attempt
    )
    SELECT counted.added, a.* FROM (SELECT count(*) AS added FROM added) counted
    LEFT JOIN added a ON counted.added < :rows
""")  # noqa: S608 - the columns are ours

_OF_BATCH = text(f"""
    SELECT {_COLUMNS} FROM check_request WHERE batch_id = CAST(:batch_id AS uuid) ORDER BY 1, 2, 3, 4
""")  # noqa: S608 - the columns are ours

_OF_NUMBER = text(f"""
    SELECT {_COLUMNS} FROM check_request WHERE msisdn = :msisdn AND received_at <= :until
    ORDER BY decided_at DESC, reference DESC LIMIT :most
""")  # noqa: S608 - the columns are ours


def find(connection: Connection, keys: Collection[RequestKey]) -> dict[RequestKey, CheckedRequest]:
    """Return the rows of these keys; a key not decided yet is absent."""
    return statements.run(connection, finding(keys)) if keys else {}


def finding(keys: Collection[RequestKey]) -> Statement[dict[RequestKey, CheckedRequest]]:
    """The statement of :func:`find`."""
    values = columns(keys, RequestKey._fields, key="reference")
    return Statement(_FIND, values, lambda rows: {row.key: row for row in map(_checked, rows)})


def adding_new(rows: Sequence[CheckedRequest]) -> Statement[set[RequestKey]]:
    """Like :func:`adding`, for keys that have no row, so far as is known; where one has, none is added.

    Postgres then raises ``UniqueViolation``. Being ready for that costs it a third more for every row.
    """
    return Statement(_ADD_NEW, _values(rows), lambda _: set())


def adding(rows: Sequence[CheckedRequest]) -> Statement[set[RequestKey]]:
    """Add one or more rows of distinct keys; says which keys have kept the row they had before."""

    def kept(added: list[Any]) -> set[RequestKey]:
        if added[0][0] == len(rows):
            return set()
        return {row.key for row in rows}.difference(
            RequestKey(source, Lane(lane), reference, attempt)
            for _, source, lane, reference, attempt in added
            if source is not None
        )

    return Statement(_ADD, _values(rows) | {"rows": len(rows)}, kept)


def of_number(connection: Connection, msisdn: str, *, until: datetime, most: int) -> list[CheckedRequest]:
    """Return a number's newest rows that were received by ``until``, oldest first."""
    values = {"msisdn": int(msisdn), "until": until, "most": most}
    return [_checked(row) for row in connection.execute(_OF_NUMBER, values)][::-1]


def of_batch(connection: Connection, batch_id: str) -> list[CheckedRequest]:
    """Return the rows a batch decided, in key order."""
    return [_checked(row) for row in connection.execute(_OF_BATCH, {"batch_id": batch_id})]


def _values(rows: Sequence[CheckedRequest]) -> dict[str, Any]:
    return columns(map(astuple, rows), _FIELDS, key="reference")


def _checked(row: Any) -> CheckedRequest:
    (
        source, lane, reference, attempt, msisdn, asked_operator, failure_code, status, range_holder,
        current_operator, target_operator, area, observed_at, decision, reason, answered_from, batch_id,
        call_id, event_id, received_at, decided_at,
    ) = row  # fmt: skip
    return CheckedRequest(
        source=source,
        lane=Lane(lane),
        reference=reference,
        attempt=attempt,
        msisdn=None if msisdn is None else str(msisdn),
        asked_operator=asked_operator,
        failure_code=failure_code,
        status=None if status is None else Status(status),
        range_holder=range_holder,
        current_operator=current_operator,
        target_operator=target_operator,
        area=area,
        observed_at=observed_at,
        decision=decision,
        reason=reason,
        answered_from=None if answered_from is None else AnsweredFrom(answered_from),
        batch_id=str(batch_id),
        call_id=None if call_id is None else str(call_id),
        event_id=str(event_id),
        received_at=received_at,
        decided_at=decided_at,
    )
