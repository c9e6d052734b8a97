"""Dead letters: items presend could not take, with the reason, until somebody replays or erases them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from worker.portability import letter_ids
from worker.portability.mentions import Mentions
from worker.portability.records import CheckedRequest
from worker.portability.requests import CheckRequest, RequestKey
from worker.storage import ledger
from worker.storage.arrays import array
from worker.storage.statements import Statement, nothing


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One item that could not be taken."""

    id: str
    # the task's name, or None where the message named none
    task: str | None
    # the item's arguments, or {"base64": …} of a body that could not be decoded
    payload: Any
    reason: str
    queue: str | None
    received_at: datetime
    replayed_at: datetime | None = None
    # the request, where it was given up unanswered: it is not parked if it has its row by then
    request: CheckRequest | None = None


KINDS_OF_NEWEST = 20_000
"""Kinds of reasons are counted of so many letters, the newest."""

_ADD = text("""
    INSERT INTO dead_letter (id, task, payload, reason, queue, received_at)
    SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:task AS text[]), CAST(:payload AS json[]),
                         CAST(:reason AS text[]), CAST(:queue AS text[]), CAST(:received_at AS timestamptz[]))
    ON CONFLICT (id) DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class Which:
    """Which dead letters are meant."""

    # contains this, in any case
    reason: str | None = None
    # of this kind of reason, see :func:`kinds`
    kind: str | None = None
    task: str | None = None
    # received from .. to before
    since: datetime | None = None
    until: datetime | None = None
    # sent again already; None: whether or not
    replayed: bool | None = False


_COLUMNS = "id, task, payload, reason, queue, received_at, replayed_at"

# What reasons have in common: their first words, without what was quoted and counted in them.
_KIND = "left(regexp_replace(split_part(reason, ':', 1), $q$'[^']*'|\\d+$q$, '…', 'g'), 120)"

_MATCHING = f"""
    FROM dead_letter
    WHERE (CAST(:replayed AS boolean) IS NULL OR (replayed_at IS NOT NULL) = CAST(:replayed AS boolean))
      AND (CAST(:reason AS text) IS NULL OR strpos(lower(reason), lower(CAST(:reason AS text))) > 0)
      AND (CAST(:task AS text) IS NULL OR task = CAST(:task AS text))
      AND (CAST(:kind AS text) IS NULL OR {_KIND} = CAST(:kind AS text))
      AND received_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
      AND received_at < coalesce(CAST(:until AS timestamptz), 'infinity')
"""
_LIST = text(f"SELECT {_COLUMNS} {_MATCHING} ORDER BY received_at, id LIMIT :most")
_NEWEST = text(f"""
    SELECT {_COLUMNS} {_MATCHING}
      AND (CAST(:before_at AS timestamptz) IS NULL
           OR (received_at, id) < (CAST(:before_at AS timestamptz), CAST(:before_id AS uuid)))
    ORDER BY received_at DESC, id DESC LIMIT :most
""")
_ONE = text(f"SELECT {_COLUMNS} FROM dead_letter WHERE id = CAST(:id AS uuid)")  # noqa: S608
_IDS = text(f"SELECT id {_MATCHING} ORDER BY received_at, id LIMIT :most")
_COUNT = text(f"SELECT count(*) {_MATCHING}")
_KINDS = text(f"""
    SELECT {_KIND}, count(*) FROM (
        SELECT reason {_MATCHING} ORDER BY received_at DESC LIMIT {KINDS_OF_NEWEST}
    ) r GROUP BY 1 ORDER BY 2 DESC, 1
""")  # noqa: S608 - ours

_COUNTS = text("""
    SELECT CASE WHEN task = ANY(CAST(:tasks AS text[])) THEN task END, replayed_at IS NOT NULL, count(*)
    FROM dead_letter GROUP BY 1, 2
""")

_TAKE = text(f"""
    SELECT {_COLUMNS} FROM dead_letter
    WHERE replayed_at IS NULL AND id = ANY(CAST(:ids AS uuid[])) ORDER BY received_at, id FOR UPDATE
""")  # noqa: S608 - the columns are ours

PARKED = "SELECT FROM dead_letter WHERE id = CAST(:letter AS uuid)"
"""As a subquery: whether an item was parked."""
# Lateral, so that each range is looked up in the index whatever a young table's statistics say.
_IN_RANGES = """
    SELECT d.id, d.reason FROM unnest(CAST(:first AS uuid[]), CAST(:last AS uuid[])) AS n(first, last)
    JOIN LATERAL (SELECT id, reason FROM dead_letter WHERE id BETWEEN n.first AND n.last OFFSET 0) d ON true
"""
_OF_MESSAGES = text(_IN_RANGES)

_MARK = text("UPDATE dead_letter SET replayed_at = now() WHERE id = ANY(CAST(:ids AS uuid[]))")


# Who gives a request up and who decides its other delivery exclude each other: it ends as one of the two.
_GIVING_UP = text("SELECT pg_advisory_xact_lock(hashtext('presend giving up'))")
_DECIDING = text("SELECT pg_advisory_xact_lock_shared(hashtext('presend giving up'))")
_WITHDRAW = text(
    f"DELETE FROM dead_letter WHERE id IN (SELECT id FROM ({_IN_RANGES}) d) AND replayed_at IS NULL"  # noqa: S608
)

# Every spelling is looked for in the newest letters alone: that takes 0.1 ms each, plain digits a hundredth.
_MAY_MENTION = text(f"""
    WITH newest AS MATERIALIZED (
        SELECT id FROM dead_letter WHERE received_at <= :until ORDER BY received_at DESC LIMIT :searched
    )
    SELECT {_COLUMNS} FROM dead_letter WHERE id IN (SELECT id FROM newest)
    UNION ALL
    SELECT {_COLUMNS} FROM dead_letter
    WHERE received_at <= :until AND id NOT IN (SELECT id FROM newest)
      AND (strpos(CAST(payload AS text), :msisdn) > 0 OR strpos(reason, :msisdn) > 0)
""")  # noqa: S608 - the columns are ours
_RECEIVED_BY = text("SELECT count(*) FROM dead_letter WHERE received_at <= :until")
SEARCHED = 500
"""Newest letters in which a number is looked for in every spelling."""


def add(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Park items; one that is parked already (same id) stays as it is."""
    if letters:
        connection.execute(
            _ADD,
            {
                "id": [letter.id for letter in letters],
                "task": [None if letter.task is None else _storable(letter.task) for letter in letters],
                "payload": [json.dumps(letter.payload, ensure_ascii=True) for letter in letters],
                "reason": [_storable(letter.reason) for letter in letters],
                "queue": [letter.queue for letter in letters],
                "received_at": [letter.received_at for letter in letters],
            },
        )


def select(connection: Connection, which: Which, *, most: int = 1000) -> list[DeadLetter]:
    """Return dead letters, oldest first."""
    return [_letter(row) for row in connection.execute(_LIST, _values(which) | {"most": most})]


def newest(
    connection: Connection, which: Which, *, most: int, before: tuple[datetime, str] | None = None
) -> list[DeadLetter]:
    """Return dead letters, newest first; only those before one, named by its receipt and id."""
    at, letter_id = before or (None, None)
    values = _values(which) | {"most": most, "before_at": at, "before_id": letter_id}
    return [_letter(row) for row in connection.execute(_NEWEST, values)]


def one(connection: Connection, letter_id: str) -> DeadLetter | None:
    """Return one dead letter."""
    row = connection.execute(_ONE, {"id": letter_id}).one_or_none()
    return None if row is None else _letter(row)


def count(connection: Connection, which: Which = Which()) -> int:
    """Return how many dead letters :func:`select` would find."""
    return int(connection.execute(_COUNT, _values(which)).scalar_one())


def counts(connection: Connection, tasks: Collection[str]) -> dict[tuple[str | None, bool], int]:
    """Return how many are kept, by task (None: none of these) and whether they were replayed."""
    rows = connection.execute(_COUNTS, {"tasks": list(tasks)})
    return {(task, replayed): int(number) for task, replayed, number in rows}


def ids(connection: Connection, which: Which = Which(), *, most: int | None = None) -> list[str]:
    """Return their ids, oldest first."""
    return [str(row[0]) for row in connection.execute(_IDS, _values(which) | {"most": most})]


def kinds(connection: Connection, which: Which) -> list[tuple[str, int]]:
    """Return the kinds of reasons and how many letters have each, the most frequent first.

    A kind is a reason's first words, without what is quoted or counted in them; of the newest
    :data:`KINDS_OF_NEWEST` letters.
    """
    return [(str(kind), int(number)) for kind, number in connection.execute(_KINDS, _values(which))]


def mentioning(
    connection: Connection, mentions: Mentions, *, until: datetime, most: int
) -> tuple[list[DeadLetter], int]:
    """Return the newest letters that mention a number, received by ``until``, oldest first.

    And how many older letters there are than :data:`SEARCHED`: in these the number is found as eleven plain
    digits only. A letter replayed after ``until`` is told as not replayed.
    """
    total = int(connection.execute(_RECEIVED_BY, {"until": until}).scalar_one())
    values = {"until": until, "searched": SEARCHED, "msisdn": mentions.msisdn}
    found = sorted(map(_letter, connection.execute(_MAY_MENTION, values)), key=lambda one: one.received_at)
    letters = [one for one in found if mentions.in_json(one.payload) or mentions.in_text(one.reason)]
    return [_as_of(one, until) for one in letters[-most:]], max(0, total - SEARCHED)


def _as_of(letter: DeadLetter, until: datetime) -> DeadLetter:
    later = letter.replayed_at is not None and letter.replayed_at > until
    return replace(letter, replayed_at=None) if later else letter


def take(connection: Connection, ids: Sequence[str]) -> list[DeadLetter]:
    """Return those of these that were not replayed yet, locked until the transaction ends."""
    return [_letter(row) for row in connection.execute(_TAKE, {"ids": list(ids)})]


def of_messages(letters: Iterable[int]) -> Statement[dict[int, str]]:
    """Why items were parked, by their letters' ids: of all items of the messages that these come from."""
    ranges = _in_ranges(letter_ids.messages(letters))
    return Statement(_OF_MESSAGES, ranges, lambda rows: {found.int: reason for found, reason in rows})


def add_unless_decided(connection: Connection, letters: Sequence[DeadLetter]) -> dict[str, CheckedRequest]:
    """Park items, except requests that are decided: by a worker that held the same message, say.

    Returns the rows of these, by their letters' ids.
    """
    keys = [letter.request.key for letter in letters if letter.request is not None]
    if keys:
        connection.execute(_GIVING_UP)
    rows = answering(ledger.find(connection, keys), letters)
    add(connection, [letter for letter in letters if letter.id not in rows])
    return rows


def answering(
    decided: Mapping[RequestKey, CheckedRequest], letters: Iterable[DeadLetter]
) -> dict[str, CheckedRequest]:
    """Return those of ``decided`` that answer requests which were given up, by their letters' ids."""
    rows = {}
    for letter in letters:
        request = letter.request
        row = None if request is None else decided.get(request.key)
        if request and row and request.same_question(row.msisdn, row.asked_operator):
            rows[letter.id] = row
    return rows


def deciding() -> Statement[None]:
    """Until this transaction ends nobody gives requests up; for one that adds rows and withdraws letters."""
    return Statement(_DECIDING, {}, nothing)


def withdrawing(letters: Collection[int]) -> Statement[None]:
    """Take letters back of requests that are decided after all; most were never written."""
    return Statement(_WITHDRAW, _in_ranges(letter_ids.runs(letters)), nothing)


def mark_replayed(connection: Connection, ids: Sequence[str]) -> None:
    """Say that these items were sent to their queue again."""
    connection.execute(_MARK, {"ids": list(ids)})


def _values(which: Which) -> dict[str, object]:
    return {
        "reason": which.reason,
        "kind": which.kind,
        "task": which.task,
        "since": which.since,
        "until": which.until,
        "replayed": which.replayed,
    }


def _in_ranges(ranges: Sequence[tuple[int, int]]) -> dict[str, object]:
    return {
        "first": array(letter_ids.written(first) for first, _ in ranges),
        "last": array(letter_ids.written(last) for _, last in ranges),
    }


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(str(row[0]), *row[1:])


def _storable(words: str) -> str:
    """Postgres text holds no NUL and no lone surrogate."""
    return words.replace("\x00", "\\u0000").encode("utf-8", "backslashreplace").decode()
