"""``presend dead``: items that could not be taken, and sending them again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from worker.cli import operator
from worker.cli.screen import console, counted, local, print_json, print_table, printable

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.storage.dead_letters import DeadLetter

_SHOWN_PAYLOAD = 90

_reason = click.option("--reason", metavar="TEXT", help="Only those whose reason contains this text.")
_task = click.option("--task", metavar="TASK", help="Only those of this task, e.g. sms.recheck.")


@click.group(
    "dead",
    short_help="List dead letters, and send them again.",
    epilog='\b\nExample:\n  presend dead list\n  presend dead replay --reason "never answered"\n',
)
def dead() -> None:
    """Dead letters: items presend could not take, kept with the reason."""


@dead.command(
    "list", epilog='\b\nExample:\n  presend dead list --task sms.recheck --reason "operator must be one of"\n'
)
@_reason
@_task
@click.option("--replayed", is_flag=True, help="Also those that were sent again.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Show at most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, numbers in full.")
def list_(reason: str | None, task: str | None, replayed: bool, limit: int, as_json: bool) -> None:
    """Show dead letters, oldest first, numbers masked."""
    from worker.storage import dead_letters, engine

    with operator.database() as database:
        letters = engine.read(
            database,
            lambda to: dead_letters.select(to, reason=reason, task=task, replayed=replayed, most=limit),
        )
        found = engine.read(
            database, lambda to: dead_letters.count(to, reason=reason, task=task, replayed=replayed)
        )
    if as_json:
        for letter in letters:
            print_json(_as_json(letter))
    elif not letters:
        click.echo("no dead letters")
    else:
        screen = console()
        print_table(screen, _table(letters, replayed=replayed))
        if found > len(letters):
            screen.print(f"[dim]the oldest {len(letters):,} of {found:,}; --limit shows more[/dim]")


@dead.command(
    epilog="\b\nExamples:\n  presend dead replay --all --dry-run\n"
    "  presend dead replay --id 0198c5a2-6f1e-7c3d-9a55-0c1b6f6d2a55\n"
)
@click.option("--id", "ids", multiple=True, type=click.UUID, help="Only this one (repeatable).")
@_reason
@_task
@click.option("--all", "everything", is_flag=True, help="All that were not sent again yet.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
def replay(
    ids: tuple[UUID, ...], reason: str | None, task: str | None, everything: bool, dry_run: bool
) -> None:
    """Send dead letters to their queues again.

    Each is marked once the broker confirmed its message. One that is still wrong comes back as a new letter.
    """
    from worker import config
    from worker.storage import dead_letters, engine

    chosen = bool(reason or task)
    if bool(ids) + chosen + everything != 1:
        raise click.UsageError("say which: --id, --reason and --task, or --all")
    with operator.database() as database:
        wanted = [str(each) for each in ids] or engine.read(
            database, lambda to: dead_letters.ids(to, reason=reason, task=task)
        )
        if dry_run:
            _tell_plan(database, wanted)
        else:
            _replay(database, config.load().broker_url, wanted)


def _tell_plan(database: Engine, wanted: Sequence[str]) -> None:
    from worker.producing.replay import plan

    planned = plan(database, wanted)
    click.echo(f"would send {counted(len(planned.sent), 'letter')}")
    for task, number in Counter(str(letter.task) for letter in planned.sent).most_common():
        click.echo(f"  {number:,} {task}")
    _tell_left(planned.left)


def _replay(database: Engine, broker_url: str, wanted: Sequence[str]) -> None:
    from worker.producing.producer import Producer
    from worker.producing.replay import replay as send_again

    sent, left = 0, []
    try:
        with Producer(broker_url) as producer:
            for part in send_again(database, producer, wanted):
                sent += len(part.sent)
                left += part.left
    finally:
        click.echo(f"sent {counted(sent, 'letter')} again")
    _tell_left(left)
    if gone := len(wanted) - sent - len(left):
        click.echo(f"passed over {gone:,}: not there, or sent again before")


def _tell_left(left: Sequence[tuple[DeadLetter, str]]) -> None:
    for why, number in Counter(why for _, why in left).most_common():
        click.echo(f"left {number:,} where they are: {why}; presend dead list --json shows what came")


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "task": letter.task,
        "payload": letter.payload,
        "reason": letter.reason,
        "queue": letter.queue,
        "received_at": letter.received_at.isoformat(),
        "replayed_at": letter.replayed_at and letter.replayed_at.isoformat(),
    }


def _table(letters: Sequence[DeadLetter], *, replayed: bool) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 1, 0), header_style="dim")
    table.add_column("received", no_wrap=True)
    table.add_column("what came", ratio=1, overflow="fold")
    if replayed:
        table.add_column("sent again", no_wrap=True)
    for letter in letters:
        cell = Text()
        cell.append(f"{_shown(letter.task or 'no task', _SHOWN_PAYLOAD)}  ", style="bold")
        cell.append(f"{letter.id}\n", style="dim")
        cell.append(f"{_shown(letter.reason, 400)}\n", style="red")
        cell.append(_shown(_payload(letter.payload), _SHOWN_PAYLOAD))
        row: list[Any] = [local(letter.received_at), cell]
        if replayed:
            row.append("-" if letter.replayed_at is None else local(letter.replayed_at))
        table.add_row(*row)
    return table


def _payload(payload: Any) -> str:
    """What came, in few words."""
    if not isinstance(payload, dict) or not payload:
        return json.dumps(payload, ensure_ascii=False)
    if isinstance(body := payload.get("base64"), str) and payload.keys() <= {"base64", "content_type"}:
        return _undecoded(body, payload.get("content_type"))
    pairs = (
        f"{name} {'<' + counted(len(value), 'item') + '>' if isinstance(value, list) else value}"
        for name, value in payload.items()
    )
    return ", ".join(pairs)


def _undecoded(body: str, content_type: Any) -> str:
    """A body's size alone: base64 would get past the mask."""
    size = len(body.rstrip("=")) * 3 // 4
    shown = f"<{counted(size, 'byte')} that could not be decoded>"
    return f"{shown}, {content_type}" if content_type else shown


def _shown(text: str, most: int) -> str:
    """Text of a stranger's, made safe for a terminal, and short."""
    text = printable(text)
    return text if len(text) <= most else text[:most] + "…"
