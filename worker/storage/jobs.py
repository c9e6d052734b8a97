"""Jobs: callers' lists of numbers, stored in parts, and what is to be seen of them.

A million numbers are a thousand rows of arrays, some 15 MB; progress is read from the one row of ``job``. A
part holds up to 1000 numbers that no earlier part has, which become one batch, and the rows up to there; a
row that repeats a number refers to the first one's answer. ``job_work`` takes the parts and stores answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from worker.errors import ListRefused
from worker.portability.msisdn import mask_all
from worker.storage.arrays import array
from worker.storage.ids import new_id

MOST_OPEN = 20
"""Jobs an account may have queued, running or paused at once: a list is stored until it is through."""


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is asked for it."""
        return self in {State.FINISHED, State.CANCELLED}


class Why(StrEnum):
    """Why a job is paused."""

    BY_HAND = "by_hand"
    LOW_BALANCE = "low_balance"
    DISABLED = "disabled"


@dataclass(slots=True)
class Piece:
    """A stretch of a list as it was read: what becomes a part, and the rows in it that hold no number."""

    lines: list[int] = field(default_factory=list)
    # of each row's number, counted through the whole list
    refs: list[int] = field(default_factory=list)
    # numbers that no earlier piece holds, 11 digits each
    msisdns: list[int] = field(default_factory=list)
    # line, what came, why it is no number
    errors: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

    id: str
    account_id: str
    name: str
    state: State
    # why it is paused, or what it waits for
    reason: str | None
    column_name: str
    rows: int
    bad_rows: int
    # distinct numbers
    numbers: int
    not_ported: int
    ported: int
    virtual: int
    unknown: int
    invalid: int
    unanswered: int
    # look-ups
    charged: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def done(self) -> int:
        """Numbers of which is known what became of them."""
        return self.not_ported + self.ported + self.virtual + self.unknown + self.invalid + self.unanswered


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that holds no mobile number."""

    line: int
    came: str
    # a word of ``worker.serve.lists.Wrong``
    reason: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part with what is known of its numbers; the five lists of answers are empty before the first."""

    place: int
    lines: Sequence[int]
    refs: Sequence[int]
    msisdns: Sequence[int | None]
    statuses: Sequence[str | None]
    range_holders: Sequence[str | None]
    current_operators: Sequence[str | None]
    areas: Sequence[str | None]
    observed_at: Sequence[datetime | None]


_COLUMNS = (
    "id, account_id, name, state, reason, column_name, rows, bad_rows, numbers, not_ported, ported, virtual, "
    "unknown, invalid, unanswered, charged, created_at, started_at, ended_at"
)
# The account's row orders two lists that come at once, so that both are counted.
_OPEN = text("""
    SELECT (SELECT count(*) FROM job WHERE account_id = a.id AND state NOT IN ('finished', 'cancelled'))
    FROM account a WHERE id = CAST(:account_id AS uuid) FOR NO KEY UPDATE
""")
_CREATE = text("""
    INSERT INTO job (id, account_id, name, state, column_name, rows, bad_rows, numbers, not_ported, ported,
                     virtual, unknown, invalid, unanswered, charged, parts, parts_done, failures, created_at,
                     ended_at, changed_at)
    VALUES (CAST(:id AS uuid), CAST(:account_id AS uuid), :name, :state, :column_name, :rows, :bad_rows,
            :numbers, 0, 0, 0, 0, 0, 0, 0, :parts, 0, 0, now(),
            CASE WHEN :state = 'finished' THEN now() END, now())
""")
_ADD_PART = text("""
    INSERT INTO job_part (job_id, place, lines, refs, msisdns, done, tries)
    VALUES (CAST(:job_id AS uuid), :place, CAST(:lines AS integer[]), CAST(:refs AS integer[]),
            CAST(:msisdns AS bigint[]), :done, 0)
""")
_ADD_ERRORS = text("""
    INSERT INTO job_error (job_id, line, came, reason)
    SELECT CAST(:job_id AS uuid), line, came, reason
    FROM unnest(CAST(:lines AS integer[]), CAST(:came AS text[]), CAST(:reasons AS text[]))
         AS n(line, came, reason)
""")
_ONE = text(f"""
    SELECT {_COLUMNS} FROM job WHERE id = CAST(:id AS uuid) AND account_id = CAST(:account_id AS uuid)
""")  # noqa: S608 - the columns are ours
_NEWEST = text(f"""
    SELECT {_COLUMNS} FROM job WHERE account_id = CAST(:account_id AS uuid)
        AND (CAST(:before AS uuid) IS NULL OR id < CAST(:before AS uuid))
    ORDER BY id DESC LIMIT :most
""")  # noqa: S608
_NAMES = text("""
    SELECT id, name FROM job WHERE id = ANY(CAST(:ids AS uuid[])) AND account_id = CAST(:account_id AS uuid)
""")
_PAUSE = text("""
    UPDATE job SET state = 'paused', reason = :reason, changed_at = now()
    WHERE id = CAST(:id AS uuid) AND account_id = CAST(:account_id AS uuid) AND state IN ('queued', 'running')
""")
_RESUME = text("""
    UPDATE job SET state = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END, reason = NULL,
        waits_until = NULL, failures = 0, changed_at = now()
    WHERE id = CAST(:id AS uuid) AND account_id = CAST(:account_id AS uuid) AND state = 'paused'
""")
_CANCEL = text("""
    UPDATE job SET state = 'cancelled', reason = NULL, ended_at = now(), changed_at = now()
    WHERE id = CAST(:id AS uuid) AND account_id = CAST(:account_id AS uuid)
        AND state IN ('queued', 'running', 'paused')
""")
_OURS_AND_ENDED = """
    SELECT FROM job j WHERE j.id = CAST(:id AS uuid) AND j.account_id = CAST(:account_id AS uuid)
        AND j.state IN ('finished', 'cancelled')
"""
# parts before their job, in the order in which work on them locks both
_DELETE = [
    text(f"DELETE FROM {table} WHERE {key} = CAST(:id AS uuid) AND EXISTS ({_OURS_AND_ENDED})")  # noqa: S608
    for table, key in (("job_part", "job_id"), ("job_error", "job_id"), ("job", "id"))
]
_PARTS = text("""
    SELECT place, lines, refs, msisdns, statuses, range_holders, current_operators, areas, observed_at
    FROM job_part WHERE job_id = CAST(:id AS uuid) AND place >= :place ORDER BY place LIMIT :most
""")
_ERRORS = text("""
    SELECT line, came, reason FROM job_error
    WHERE job_id = CAST(:id AS uuid) AND line > :after ORDER BY line LIMIT :most
""")


def require_room(connection: Connection, account_id: str) -> None:
    """Raise ``ListRefused`` where an account has as many open jobs as it may."""
    if int(connection.execute(_OPEN, {"account_id": account_id}).scalar_one()) >= MOST_OPEN:
        raise ListRefused("too_many_jobs", most=MOST_OPEN)


def create(connection: Connection, account_id: str, name: str, column: str, pieces: Iterator[Piece]) -> str:
    """Store a list while it is read, and return its job's id; ``ListRefused`` where it may not be one.

    A job without a number to ask for is finished as it comes.
    """
    job_id, rows, bad_rows, numbers, parts = new_id(), 0, 0, 0, 0
    for place, piece in enumerate(pieces):
        rows += len(piece.lines) + len(piece.errors)
        bad_rows += len(piece.errors)
        numbers += len(piece.msisdns)
        if piece.errors:
            lines, came, reasons = zip(*piece.errors, strict=True)
            connection.execute(
                _ADD_ERRORS,
                {"job_id": job_id, "lines": _array(lines), "came": array(came), "reasons": array(reasons)},
            )
        if piece.lines:
            connection.execute(
                _ADD_PART,
                {
                    "job_id": job_id,
                    "place": place,
                    "lines": _array(piece.lines),
                    "refs": _array(piece.refs),
                    "msisdns": _array(piece.msisdns),
                    "done": not piece.msisdns,
                },
            )
            parts += bool(piece.msisdns)
    require_room(connection, account_id)
    connection.execute(
        _CREATE,
        {
            "id": job_id,
            "account_id": account_id,
            "name": mask_all(name),
            "state": State.QUEUED if numbers else State.FINISHED,
            "column_name": mask_all(column),
            "rows": rows,
            "bad_rows": bad_rows,
            "numbers": numbers,
            "parts": parts,
        },
    )
    return job_id


def one(connection: Connection, account_id: str, job_id: str) -> Job | None:
    """Return an account's job."""
    row = connection.execute(_ONE, {"id": job_id, "account_id": account_id}).one_or_none()
    return None if row is None else _job(row)


def newest(connection: Connection, account_id: str, *, most: int, before: str | None = None) -> list[Job]:
    """Return an account's jobs, newest first, older than ``before`` where that is given."""
    rows = connection.execute(_NEWEST, {"account_id": account_id, "most": most, "before": before})
    return [_job(row) for row in rows]


def names(connection: Connection, account_id: str, job_ids: Collection[str]) -> dict[str, str]:
    """Return the names of those of an account's jobs that are still there, by their ids."""
    rows = connection.execute(_NAMES, {"account_id": account_id, "ids": array(job_ids)})
    return {str(job_id): name for job_id, name in rows}


def pause(connection: Connection, account_id: str, job_id: str) -> bool:
    """Let a job ask nothing more for now; what is being asked is still stored. Return whether it went on."""
    values = {"id": job_id, "account_id": account_id, "reason": Why.BY_HAND}
    return bool(connection.execute(_PAUSE, values).rowcount)


def resume(connection: Connection, account_id: str, job_id: str) -> bool:
    """Let a paused job go on; return whether it was paused."""
    return bool(connection.execute(_RESUME, {"id": job_id, "account_id": account_id}).rowcount)


def cancel(connection: Connection, account_id: str, job_id: str) -> bool:
    """End a job; what was answered stays. Return whether it was open."""
    return bool(connection.execute(_CANCEL, {"id": job_id, "account_id": account_id}).rowcount)


def delete(connection: Connection, account_id: str, job_id: str) -> bool:
    """Delete a job that has ended, with its numbers and answers; return whether there was one."""
    values = {"id": job_id, "account_id": account_id}
    return bool([connection.execute(each, values).rowcount for each in _DELETE][-1])


def parts(connection: Connection, job_id: str, *, place: int, most: int) -> list[Part]:
    """Return a job's parts from ``place`` on, in order."""
    rows = connection.execute(_PARTS, {"id": job_id, "place": place, "most": most})
    return [Part(at, *(column or () for column in columns)) for at, *columns in rows]


def errors(connection: Connection, job_id: str, *, after: int, most: int) -> list[RowError]:
    """Return a job's bad rows past line ``after``, in order."""
    rows = connection.execute(_ERRORS, {"id": job_id, "after": after, "most": most})
    return [RowError(*row) for row in rows]


def _array(numbers: Iterable[int]) -> str:
    """The literal of an array of numbers, of which hardly two are the same."""
    return f"{{{','.join(map(str, numbers))}}}"


def _job(row: Any) -> Job:
    job_id, account_id, name, state, *rest = row
    return Job(str(job_id), str(account_id), name, State(state), *rest)
