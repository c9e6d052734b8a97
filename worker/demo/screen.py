"""The dashboard: every figure while it happens, from 80 columns on; and one line for a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.demo.figures import Calls, Figures
from worker.demo.sending import Sent
from worker.demo.waits import Waits, percentile

HEADING = "bold cyan"
QUIET = "dim"

_LANES = ("recharge", "sms")
_DECISIONS = ("confirmed", "reroute", "rejected", "unverified", "resend", "undeliverable")
_SOURCES = {
    "live": "a look-up of its own",
    "shared": "a look-up in flight",
    "stored": "a stored record",
    "rule": "a rule, unasked",
}
_NO_CALLS = Calls(0, 0, 0, 0, 0)
_WIDE = 120


@dataclass(frozen=True, slots=True)
class Moment:
    """What there is to show at one moment."""

    # share of the day that is over
    share: float
    sent: Sent
    # requests in the whole day
    items: int
    figures: Figures
    # by the provider
    billed: int
    events: Counter[str]
    waits: Waits

    @property
    def clock(self) -> str:
        """The day's time."""
        minutes = min(round(self.share * 24 * 60), 24 * 60)
        return f"{minutes // 60:02}:{minutes % 60:02}"

    def line(self) -> str:
        """All of it in one line."""
        return (
            f" {self.clock}  {self.sent.items:,} of {self.items:,} sent, {self.figures.requests:,} decided, "
            f"{self.billed:,} billed, {self.events.total():,} events"
        )


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A moment as a terminal shows it: tables in two columns, or in three."""

    moment: Moment

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the day's progress and the tables."""
        moment, figures = self.moment, self.moment.figures
        decisions, told, waits = _decisions(figures), _told(moment), _waits(moment.waits)
        cost, sources, calls = _cost(moment), _sources(figures), _calls(figures)
        if options.max_width >= _WIDE:
            columns = [[decisions, told], [cost, sources], [calls, waits]]
        else:
            columns = [[decisions, told, waits], [cost, sources, calls]]
        yield _progress(moment)
        yield _side_by_side(columns)


def _table(title: str, *columns: str) -> Table:
    """A table whose title is its first heading, figures to the right."""
    made = Table(box=None, header_style="", pad_edge=False, padding=(0, 1), expand=True)
    made.add_column(Text(title, HEADING), ratio=1, no_wrap=True)
    for column in columns:
        made.add_column(Text(column, QUIET), justify="right", no_wrap=True, min_width=6)
    return made


def _count(number: int) -> RenderableType:
    """A figure; nothing is a dash."""
    return f"{number:,}" if number else Text("-", QUIET)


def _progress(moment: Moment) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=5)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=1.0, completed=moment.share, complete_style="cyan", finished_style="cyan")
    grid.add_row(moment.clock, bar, f"{moment.sent.items:,} of {moment.items:,} requests sent")
    return Padding(grid, (0, 1, 1, 1))


def _side_by_side(columns: Sequence[Sequence[RenderableType]]) -> RenderableType:
    grid = Table.grid(padding=(0, 3), pad_edge=False, expand=True)
    for _ in columns:
        grid.add_column(ratio=1)
    grid.add_row(*(_stacked(column) for column in columns))
    return Padding(grid, (0, 1))


def _stacked(column: Sequence[RenderableType]) -> RenderableType:
    first, *others = column
    return Group(first, *(Padding(each, (1, 0, 0, 0)) for each in others))


def _decisions(figures: Figures) -> Table:
    made = _table("Decisions", *_LANES)
    for decision in _DECISIONS:
        made.add_row(decision, *(_count(figures.decisions[lane, decision]) for lane in _LANES))
        if decision == "reroute":
            made.add_row(
                Text("  of them virtual", QUIET), *(_count(figures.virtual[lane]) for lane in _LANES)
            )
    return made


def _cost(moment: Moment) -> Table:
    figures = moment.figures
    made = _table("Cost", "")
    made.add_row("different requests", _count(figures.requests))
    made.add_row("different numbers", _count(figures.numbers))
    made.add_row("look-ups, one a request", _count(figures.one_each))
    made.add_row("look-ups bought (ledger)", _count(figures.billed))
    made.add_row("look-ups billed (provider)", _count(moment.billed))
    made.add_row(Text("saved", "bold"), Text(f"{figures.saved:.1%}", "bold"))
    return made


def _sources(figures: Figures) -> Table:
    made = _table("Answered from", "")
    for source, name in _SOURCES.items():
        made.add_row(name, _count(figures.answered_from[source]))
    return made


def _calls(figures: Figures) -> Table:
    made = _table("Provider calls", *_LANES)
    lanes = [figures.calls.get(lane, _NO_CALLS) for lane in _LANES]
    made.add_row("calls", *(_count(lane.calls) for lane in lanes))
    made.add_row(
        "numbers a call", *(f"{lane.numbers / lane.calls:.1f}" if lane.calls else "" for lane in lanes)
    )
    made.add_row("in the largest", *(_count(lane.largest) for lane in lanes))
    return made


def _waits(waits: Waits) -> Table:
    made = _table("A shopper waits", "p50", "p99")
    made.add_row("for a look-up", *_milliseconds(waits.bought))
    made.add_row(Text("  presend's part", QUIET), *_milliseconds(waits.own))
    made.add_row("for a record", *_milliseconds(waits.stored))
    return made


def _milliseconds(seconds: Sequence[float]) -> list[RenderableType]:
    found = [percentile(seconds, percent) for percent in (50, 99)]
    return [Text("-", QUIET) if each is None else f"{each * 1000:.0f} ms" for each in found]


def _told(moment: Moment) -> Table:
    made = _table("Told", "")
    made.add_row("events", _count(moment.events.total()))
    made.add_row(Text("  number.ported", QUIET), _count(moment.events["number.ported"]))
    made.add_row("dead letters", _count(moment.figures.dead_letters))
    return made
