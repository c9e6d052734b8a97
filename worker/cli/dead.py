"""``presend dead``: items that could not be taken, and sending them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from worker.cli import operator
from worker.cli.screen import console, counted, local, print_json, print_table, printable
from worker.producing.showing import brief

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.producing.replay import Cap, Replayed
    from worker.storage.dead_letters import DeadLetter

_SHOWN_PAYLOAD = 90

_reason = click.option("--reason", metavar="TEXT", help="Only those whose reason contains this text.")
_task = click.option("--task", metavar="TASK", help="Only those of this task, e.g. sms.recheck.")


@click.group(
    "dead",
    short_help="List dead letters, and send them again.",
    epilog='\b\nExample:\n  presend dead list\n  presend dead replay --reason "answers lost"\n',
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

    which = dead_letters.Which(reason=reason, task=task, replayed=None if replayed else False)
    with operator.database() as database:
        letters = engine.read(database, lambda to: dead_letters.select(to, which, most=limit))
        found = engine.read(database, lambda to: dead_letters.count(to, which))
    if as_json:
        for letter in letters:
            print_json(_as_json(letter))
    elif not letters:
        click.echo("no dead letters")
    else:
        screen = console()
        print_table(screen, _listing(letters))
        if found > len(letters):
            screen.print(f"\n[dim]the oldest {len(letters):,} of {found:,}; --limit shows more[/dim]")


@dead.command(
    epilog="\b\nExamples:\n  presend dead replay --all --dry-run\n"
    "  presend dead replay --reason 'answers lost' --max-lookups 300\n"
    "  presend dead replay --id 0198c5a2-6f1e-7c3d-9a55-0c1b6f6d2a55 --why 'mended' --by mei\n"
)
@click.option("--id", "ids", multiple=True, type=click.UUID, help="Only this one (repeatable).")
@_reason
@_task
@click.option("--all", "everything", is_flag=True, help="All that were not sent again yet.")
@click.option(
    "--max-lookups",
    type=click.IntRange(0),
    metavar="N",
    help="Leave what would buy more than so many numbers in all.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be sent, and what it would buy.")
@click.option("--why", default="none given", metavar="TEXT", help="Why, for the history.")
@operator.by_option
def replay(  # noqa: PLR0917 - click's options
    ids: tuple[UUID, ...],
    reason: str | None,
    task: str | None,
    everything: bool,
    max_lookups: int | None,
    dry_run: bool,
    why: str,
    by: str | None,
) -> None:
    """Send dead letters to their queues again.

    Each is marked once the broker confirmed its message. One that is still wrong comes back as a new letter.
    What a letter buys is what its requests would buy now, if every call were answered: one whose key was
    decided, or whose number has a record that is fresh enough, buys nothing. Who did it and why is
    kept, and what came of it.
    """
    from worker import bootstrap, config
    from worker.producing.pricing import Pricing
    from worker.producing.replay import Cap, note_begin
    from worker.storage import dead_letters, engine

    chosen = bool(reason or task)
    if bool(ids) + chosen + everything != 1:
        raise click.UsageError("say which: --id, --reason and --task, or --all")
    who = None if dry_run else operator.who(by)
    with operator.database() as database:
        wanted = [str(each) for each in ids] or engine.read(
            database, lambda to: dead_letters.ids(to, dead_letters.Which(reason=reason, task=task))
        )
        if not wanted:
            which = f" ({_words(reason, task)}): presend dead list shows what there is" if chosen else ""
            click.echo(f"no letters to send again{which}")
            return
        settings = config.load()
        cap = Cap(Pricing(bootstrap.rules(settings), bootstrap.intakes(settings)), max_lookups)
        if who is None:
            _tell_plan(database, wanted, cap)
            return
        chosen_words = f"{len(ids)} chosen" if ids else _words(reason, task)
        note_begin(database, who=who, why=operator.reason(why), chosen=chosen_words, most=max_lookups)
        _replay(database, settings.broker_url, wanted, cap, who)


def _tell_plan(database: Engine, wanted: Sequence[str], cap: Cap) -> None:
    from worker.producing.replay import plan

    planned = plan(database, wanted, cap)
    click.echo(f"would send {counted(len(planned.sent), 'letter')}, {_price(planned)}")
    for task, number in Counter(str(letter.task) for letter in planned.sent).most_common():
        click.echo(f"  {number:,} {task}")
    for requests, words in _outcomes(planned):
        click.echo(f"  {counted(requests, 'request')} {words}")
    _tell_left(planned.left)


def _replay(database: Engine, broker_url: str, wanted: Sequence[str], cap: Cap, who: str) -> None:
    from worker.producing.producer import Producer
    from worker.producing.replay import Replayed, note_end
    from worker.producing.replay import replay as send_again

    done, stopped = Replayed(), True
    try:
        with Producer(broker_url) as producer:
            for part in send_again(database, producer, wanted, cap):
                done.add(part)
        stopped = False
    finally:
        click.echo(f"sent {counted(len(done.sent), 'letter')} again, {_price(done)}")
        note_end(database, done, who=who, letters=len(wanted), stopped=stopped)
    _tell_left(done.left)
    if gone := len(wanted) - len(done.sent) - len(done.left):
        click.echo(f"passed over {gone:,}: not there, or sent again before")


def _words(reason: str | None, task: str | None) -> str:
    """Which letters, for the history."""
    named = {"task": task, "contains": reason}
    return ", ".join(f"{name} {value!r}" for name, value in named.items() if value) or "all"


def _price(replayed: Replayed) -> str:
    """What it buys."""
    most = f"at most {counted(replayed.look_ups, 'look-up')}"
    return most if replayed.numbers == replayed.look_ups else f"{most}, of {replayed.numbers:,} numbers"


def _outcomes(replayed: Replayed) -> list[tuple[int, str]]:
    """Requests that buy nothing, and why."""
    every = (
        (sum(price.decided for price in replayed.prices), "were decided already: the answer is sent again"),
        (sum(price.unasked for price in replayed.prices), "are answered by a rule or a stored record"),
        (sum(price.wrong for price in replayed.prices), "are still wrong, and come back as new letters"),
    )
    return [(number, words) for number, words in every if number]


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


def _listing(letters: Sequence[DeadLetter]) -> Any:
    """A letter's entry: when, what and its id; why; what came."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    entries: list[Any] = []
    for letter in letters:
        head = Text(f"{local(letter.received_at)}  ", style="dim")
        head.append(_shown(letter.task or "no task", _SHOWN_PAYLOAD), style="not dim bold")
        head.append(f"  {letter.id}")
        rest = Text(f"{_shown(letter.reason, 400)}\n", style="red")
        rest.append(_shown(brief(letter.payload), _SHOWN_PAYLOAD), style="default")
        if letter.replayed_at is not None:
            rest.append(f"\nsent again {local(letter.replayed_at)}", style="default")
        entries += [*([Text()] if entries else []), head, Padding(rest, (0, 0, 0, 4))]
    return Group(*entries)


def _shown(text: str, most: int) -> str:
    """Text of a stranger's, made safe for a terminal, and short."""
    text = printable(text)
    return text if len(text) <= most else text[:most] + "…"
