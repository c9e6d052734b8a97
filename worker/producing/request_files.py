"""CSV files of requests: columns named as a task's arguments, a row an item.

A row is one line. Quoted line breaks are refused, so that a stray quotation mark spoils its own line and not
the rest of the file, and so that a line's byte offset is all it takes to go on from there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from worker.errors import Rejected, RequestFileError
from worker.intake import Intake
from worker.portability.requests import Lane

ENCODINGS = ("utf-8", "gb18030")
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 65_536


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the item it becomes, or why it cannot be taken."""

    # counts from 1, the header included
    line: int
    # bytes from the file's begin to the end of this row
    end: int
    cells: Sequence[str]
    item: Mapping[str, Any] | None = None
    reason: str | None = None


class RequestFile:
    """Reads rows one by one; memory does not grow with the file."""

    def __init__(self, stream: BinaryIO, lane: Lane, *, encoding: str = "utf-8", source: str = "") -> None:
        """Read the header; ``RequestFileError`` where it is not this lane's."""
        self._stream = stream
        self._intake = Intake(lane)
        self._source = source
        self._line, self._end = 0, 0
        first = self._next_line()
        if first.startswith(_UTF16_BOMS):
            raise RequestFileError("the file is UTF-16: save it as CSV UTF-8")
        self.encoding = "utf-8" if first.startswith(_UTF8_BOM) else encoding
        self.header = self._header(first.removeprefix(_UTF8_BOM))

    def rows(self) -> Iterator[Row]:
        """Every row from here on, blank ones left out; ``RequestFileError`` at a byte of another encoding."""
        while raw := self._next_line():
            text = self._decoded(raw)
            if text.strip(" ,\t"):
                yield self._row(text)

    def skip_to(self, *, line: int, end: int) -> None:
        """Go on after the row that ended there; only on a file that can seek."""
        self._stream.seek(end)
        self._line, self._end = line, end

    def _next_line(self) -> bytes:
        raw = self._stream.readline(_LONGEST_LINE)
        if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
            raise RequestFileError(f"line {self._line + 1} is overlong: is this a CSV file?")
        self._line += 1
        self._end += len(raw)
        return raw

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode(self.encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            other = next(each for each in ENCODINGS if each != self.encoding)
            raise RequestFileError(
                f"line {self._line} is not {self.encoding.upper()}: try --encoding {other}"
            ) from None

    def _header(self, raw: bytes) -> list[str]:
        text = self._decoded(raw)
        names = [name.strip() for name in next(csv.reader([text]), [])]
        known = self._intake.argument_names
        if not any(names):
            raise RequestFileError("the file has no header: its first line names the columns")
        if len(names) == 1 and any(mark in text for mark in ";\t|"):
            raise RequestFileError("the columns must be separated by commas")
        wrong = [name for name in names if name not in known and not name.startswith("x_")]
        if wrong:
            raise RequestFileError(
                f"unknown column {wrong[0][:40]!r}: {self._intake.lane} takes {', '.join(known)}, "
                "and names starting with x_, which are ignored"
            )
        if twice := [name for name in known if names.count(name) > 1]:
            raise RequestFileError(f"column {twice[0]} is there twice")
        if missing := [name for name, needed in known.items() if needed and name not in names]:
            raise RequestFileError(f"column {missing[0]} is missing")
        return names

    def _row(self, text: str) -> Row:
        cells: list[str] = [text]
        try:
            cells = next(csv.reader([text], strict=True))
            arguments = self._arguments(cells)
        except csv.Error:
            return Row(self._line, self._end, cells, reason="a quotation mark is not closed on its line")
        except Rejected as exc:
            return Row(self._line, self._end, cells, reason=exc.reason)
        taken = self._intake.take_one(arguments, now=datetime.now(UTC))
        if taken.request is None:
            return Row(self._line, self._end, cells, reason=taken.reason)
        return Row(self._line, self._end, cells, item=arguments)

    def _arguments(self, cells: Sequence[str]) -> dict[str, Any]:
        """A row's cells as a task's arguments: what is empty is left out."""
        if any(cell.strip() for cell in cells[len(self.header) :]):
            raise Rejected(f"{len(cells)} cells, but {len(self.header)} columns")
        arguments: dict[str, Any] = {
            name: cell.strip()
            for name, cell in zip(self.header, cells, strict=False)
            if cell.strip() and not name.startswith("x_")
        }
        if self._source:
            arguments.setdefault("source", self._source)
        if "attempt" in arguments:
            arguments["attempt"] = _whole_number("attempt", arguments["attempt"])
        return arguments


def _whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Rejected(f"{name} must be a whole number")
    return int(text)
