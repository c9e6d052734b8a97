"""Submitting a file: batches of its rows, each confirmed, and where to go on after an interruption.

Safe to run twice: what was confirmed is skipped by the progress file, and what was sent but not yet noted
has the same message id and the same keys again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO
from uuid import UUID, uuid4, uuid5

from worker.portability.requests import Lane
from worker.producing.request_files import RequestFile, Row
from worker.queues import TASKS

_TAIL_BYTES = 4096
"""Of what was sent last: a file whose bytes there differ is another file."""


@dataclass(slots=True)
class Progress:
    """How far a file was submitted; kept beside it as JSON."""

    lane: str
    source: str
    # the ids of its messages are made from it
    run: str = field(default_factory=lambda: str(uuid4()))
    # the last row that was confirmed or rejected
    line: int = 0
    end: int = 0
    sent: int = 0
    messages: int = 0
    rejected: int = 0
    # of the file of rejected rows
    rejected_bytes: int = 0
    # to tell whether the file is still the same
    size: int = 0
    modified: float = 0.0
    tail: str = ""


class Sends(Protocol):
    """What a submission needs of a producer."""

    def send(self, task: str, arguments: Mapping[str, Any], *, message_id: str | None = None) -> str:
        """Send one message and wait for its confirm."""
        ...


class ProgressFile:
    """``FILE.progress``: read at the start, replaced after each confirmed batch."""

    def __init__(self, of: Path) -> None:
        self._file = of
        self.path = of.with_name(of.name + ".progress")

    def read(self, stream: BinaryIO, *, lane: Lane, source: str) -> Progress | None:
        """Return where to go on, or None: no progress, or of another file, lane or source."""
        try:
            progress = Progress(**json.loads(self.path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        now = self._file.stat()
        grown = now.st_size > progress.size
        same = (
            (progress.lane, progress.source) == (lane, source)
            and (grown or (now.st_size, now.st_mtime) == (progress.size, progress.modified))
            and _tail(stream, progress.end) == progress.tail
        )
        return progress if same else None

    def write(self, progress: Progress, stream: BinaryIO) -> None:
        """Note what is confirmed; a crash leaves the old note or the new one."""
        now = self._file.stat()
        progress.size, progress.modified = now.st_size, now.st_mtime
        progress.tail = _tail(stream, progress.end)
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        draft.replace(self.path)


class RejectedRows:
    """``FILE.rejected.csv``: the bad rows with line and reason, to be mended and submitted as they are.

    For its owner's eyes only, as it holds numbers; the columns ``x_line`` and ``x_reason`` are ignored again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def go_on_at(self, size: int) -> None:
        """Forget rows that were written but not noted."""
        if size:
            os.truncate(self.path, size)
        else:
            self.path.unlink(missing_ok=True)

    def add(self, rows: list[Row], header: list[str]) -> int:
        """Write rows; return the file's size."""
        if self._file is None:
            if not rows:
                return self.path.stat().st_size if self.path.exists() else 0
            self._file = self._opened(header)
        writer = csv.writer(self._file)
        for row in rows:
            writer.writerow([*_as_it_came(row, len(header)), row.line, row.reason])
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _opened(self, header: list[str]) -> TextIO:
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        file = os.fdopen(descriptor, "a", encoding="utf-8-sig", newline="")  # Excel asks for the BOM
        if new:
            csv.writer(file).writerow([*header, "x_line", "x_reason"])
        return file


@dataclass(slots=True)
class Submission:
    """Sends a file's rows in batches, and notes each batch once it is confirmed."""

    file: RequestFile
    stream: BinaryIO
    progress: Progress
    batch: int
    # None where the input cannot be read twice (stdin)
    progress_file: ProgressFile | None = None
    rejected_rows: RejectedRows | None = None
    _task: str = field(init=False)

    def __post_init__(self) -> None:
        """Go on where the progress says."""
        lane = self.progress.lane
        self._task = next(name for name, task in TASKS.items() if task.lane == lane and task.many)
        if self.progress.end:
            self.file.skip_to(line=self.progress.line, end=self.progress.end)
        if self.rejected_rows is not None:
            self.rejected_rows.go_on_at(self.progress.rejected_bytes)

    def run(self, producer: Sends) -> Iterator[list[Row]]:
        """Send everything; yields the rejected rows of each batch once the batch is confirmed and noted."""
        rows: list[Row] = []
        items = 0
        for row in self.file.rows():
            rows.append(row)
            items += row.item is not None
            if items == self.batch or len(rows) >= 10 * self.batch:
                yield self._send(producer, rows)
                rows, items = [], 0
        if rows:
            yield self._send(producer, rows)

    def close(self) -> None:
        """Close what is written beside the file."""
        if self.rejected_rows is not None:
            self.rejected_rows.close()

    def _send(self, producer: Sends, rows: list[Row]) -> list[Row]:
        progress = self.progress
        items = [row.item for row in rows if row.item is not None]
        rejected = [row for row in rows if row.item is None]
        if items:
            message_id = str(uuid5(UUID(progress.run), f"{rows[0].line} {len(items)}"))
            producer.send(self._task, {"items": items}, message_id=message_id)
        progress.sent += len(items)
        progress.messages += bool(items)
        progress.rejected += len(rejected)
        progress.line, progress.end = rows[-1].line, rows[-1].end
        if self.rejected_rows is not None:
            progress.rejected_bytes = self.rejected_rows.add(rejected, self.file.header)
        if self.progress_file is not None:
            self.progress_file.write(progress, self.stream)
        return rejected


def _as_it_came(row: Row, columns: int) -> list[str]:
    """Its cells, one a column or more; what is too many stays, so that it is rejected until mended."""
    cells = list(row.cells)
    while len(cells) > columns and not cells[-1].strip():
        cells.pop()
    return cells + [""] * (columns - len(cells))


def _tail(stream: BinaryIO, end: int) -> str:
    """A fingerprint of the bytes before ``end``; the stream is left where it was."""
    before = stream.tell()
    begin = max(0, end - _TAIL_BYTES)
    stream.seek(begin)
    digest = hashlib.sha256(stream.read(end - begin)).hexdigest()
    stream.seek(before)
    return digest
