"""A job's result as CSV: a line for each row of the list, in its order; made while it is sent.

Each block is read for itself, so that no transaction waits for a slow download. Kept meanwhile are the
numbers and answers so far, 16 bytes a distinct number: a later row may repeat any of them.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from worker.carrier.wire.codes import Code
from worker.portability.operators import Operator
from worker.portability.records import Status
from worker.storage import engine, jobs
from worker.storage.job_work import UNANSWERED
from worker.storage.jobs import Part, RowError

if TYPE_CHECKING:
    from sqlalchemy import Engine

BAD_ROW, NOT_ASKED, ERASED = "bad_row", "not_asked", "erased"
COLUMNS = (
    "line",
    "mobile",
    "code",
    "status",
    "range_holder",
    "current_operator",
    "area",
    "observed_at",
    "explanation",
)

_CODES: Mapping[str, Code] = {
    Status.NOT_PORTED: Code.SUCCESS,
    Status.PORTED: Code.SUCCESS,
    Status.VIRTUAL: Code.SUCCESS,
    Status.UNKNOWN: Code.NOT_FOUND,
    Status.INVALID: Code.NOT_A_MOBILE,
    UNANSWERED: Code.SYSTEM_ERROR,
}
_BOM = "\ufeff"
"""Excel takes a CSV without it for the system's own encoding."""
_PARTS_A_BLOCK = 5
_ERRORS_A_BLOCK = 1000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")

Answer = tuple[str, str | None, str | None, str | None, datetime | None]
Words = Callable[[str], str]
"""What a key of ``texts/`` is called in the reader's language."""


def csv_of(database: Engine, job_id: str, words: Words, zone: ZoneInfo) -> Iterator[str]:
    """Yield the CSV, its lines in blocks, with headings and explanations in the reader's words."""
    result = _Result(words, zone)
    yield _BOM + _text([[words(f"csv.{name}") for name in COLUMNS]])
    place, bad = 0, _BadRows(database, job_id)
    while block := engine.read(
        database, partial(jobs.parts, job_id=job_id, place=place, most=_PARTS_A_BLOCK)
    ):
        yield _text(row for part in block for row in _merged(result, part, bad))
        place = block[-1].place + 1
    yield from (_text(map(result.bad_row, errors)) for errors in bad.rest())


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


class _Result:
    """Writes rows; remembers each number's answer."""

    def __init__(self, words: Words, zone: ZoneInfo) -> None:
        self._words = words
        self._zone = zone
        self._numbers = array("Q")
        self._answers = array("L")
        self._known: dict[Answer, int] = {}
        self._cells: list[list[object]] = []

    def rows_of(self, part: Part) -> Iterator[tuple[int, list[object]]]:
        """A part's rows, each with its line."""
        self._remember(part)
        for line, ref in zip(part.lines, part.refs, strict=True):
            yield line, [line, self._numbers[ref] or "", *self._cells[self._answers[ref]]]

    def bad_row(self, error: RowError) -> list[object]:
        """A row that holds no number."""
        code, status = int(Code.BAD_PARAMETER), self._words(f"csv.is.{BAD_ROW}")
        return [
            error.line,
            guarded(error.came),
            code,
            status,
            *[""] * 4,
            self._words(f"wrong.{error.reason}"),
        ]

    def _remember(self, part: Part) -> None:
        none: Sequence[None] = [None] * len(part.msisdns)
        answers = (
            part.statuses or none,
            part.range_holders or none,
            part.current_operators or none,
            part.areas or none,
            part.observed_at or none,
        )
        for msisdn, status, *found in zip(part.msisdns, *answers, strict=True):
            known = ERASED if msisdn is None else str(status or NOT_ASKED)
            self._numbers.append(msisdn or 0)
            self._answers.append(self._number((known, *found)))

    def _number(self, answer: Any) -> int:
        number = self._known.get(answer)
        if number is None:
            number = self._known[answer] = len(self._cells)
            self._cells.append(self._row(*answer))
        return number

    def _row(
        self,
        status: str,
        range_holder: str | None,
        current_operator: str | None,
        area: str | None,
        observed_at: datetime | None,
    ) -> list[object]:
        code = _CODES.get(status)
        return [
            "" if code is None else int(code),
            self._words(f"csv.is.{status}"),
            self._operator(range_holder),
            self._operator(current_operator),
            guarded(area or ""),
            "" if observed_at is None else observed_at.astimezone(self._zone).isoformat(timespec="seconds"),
            self._words(f"explained.{status}"),
        ]

    def _operator(self, code: str | None) -> str:
        """An operator's name; a label the provider invented as it came."""
        if code is None:
            return ""
        return self._words(f"csv.operator.{code}") if code in set(Operator) else guarded(code)


class _BadRows:
    """A job's bad rows, in order, to be put between the good ones."""

    def __init__(self, database: Engine, job_id: str) -> None:
        self._database = database
        self._job_id = job_id
        self._read: deque[RowError] = deque()
        self._line = 0
        self._ended = False

    def before(self, line: int) -> Iterator[RowError]:
        """Those that come before a line."""
        while self._next() is not None and self._read[0].line < line:
            yield self._read.popleft()

    def rest(self) -> Iterator[Sequence[RowError]]:
        """Those that are left, in blocks."""
        while self._next() is not None:
            block, self._read = self._read, deque()
            yield block

    def _next(self) -> RowError | None:
        if not self._read and not self._ended:
            found = engine.read(
                self._database,
                partial(jobs.errors, job_id=self._job_id, after=self._line, most=_ERRORS_A_BLOCK),
            )
            self._read.extend(found)
            self._ended = not found
            self._line = found[-1].line if found else self._line
        return self._read[0] if self._read else None


def _merged(result: _Result, part: Part, bad: _BadRows) -> Iterator[list[object]]:
    for line, row in result.rows_of(part):
        yield from map(result.bad_row, bad.before(line))
        yield row


def _text(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
