"""``presend submit``: a CSV file into a lane's queue."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from worker.cli.failures import Failure, told
from worker.cli.screen import console, counted, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from worker.producing.request_files import Row
    from worker.producing.submission import Submission

_SHOWN_ROWS = 5
_INTERRUPTED = 130
_EPILOG = """\b
The first line names the columns, as the task's arguments are named:
  recharge   order_id, mobile, operator, attempt, source
  sms        message_id, mobile, operator, attempt, source, failure_code, failed_at

\b
Examples:
  presend submit --lane sms failed-today.csv
  presend submit --lane recharge orders.csv --encoding gb18030
  zcat failed.csv.gz | presend submit --lane sms -

\b
An interrupted file goes on where it stopped: run the same command again. What FILE.progress holds
was confirmed by the broker. Bad rows go to FILE.rejected.csv, which can be mended and submitted.
"""


@click.command("submit", epilog=_EPILOG, short_help="Put a CSV file of requests into a lane's queue.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--lane", required=True, type=click.Choice(["recharge", "sms"]), help="Whose queue.")
@click.option(
    "--encoding",
    default="utf-8",
    show_default=True,
    type=click.Choice(["utf-8", "gb18030"]),
    help="GB18030 covers GBK and GB2312.",
)
@click.option("--batch", default=500, show_default=True, type=click.IntRange(1, 1000), help="Rows a message.")
@click.option("--source", default="", help="Source of rows that name none.")
@click.option("--restart", is_flag=True, help="Forget FILE.progress and send every row again.")
def submit(file: Path, lane: str, encoding: str, batch: int, source: str, restart: bool) -> None:  # noqa: PLR0917
    """Put the rows of FILE, or of stdin (-), into a lane's queue."""
    from worker import config
    from worker.producing.producer import Producer

    broker_url = config.load().broker_url
    with _opened(file, lane, encoding, batch, source, restart=restart) as submission:
        resumed_at = submission.progress.line
        if resumed_at:
            click.echo(f"going on after line {resumed_at:,}", err=True)
        try:
            with Producer(broker_url) as producer:
                _send(submission, producer, file)
        except KeyboardInterrupt:
            click.echo(_stopped(submission), err=True)
            sys.exit(_INTERRUPTED)
        except Exception as exc:
            if click.get_current_context().find_root().params.get("debug"):
                raise
            raise Failure(f"{told(exc).message}\n{_stopped(submission)}") from exc
        _summary(submission, file, resumed_at)


@contextmanager
def _opened(
    file: Path, lane: str, encoding: str, batch: int, source: str, *, restart: bool
) -> Iterator[Submission]:
    from worker.portability.requests import Lane
    from worker.producing.request_files import RequestFile
    from worker.producing.submission import Progress, ProgressFile, RejectedRows, Submission

    if file == Path("-"):
        stream: BinaryIO = sys.stdin.buffer
        requests = RequestFile(stream, Lane(lane), encoding=encoding, source=source)
        yield Submission(requests, stream, Progress(lane, source), batch)
        return
    with file.open("rb") as stream:
        requests = RequestFile(stream, Lane(lane), encoding=encoding, source=source)
        noted = ProgressFile(file)
        before = None if restart else noted.read(stream, lane=Lane(lane), source=source)
        submission = Submission(
            requests,
            stream,
            before or Progress(lane, source),
            batch,
            noted,
            RejectedRows(file.with_name(file.name + ".rejected.csv")),
        )
        try:
            yield submission
        finally:
            submission.close()


def _send(submission: Submission, producer: object, file: Path) -> None:
    from worker.producing.producer import Producer

    assert isinstance(producer, Producer)
    shown = 0
    with _bar() as bar:
        total = None if submission.progress_file is None else file.stat().st_size
        task = bar.add_task(file.name, total=total, completed=submission.progress.end, rows=0)
        for rejected in submission.run(producer):
            for row in rejected[: max(0, _SHOWN_ROWS - shown)]:
                bar.console.print(_told_row(row))
            shown += len(rejected)
            bar.update(
                task,
                completed=submission.progress.end,
                rows=submission.progress.sent + submission.progress.rejected,
            )
    if shown > _SHOWN_ROWS:
        click.echo(f"  … and {shown - _SHOWN_ROWS:,} more", err=True)


def _bar() -> Bar:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _told_row(row: Row) -> str:
    from rich.markup import escape

    return f"  line {row.line}: {escape(printable(row.reason or ''))}"


def _stopped(submission: Submission) -> str:
    progress = submission.progress
    if not progress.line:
        return "nothing was sent"
    sent = f"stopped: {counted(progress.sent, 'row')} sent and confirmed, up to line {progress.line:,}"
    if submission.progress_file is None:
        return f"{sent}; submitting all again is safe, the same keys are recognised"
    return f"{sent}; the same command goes on there"


def _summary(submission: Submission, file: Path, resumed_at: int) -> None:
    from rich.table import Table

    progress = submission.progress
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("sent", f"{counted(progress.sent, 'row')} in {counted(progress.messages, 'message')}")
    if progress.rejected:
        where = (
            submission.rejected_rows.path if submission.rejected_rows else "not kept, as they came by stdin"
        )
        table.add_row("bad rows", f"[red]{progress.rejected:,}[/red]  {where}")
    if progress.line == resumed_at:
        table.add_row("nothing new", f"all of {file.name} was sent before; --restart sends it again")
    console(stderr=True).print(table)
