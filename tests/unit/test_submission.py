"""Submitting a file: what is sent, what is noted, and where an interrupted one goes on."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from worker.errors import NotConfirmed
from worker.portability.requests import Lane
from worker.producing.request_files import RequestFile, Row
from worker.producing.submission import Progress, ProgressFile, RejectedRows, Submission


@dataclass
class Broker:
    """Keeps what is sent; breaks at the message it is told to, before or after taking it."""

    messages: list[tuple[str, list[Any], str | None]] = field(default_factory=list)
    breaks_before: int | None = None
    breaks_after: int | None = None

    def send(self, task: str, arguments: Mapping[str, Any], *, message_id: str | None = None) -> str:
        if len(self.messages) == self.breaks_before:
            raise NotConfirmed("the broker is away")
        self.messages.append((task, arguments["items"], message_id))
        if len(self.messages) == self.breaks_after:
            raise NotConfirmed("the confirm was lost")
        return str(message_id)

    def references(self) -> list[str]:
        return [item["order_id"] for _, items, _ in self.messages for item in items]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "orders.csv"
    made.write_text("order_id,mobile\n" + "".join(f"o{n},13972565391\n" for n in range(10)))
    return made


def submit(file: Path, broker: Broker, *, source: str = "", batch: int = 3) -> tuple[Progress, list[Row]]:
    rejected: list[Row] = []
    with submission(file, source, batch) as made:
        for rows in made.run(broker):
            rejected += rows
        return made.progress, rejected


@contextmanager
def submission(file: Path, source: str, batch: int) -> Any:
    with file.open("rb") as stream:
        noted = ProgressFile(file)
        before = noted.read(stream, lane=Lane.RECHARGE, source=source)
        made = Submission(
            RequestFile(stream, Lane.RECHARGE, source=source),
            stream,
            before or Progress(Lane.RECHARGE, source),
            batch,
            noted,
            RejectedRows(file.with_name(file.name + ".rejected.csv")),
        )
        try:
            yield made
        finally:
            made.close()


def test_every_row_goes_once_in_batches(file: Path) -> None:
    broker = Broker()
    progress, _ = submit(file, broker)
    assert [(task, len(items)) for task, items, _ in broker.messages] == [
        ("recharge.precheck_many", 3),
        ("recharge.precheck_many", 3),
        ("recharge.precheck_many", 3),
        ("recharge.precheck_many", 1),
    ]
    assert broker.references() == [f"o{n}" for n in range(10)]
    assert (progress.sent, progress.messages, progress.rejected, progress.line) == (10, 4, 0, 11)


@pytest.mark.parametrize("sent", [0, 1, 2, 3])
def test_a_broken_submission_goes_on_after_the_last_confirmed_batch(file: Path, sent: int) -> None:
    broken = Broker(breaks_before=sent)
    with pytest.raises(NotConfirmed):
        submit(file, broken)
    mended = Broker()
    progress, _ = submit(file, mended)
    assert broken.references() + mended.references() == [f"o{n}" for n in range(10)]
    assert progress.sent == 10


def test_what_was_sent_but_not_noted_has_the_same_message_id_again(file: Path) -> None:
    broken, mended = Broker(breaks_after=2), Broker()
    with pytest.raises(NotConfirmed):
        submit(file, broken)
    submit(file, mended)
    assert mended.messages[0] == broken.messages[1]
    ids = [message_id for _, _, message_id in [*broken.messages[:1], *mended.messages]]
    assert len(set(ids)) == 4


def test_a_finished_file_sends_nothing_again_but_what_was_added(file: Path) -> None:
    submit(file, Broker())
    again = Broker()
    submit(file, again)
    assert again.messages == []
    with file.open("a") as added:
        added.write("o10,13972565391\n")
    progress, _ = submit(file, again)
    assert again.references() == ["o10"]
    assert progress.sent == 11


def test_another_file_of_that_name_is_sent_whole(file: Path) -> None:
    submit(file, Broker())
    before = file.stat().st_mtime
    file.write_text(file.read_text().replace("o3,", "p3,"))
    os.utime(file, (before + 5, before + 5))
    again = Broker()
    submit(file, again)
    assert again.references() == ["o0", "o1", "o2", "p3", *(f"o{n}" for n in range(4, 10))]


def test_another_source_is_sent_whole(file: Path) -> None:
    submit(file, Broker())
    again = Broker()
    submit(file, again, source="b")
    assert len(again.references()) == 10


def test_a_spoilt_note_is_as_good_as_none(file: Path) -> None:
    submit(file, Broker())
    ProgressFile(file).path.write_text("{")
    again = Broker()
    submit(file, again)
    assert len(again.references()) == 10


def test_rejected_rows_are_kept_with_line_and_reason_once(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    rows = [f"o{n},{'x' if n % 4 == 1 else '13972565391'}\n" for n in range(12)]
    file.write_text("order_id,mobile\n" + "".join(rows))
    with pytest.raises(NotConfirmed):
        submit(file, Broker(breaks_before=2))
    progress, rejected = submit(file, Broker())
    kept = tmp_path / "orders.csv.rejected.csv"
    with kept.open(encoding="utf-8-sig", newline="") as written:
        found = list(csv.DictReader(written))
    assert [row["order_id"] for row in found] == ["o1", "o5", "o9"]
    assert [int(row["x_line"]) for row in found] == [3, 7, 11]
    assert all(row["x_reason"].startswith("mobile holds other characters") for row in found)
    assert progress.rejected == 3
    assert [row.line for row in rejected] == [11]
    assert kept.stat().st_mode & 0o077 == 0


def test_rejected_rows_written_but_not_noted_are_not_there_twice(file: Path, monkeypatch: Any) -> None:
    file.write_text("order_id,mobile\no0,x\no1,13972565391\n")
    monkeypatch.setattr(ProgressFile, "write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        submit(file, Broker())
    monkeypatch.undo()
    submit(file, Broker())
    kept = file.with_name("orders.csv.rejected.csv").read_text(encoding="utf-8-sig").splitlines()
    assert kept[0] == "order_id,mobile,x_line,x_reason"
    assert len(kept) == 2


def test_mended_rejected_rows_can_be_submitted_as_they_are(file: Path) -> None:
    file.write_text("order_id,mobile\no0,x\no1,13972565391\n")
    submit(file, Broker())
    kept = file.with_name("orders.csv.rejected.csv")
    kept.write_text(kept.read_text(encoding="utf-8").replace(",x,", ",13798361236,"), encoding="utf-8")
    broker = Broker()
    submit(kept, broker)
    assert broker.references() == ["o0"]


def test_a_row_of_too_many_cells_is_rejected_again_until_it_is_mended(file: Path) -> None:
    file.write_text("order_id,mobile\no0,13972565391,,13798361236,\no1,x,,\n")
    submit(file, Broker())
    kept = file.with_name("orders.csv.rejected.csv")
    broker = Broker()
    _, rejected = submit(kept, broker)
    assert broker.messages == []
    assert rejected[0].cells[:4] == ["o0", "13972565391", "", "13798361236"]
    kept.write_text(
        kept.read_text(encoding="utf-8").replace(",,13798361236", "").replace("o1,x", "o1,13798361236"),
        encoding="utf-8",
    )
    submit(kept, broker)
    assert broker.references() == ["o0", "o1"]


def test_a_file_of_bad_rows_alone_sends_nothing(file: Path) -> None:
    file.write_text("order_id,mobile\n" + "o,x\n" * 100)
    broker = Broker()
    progress, rejected = submit(file, broker)
    assert broker.messages == []
    assert (progress.rejected, len(rejected)) == (100, 100)
