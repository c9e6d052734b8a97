"""What the demo says at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.demo.accounts import Account
from worker.demo.figures import Change, Letter, Record
from worker.demo.screen import HEADING, QUIET
from worker.portability.msisdn import mask
from worker.portability.operators import label_of
from worker.portability.records import Status

_STATUSES = {
    Status.PORTED.value: "ported",
    Status.NOT_PORTED.value: "not ported",
    Status.VIRTUAL.value: "virtual",
}

_NEXT = (
    ("presend demo --keep", "the same, left running; in a second terminal:"),
    ("  presend check 13972565391", "one number, now"),
    ("  presend events --follow", "decisions as they are told"),
    ("  presend dead list", "what could not be taken, and why"),
    ("  celery -A worker.app flower", "every task in the browser, port 5555"),
    ("README.md and docs/", "how to run it for real"),
)


def numbers(records: Iterable[Record]) -> RenderableType:
    """The document's own numbers."""
    made = Table.grid(padding=(0, 2))
    for record in records:
        moved = f"{label_of(record.range_holder)} -> {label_of(record.current_operator)}"
        status = _STATUSES.get(record.status, record.status)
        made.add_row(record.msisdn, moved, status, record.area or "")
    return _titled("The document's four numbers", made)


def happenings(change: Change | None, letter: Letter | None) -> RenderableType:
    """The number that moved, and a message that could not be taken."""
    parts: list[RenderableType] = []
    if change is not None:
        donor, recipient = label_of(change.donor), label_of(change.recipient)
        lines = Text(f"{mask(change.msisdn)} left {donor} for {recipient}: number.ported\n")
        failed, target = label_of(change.asked_operator), label_of(change.target_operator)
        lines.append(f"and its request, which named {failed}: {change.event} to {target}")
        parts.append(_titled("A port while the day ran", lines))
    if letter is not None:
        reference = letter.payload.get("order_id") or letter.payload.get("message_id")
        told = Text(f"{letter.task} {reference}\n{letter.reason}")
        parts.append(_titled("One of the dead letters", told))
    return Group(*parts)


def agreement(accounts: Sequence[Account]) -> RenderableType:
    """Whether the figures that must agree do."""
    made = Table.grid(padding=(0, 2))
    for _ in range(2):
        made.add_column()
        made.add_column(justify="right")
    made.add_column()
    for account in accounts:
        verdict = Text("agrees", "green") if account.agrees else Text("DISAGREES", "bold red")
        counts = (f"{account.one_counts:,}", f"{account.other_counts:,}")
        made.add_row(account.one, counts[0], account.other, counts[1], verdict)
    return _titled("Counted twice", made)


def next_steps() -> RenderableType:
    """Where to look next."""
    made = Table.grid(padding=(0, 2))
    for command, purpose in _NEXT:
        made.add_row(command, Text(purpose, QUIET))
    return _titled("Next", made)


def _titled(title: str, body: RenderableType) -> RenderableType:
    return Padding(Group(Text(title, HEADING), Padding(body, (0, 0, 0, 2))), (1, 0, 0, 1))
