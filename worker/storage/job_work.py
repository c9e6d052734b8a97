"""Work on jobs: a part is taken, its look-ups reserved; its answers are stored by what charges them.

That is one transaction, so an answer that was charged is in the result, whatever is killed when. A part is
taken by a process that holds a presence lock; once that is gone the next one takes the part over with the
request id it had, and what the ledger answered under that id is not bought again. Two processes that work on
one part, because one had lost its connection for a while, do no harm: the first answers stand, and there is
one charge.

Each transaction locks part, job and account in this order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from worker.portability.records import CheckedRequest, Status
from worker.storage import holds
from worker.storage.accounts import job_note
from worker.storage.arrays import array
from worker.storage.holds import Opening, Refused
from worker.storage.ids import new_id
from worker.storage.jobs import Why
from worker.storage.presence import ABSENT
from worker.storage.statements import together

UNANSWERED = "unanswered"
"""The status of a number that is given up: the provider answers others, and not this one."""

_MOST_TRIES = 3
"""Calls after which a number is given up that stays unanswered while others of its part are answered."""
_MOST_FAILURES = 30
"""Tries in a row that answered nothing, some 14 minutes, after which a job pauses: the provider fails."""
_LONGEST_PAUSE_SECONDS = 30.0
_PROVIDERS_FAULT = {"provider_failing", "given_up"}

_CHARGED = {Status.NOT_PORTED, Status.PORTED, Status.VIRTUAL}


@dataclass(frozen=True, slots=True)
class Work:
    """A part to be asked for, its look-ups reserved."""

    job_id: str
    place: int
    account_id: str
    # names the call in the statement, and its numbers in the ledger
    request_id: str
    # 11 digits each, at their places among the part's
    mobiles: Mapping[int, str]


_OPEN_JOBS = text("""
    SELECT id, account_id FROM job
    WHERE state IN ('queued', 'running') AND coalesce(waits_until, '-infinity') <= now()
    ORDER BY served_at NULLS FIRST, id LIMIT 50
""")
_TAKE = text(f"""
    SELECT place, msisdns, statuses, request_id FROM job_part p
    WHERE job_id = CAST(:job_id AS uuid) AND NOT done AND (owner IS NULL OR {ABSENT.format(owner="p.owner")})
    ORDER BY place LIMIT 1 FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - ours
_NOTE_CALL = text("""
    UPDATE job_part SET request_id = CAST(:request_id AS uuid), owner = :owner
    WHERE job_id = CAST(:job_id AS uuid) AND place = :place
""")
_START = text("""
    UPDATE job SET state = 'running', served_at = clock_timestamp(), started_at = coalesce(started_at, now()),
        changed_at = now()
    WHERE id = CAST(:job_id AS uuid) AND state IN ('queued', 'running')
""")
_STOP = text("""
    UPDATE job SET state = 'paused', reason = :reason, changed_at = now()
    WHERE id = CAST(:job_id AS uuid) AND state IN ('queued', 'running')
""")
_LOCK_PART = text("""
    SELECT msisdns, statuses, range_holders, current_operators, areas, observed_at, tries FROM job_part
    WHERE job_id = CAST(:job_id AS uuid) AND place = :place AND NOT done
        AND request_id = CAST(:request_id AS uuid) FOR UPDATE
""")
_LOCK_JOB = text("SELECT failures FROM job WHERE id = CAST(:job_id AS uuid) FOR UPDATE")
_STORE = text("""
    UPDATE job_part SET statuses = CAST(:statuses AS text[]), range_holders = CAST(:range_holders AS text[]),
        current_operators = CAST(:current_operators AS text[]), areas = CAST(:areas AS text[]),
        observed_at = CAST(:observed_at AS timestamptz[]), done = :done, tries = :tries, request_id = NULL,
        owner = NULL
    WHERE job_id = CAST(:job_id AS uuid) AND place = :place
""")
_LET_GO = text("""
    UPDATE job_part SET owner = NULL
    WHERE job_id = CAST(:job_id AS uuid) AND place = :place AND request_id = CAST(:request_id AS uuid)
""")
_COUNT = text("""
    UPDATE job SET not_ported = not_ported + :not_ported, ported = ported + :ported,
        virtual = virtual + :virtual, unknown = unknown + :unknown, invalid = invalid + :invalid,
        unanswered = unanswered + :unanswered, charged = charged + :charged, parts_done = parts_done + :done,
        failures = :failures, waits_until = now() + :pause_seconds * interval '1 second',
        reason = CASE WHEN state = 'running' THEN :reason ELSE reason END,
        state = CASE WHEN state = 'running' AND :stop THEN 'paused' ELSE state END, changed_at = now()
    WHERE id = CAST(:job_id AS uuid)
""")
_FINISH = text("""
    UPDATE job SET state = 'finished', reason = NULL, ended_at = now()
    WHERE id = CAST(:job_id AS uuid) AND parts_done >= parts AND state IN ('running', 'paused')
""")


def is_open(connection: Connection) -> bool:
    """Whether there is a job to work on, as far as a glance tells."""
    return connection.execute(_OPEN_JOBS).first() is not None


def take(connection: Connection, *, owner: int, hold_seconds: float) -> Work | None:
    """Take the next part of the job that waited longest for its turn, and reserve its look-ups.

    Returns None where there is nothing to do, or only a job that had to be paused: its account is disabled,
    or has too little left for the part.
    """
    for job_id, account_id in connection.execute(_OPEN_JOBS).all():
        part = connection.execute(_TAKE, {"job_id": job_id}).one_or_none()
        if part is None:
            continue
        place, msisdns, statuses, request_id = part
        mobiles = {
            at: str(msisdn)
            for at, msisdn in enumerate(msisdns)
            if msisdn is not None and (not statuses or statuses[at] is None)
        }
        work = Work(str(job_id), place, str(account_id), str(request_id or new_id()), mobiles)
        if not connection.execute(_START, {"job_id": job_id}).rowcount:
            return None  # paused or cancelled in this moment
        refused = _reserve(connection, work, hold_seconds)
        if refused is not None:
            connection.execute(_STOP, {"job_id": job_id, "reason": refused})
            return None
        connection.execute(
            _NOTE_CALL, {"job_id": job_id, "place": place, "request_id": work.request_id, "owner": owner}
        )
        return work
    return None


def store(connection: Connection, work: Work, rows: Mapping[int, CheckedRequest | None]) -> bool:
    """Store what came of a part, by the numbers' places, and charge it; return whether it was still ours.

    What is unanswered is asked for again: at once where others were answered, after a pause where none was.
    Safe to run again, for a COMMIT whose answer was lost.
    """
    where = {"job_id": work.job_id, "place": work.place}
    request = {"request_id": work.request_id}
    part = connection.execute(_LOCK_PART, where | request).one_or_none()
    if part is None:
        return False
    failures = int(connection.execute(_LOCK_JOB, where).scalar_one())
    answers = _Answers(part)
    news = answers.put(rows)
    charge = sum(number for status, number in news.items() if status in _CHARGED)
    settling = holds.settling({work.request_id: charge}, note=job_note(work.job_id))
    may_be_stored, _ = together(connection, settling, holds.sent([work.request_id]))
    if work.request_id not in may_be_stored:
        let_go(connection, work)  # its time was up: the ledger answers it next time
        return True
    why = [row.reason if row else "given_up" for row in rows.values() if row is None or row.status is None]
    fault = any(each in _PROVIDERS_FAULT for each in why)
    tries = int(part.tries) + fault
    if tries >= _MOST_TRIES and any(answers.statuses):
        news[UNANSWERED] += answers.give_up()
    done = answers.complete
    stuck = bool(why) and not news
    connection.execute(_STORE, where | answers.values() | {"done": done, "tries": tries})
    connection.execute(
        _COUNT,
        {
            "job_id": work.job_id,
            **{status.value: news[status.value] for status in Status},
            UNANSWERED: news[UNANSWERED],
            "charged": charge,
            "done": int(done),
            "failures": failures + 1 if stuck else 0,
            "pause_seconds": min(_LONGEST_PAUSE_SECONDS, 2.0 ** min(failures, 9)) if stuck else 0.0,
            "reason": why[0] if stuck else None,
            "stop": stuck and fault and failures + 1 >= _MOST_FAILURES,
        },
    )
    connection.execute(_FINISH, where)
    return True


def let_go(connection: Connection, work: Work) -> None:
    """Let a part be taken again, by whoever comes first; its request id stays, and its hold."""
    connection.execute(_LET_GO, {"job_id": work.job_id, "place": work.place, "request_id": work.request_id})


class _Answers:
    """A part's answers, one a number."""

    def __init__(self, part: Any) -> None:
        self._msisdns: Sequence[int | None] = part.msisdns
        self.statuses = self._kept(part.statuses)
        self._range_holders = self._kept(part.range_holders)
        self._current_operators = self._kept(part.current_operators)
        self._areas = self._kept(part.areas)
        self._observed_at = self._kept(part.observed_at)

    def _kept(self, column: list[Any] | None) -> list[Any]:
        return list(column) if column else [None] * len(self._msisdns)

    def put(self, rows: Mapping[int, CheckedRequest | None]) -> Counter[str]:
        """Enter answers; return how many there are of each status. One whose number was erased is dropped."""
        news: Counter[str] = Counter()
        for at, row in rows.items():
            if row is None or row.status is None or self._msisdns[at] is None:
                continue
            news[row.status.value] += 1
            self.statuses[at] = row.status.value
            self._range_holders[at], self._current_operators[at] = row.range_holder, row.current_operator
            self._areas[at], self._observed_at[at] = row.area, row.observed_at
        return news

    def give_up(self) -> int:
        """Enter that what is unanswered stays so; return how many that are."""
        left = self._left()
        for at in left:
            self.statuses[at] = UNANSWERED
        return len(left)

    @property
    def complete(self) -> bool:
        return not self._left()

    def values(self) -> dict[str, Any]:
        return {
            "statuses": array(self.statuses),
            "range_holders": array(self._range_holders),
            "current_operators": array(self._current_operators),
            "areas": array(self._areas),
            "observed_at": array(self._observed_at),
        }

    def _left(self) -> list[int]:
        return [
            at
            for at, (status, msisdn) in enumerate(zip(self.statuses, self._msisdns, strict=True))
            if status is None and msisdn is not None
        ]


def _reserve(connection: Connection, work: Work, hold_seconds: float) -> Why | None:
    """Hold a part's look-ups, or what the process before it held; return why not."""
    if holds.extend(connection, work.request_id, hold_seconds=hold_seconds):
        return None
    opening = Opening(work.request_id, work.account_id, len(work.mobiles), counted=False)
    (opened,) = holds.open_calls(connection, [opening], hold_seconds=hold_seconds)
    if opened is Refused.LOW_BALANCE:
        return Why.LOW_BALANCE
    return Why.DISABLED if isinstance(opened, Refused) else None
