"""What batches decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from operator import attrgetter

from worker.metrics.registry import Spread, Tally
from worker.portability.records import AnsweredFrom, CheckedRequest
from worker.portability.requests import Lane

STORAGE, DEFECT = "storage", "defect"
"""Why a batch waits again."""

_decisions = Tally("presend_decisions", "Requests decided, one a ledger row", ["lane", "decision", "reason"])
_answers = Tally(
    "presend_answers",
    "Requests decided, by where the answer came from: live, stored, shared, rule; none: there was no answer",
    ["lane", "answered_from"],
)
_repeated = Tally(
    "presend_requests_repeated", "Requests whose key was decided before, given that answer again", ["lane"]
)
_postponed = Tally(
    "presend_batches_postponed",
    "Batches that could not be run and wait again: storage (Postgres was away), defect (see the log)",
    ["lane", "cause"],
)
_requests = Spread(
    "presend_batch_requests",
    "Requests in a batch",
    "lane",
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000),
)
_waits = Spread(
    "presend_wait_seconds",
    "From a request's receipt by a process to its decision; not what it waited in its queue before",
    "lane",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 30, 60, 300),
)
_ages = Spread(
    "presend_record_age_seconds",
    "Age of the stored record that answered a request, at its decision",
    "lane",
    (60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 30 * 86400),
)
for _lane in Lane:
    _repeated.add(_lane, by=0)
    for _cause in (STORAGE, DEFECT):
        _postponed.add(_lane, _cause, by=0)

_kind = attrgetter("decision", "reason", "answered_from")


def settled(lane: Lane, *, requests: int, rows: Collection[CheckedRequest], repeated: int) -> None:
    """A batch is stored: the rows it decided, and how many requests it only answered again."""
    _requests.add(lane, (requests,))
    if repeated:
        _repeated.add(lane, by=repeated)
    if not rows:
        return
    stored = False
    for (decision, reason, source), count in Counter(map(_kind, rows)).items():
        _decisions.add(lane, decision, reason, by=count)
        _answers.add(lane, source or "none", by=count)
        stored = stored or source is AnsweredFrom.STORED
    _waits.add(lane, [(row.decided_at - row.received_at).total_seconds() for row in rows])
    if stored:
        _ages.add(
            lane,
            [
                (row.decided_at - row.observed_at).total_seconds()
                for row in rows
                if row.answered_from is AnsweredFrom.STORED and row.observed_at is not None
            ],
        )


def postponed(lane: Lane, cause: str) -> None:
    """A batch waits again."""
    _postponed.add(lane, cause)
