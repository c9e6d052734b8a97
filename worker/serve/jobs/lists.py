"""Reading a caller's list of numbers: a file of CSV or text, or what was pasted.

A row is one line. Quoted line breaks are refused, so that a stray quotation mark spoils its own line and not
the rest of the file. The file is read twice, first for its encoding; memory grows with the distinct numbers
alone, by some 100 bytes each.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import BinaryIO

from worker.carrier.protocol import MAX_BATCH
from worker.errors import ListRefused, Rejected
from worker.portability.msisdn import normalise, with_our_digits
from worker.storage.jobs import Piece

MOST_ROWS = 1_000_000
MOST_BYTES = 64 * 2**20
"""Of a file: a million rows of 64 bytes."""
_LONGEST_LINE = 65_536
_LONGEST_SHOWN = 64
_SAMPLE = 1000
_ROWS_A_PIECE = 5000
"""A piece ends there also where its rows repeat numbers of earlier ones."""
_BLOCK = 1 << 20
_ALMOST_AS_MANY = 0.5
"""Two columns may be meant where the second holds at least this share of the first one's numbers."""

_SEPARATORS = (",", "\t", ";", "|")
_WITHOUT = "\0"
_A_WHOLE_NUMBER_BEFORE = r"(?:(?<=1[3-9][0-9]{9})|(?<=1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}))"
_A_WHOLE_NUMBER_AFTER = r"(?=(?:\+86|0086|86)?[ -]?1[3-9][0-9](?:[ -]?[0-9]{4}){2}(?![0-9]))"
_BETWEEN_PASTED = re.compile(rf"[,;\t，；、]|{_A_WHOLE_NUMBER_BEFORE}[ \u3000]+{_A_WHOLE_NUMBER_AFTER}")
_BLANK = re.compile(r"[\s,;|\"]*").fullmatch
_INVISIBLE = (
    "'\u00a0\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\u3000\ufeff"
)
"""What copying from a phone or a spreadsheet leaves around a number."""
_NAMES = re.compile(r"mobile|phone|msisdn|tel|手机|电话|号码", re.IGNORECASE).search
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EXCELS = re.compile(r'="(?P<as_text>[^"]*)"|(?P<as_decimal>\+?[0-9]+)\.0+').fullmatch
"""How a spreadsheet writes a number that it takes for text, or for a decimal."""
_SHORTENED = re.compile(r"[0-9](?:\.[0-9]+)?[Ee]\+?[0-9]+").fullmatch
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Wrong(StrEnum):
    """Why a row holds no mobile number."""

    EMPTY = "empty"
    CHARACTERS = "characters"
    """Others than digits, spaces, dashes and a leading +86."""
    LENGTH = "length"
    """Not 11 digits."""
    PREFIX = "prefix"
    """11 digits that do not begin with 13 to 19."""
    SHORTENED = "shortened"
    """1.38E+10: a spreadsheet has dropped digits."""
    QUOTE = "quote"
    """A quotation mark is not closed on its line."""


@dataclass(frozen=True, slots=True)
class _Layout:
    separator: str
    column: int
    # the column's heading, or its number from 1
    name: str
    has_heading: bool


class NumberList:
    """A list that can be read: :meth:`pieces` reads it."""

    def __init__(self, stream: BinaryIO, *, column: str = "") -> None:
        """Find encoding, separator and column; ``ListRefused`` says which of them cannot be found.

        ``column`` is a heading or a number from 1; empty: the one that holds mobile numbers.
        """
        encoding = _encoding(stream)
        begin = io.TextIOWrapper(stream, encoding=encoding)
        sample = list(islice(_lines(begin), _SAMPLE))
        begin.detach()  # or it would close the stream
        stream.seek(0)
        self._layout = _layout([line for line in sample if not _BLANK(line)], column.strip())
        self._text = io.TextIOWrapper(stream, encoding=encoding)

    @property
    def column(self) -> str:
        """The heading, or the number, of the column that holds the mobile numbers."""
        return self._layout.name

    def pieces(self) -> Iterator[Piece]:
        """Yield it in pieces of up to 1000 numbers that are new; ``ListRefused`` past a million rows."""
        known: dict[int, int] = {}
        piece, rows = Piece(), 0
        heading = self._layout.has_heading
        for line, text in enumerate(_lines(self._text), start=1):
            if _BLANK(text):
                continue
            if heading:
                heading = False
                continue
            rows += 1
            if rows > MOST_ROWS:
                raise ListRefused("too_many_rows", most=MOST_ROWS)
            cell, number, wrong = self._read(text)
            if number is None:
                piece.errors.append((line, _shown(cell), wrong or Wrong.CHARACTERS))
            else:
                msisdn = int(number)
                new = len(known)
                ref = known.setdefault(msisdn, new)
                if ref == new:
                    piece.msisdns.append(msisdn)
                piece.lines.append(line)
                piece.refs.append(ref)
            if len(piece.msisdns) == MAX_BATCH or len(piece.lines) + len(piece.errors) >= _ROWS_A_PIECE:
                yield piece
                piece = Piece()
        if piece.lines or piece.errors:
            yield piece
        self._text.detach()

    def _read(self, text: str) -> tuple[str, str | None, Wrong | None]:
        """The row's cell, and its number or what is wrong with it."""
        cells = _cells(text, self._layout.separator)
        if cells is None:
            return text, None, Wrong.QUOTE
        cell = cells[self._layout.column] if self._layout.column < len(cells) else ""
        return cell, *number_in(cell)


def of_pasted(text: str) -> BinaryIO:
    """What was pasted as a file: commas, semicolons, tabs, and spaces between whole numbers separate too."""
    return io.BytesIO(_BETWEEN_PASTED.sub("\n", with_our_digits(text)).encode())


def number_in(cell: str) -> tuple[str | None, Wrong | None]:
    """Return the number somebody wrote, 11 digits, or what is wrong with it; digits may be full-width."""
    number = _number(cell)
    return number, None if number else _wrong(cell)


def _encoding(stream: BinaryIO) -> str:
    """Find out how a file is encoded, and go back to its begin."""
    begin = stream.read(4096)
    stream.seek(0)
    if begin.startswith(_UTF16):
        return "utf-16"
    if begin.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ListRefused("workbook")
    if b"\0" in begin:
        raise ListRefused("not_text")
    for encoding in ("utf-8-sig", "gb18030"):
        if _can_be(stream, encoding):
            return encoding
    raise ListRefused("encoding")


def _can_be(stream: BinaryIO, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while block := stream.read(_BLOCK):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    finally:
        stream.seek(0)
    return True


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    try:
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE and not line.endswith("\n"):
                raise ListRefused("long_line", line=number)
            yield line.rstrip("\r\n")
    except UnicodeError:  # of UTF-16, which is not read twice
        raise ListRefused("encoding") from None


def _cells(text: str, separator: str) -> Sequence[str] | None:
    """A row's cells; None where a quotation mark is not closed."""
    if separator == _WITHOUT:
        return (text,)
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error:
        return None


def _number(cell: str) -> str | None:
    try:
        return normalise(_written(cell))
    except Rejected:
        return None


def _written(cell: str) -> str:
    """What somebody wrote, in our digits and without what was put around it."""
    text = with_our_digits(cell.strip().strip(_INVISIBLE).strip())
    excels = _EXCELS(text)
    return text if excels is None else excels["as_text"] or excels["as_decimal"] or ""


def _wrong(cell: str) -> Wrong:
    text = _written(cell)
    if not text:
        return Wrong.EMPTY
    if _SHORTENED(text):
        return Wrong.SHORTENED
    digits = text.translate({ord(" "): None, ord("-"): None}).removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return Wrong.CHARACTERS
    return Wrong.PREFIX if len(digits) == 11 else Wrong.LENGTH


def _shown(cell: str) -> str:
    """What stood there, short and harmless, digits in one script so that erasure finds them."""
    return with_our_digits(_CONTROL.sub(" ", cell).strip())[:_LONGEST_SHOWN]


def _layout(rows: Sequence[str], column: str) -> _Layout:
    """Where the numbers are, judged by the first rows."""
    if not rows:
        raise ListRefused("empty")
    best: tuple[int, str, Counter[int]] | None = None
    for separator in (*_SEPARATORS, _WITHOUT):
        hits = _hits(rows, separator)
        most = max(hits.values(), default=0)
        if best is None or most > best[0]:
            best = most, separator, hits
    assert best is not None
    most, separator, hits = best
    first = [cell.strip().strip(_INVISIBLE) for cell in _cells(rows[0], separator) or (rows[0],)]
    at = _named(first, column) if column else _found(first, hits, most)
    heading = first[at] if at < len(first) and not any(map(str.isdigit, first[at])) else ""
    return _Layout(separator, at, heading[:_LONGEST_SHOWN] or str(at + 1), bool(heading))


def _hits(rows: Iterable[str], separator: str) -> Counter[int]:
    """How many mobile numbers each column holds."""
    return Counter(
        at
        for row in rows
        for at, cell in enumerate(_cells(row, separator) or ())
        if _number(cell) is not None
    )


def _named(first: Sequence[str], column: str) -> int:
    same = [at for at, name in enumerate(first) if name.casefold() == column.casefold()]
    if same:
        return same[0]
    if column.isascii() and column.isdigit() and 1 <= int(column) <= len(first):
        return int(column) - 1
    raise ListRefused("no_such_column", column=column[:_LONGEST_SHOWN], columns=_listed(first))


def _found(first: Sequence[str], hits: Counter[int], most: int) -> int:
    if not most:
        raise ListRefused("no_numbers", columns=_listed(first))
    meant = [at for at, number in hits.items() if number >= most * _ALMOST_AS_MANY]
    if len(meant) > 1:
        meant = [at for at in meant if at < len(first) and _NAMES(first[at])] or meant
    if len(meant) > 1:
        raise ListRefused("which_column", columns=_listed(first))
    return meant[0]


def _listed(first: Sequence[str]) -> str:
    """The first row's cells as an error names them, digits hidden: it may be no heading."""
    shown = (re.sub(r"[0-9]{5,}", "…", _shown(cell))[:20] or "–" for cell in first[:12])
    return ", ".join(f"{at} {name}" for at, name in enumerate(shown, start=1))
