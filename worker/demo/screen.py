"""The dashboard: every figure while it happens, from 80 columns on; and one line for a log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.demo.figures import Calls, Figures
from worker.demo.sending import Sent
from worker.demo.waits import Waits, percentile

HEADING = "bold cyan"
QUIET = "bright_black"

_LANES = ("recharge", "sms")
_DECISIONS = ("confirmed", "reroute", "rejected", "unverified", "resend", "undeliverable")
_SOURCES = {
    "live": "its own look-up",
    "stored": "a stored record",
    "shared": "another's look-up",
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
            f"{self.clock}  {self.sent.items:,} of {self.items:,} sent, {self.figures.requests:,} decided, "
            f"{self.billed:,} billed, {self.events.total():,} events"
        )


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A moment as a terminal shows it: tables in two columns, or in four."""

    moment: Moment

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the progress, the tables and the last line."""
        moment = self.moment
        decisions, waits = _decisions(moment.figures), _waits(moment.waits)
        costs, sources, calls = _costs(moment), _sources(moment.figures), _calls(moment.figures)
        if options.max_width >= _WIDE:
            columns = [[decisions], [costs, sources], [calls, waits]]
        else:
            columns = [[decisions, waits], [costs, sources, calls]]
        yield _progress(moment)
        yield _side_by_side(columns)
        yield Padding(_told(moment), (1, 0, 0, 1))


def table(title: str, *columns: str) -> Table:
    """A table of the demo's: a title that is its first heading, figures to the right."""
    made = Table(
        box=box.SIMPLE_HEAD, header_style=QUIET, pad_edge=False, padding=(0, 1), show_edge=False, expand=True
    )
    made.add_column(Text(title, HEADING), ratio=1, no_wrap=True)
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def count(number: int) -> RenderableType:
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
    grid = Table.grid(padding=(0, 3), expand=True)
    for _ in columns:
        grid.add_column(ratio=1)
    stacks = []
    for column in columns:
        stack = Table.grid(expand=True)
        stack.add_column(ratio=1)
        for index, each in enumerate(column):
            stack.add_row(Padding(each, (1 if index else 0, 0, 0, 0)))
        stacks.append(stack)
    grid.add_row(*stacks)
    return Padding(grid, (0, 1))


def _decisions(figures: Figures) -> Table:
    made = table("Decisions", *_LANES)
    for decision in _DECISIONS:
        made.add_row(decision, *(count(figures.decisions[lane, decision]) for lane in _LANES))
    return made


def _costs(moment: Moment) -> Table:
    figures = moment.figures
    made = table("Look-ups", "")
    made.add_row("one a request would cost", count(figures.one_each))
    made.add_row("billed by the provider", count(moment.billed))
    made.add_row("saved", Text(f"{figures.saved:.0%}", "bold"))
    return made


def _sources(figures: Figures) -> Table:
    made = table("Answered from", "")
    for source, name in _SOURCES.items():
        made.add_row(name, count(figures.answered_from[source]))
    return made


def _calls(figures: Figures) -> Table:
    made = table("Provider calls", *_LANES)
    lanes = [figures.calls.get(lane, _NO_CALLS) for lane in _LANES]
    made.add_row("calls", *(count(lane.calls) for lane in lanes))
    made.add_row(
        "numbers a call", *(f"{lane.numbers / lane.calls:.1f}" if lane.calls else "" for lane in lanes)
    )
    made.add_row("in the largest", *(count(lane.largest) for lane in lanes))
    return made


def _waits(waits: Waits) -> Table:
    made = table("A shopper waits", "p50", "p99")
    made.add_row("answer bought", *_milliseconds(waits.bought))
    made.add_row("  presend's part", *_milliseconds(waits.own))
    made.add_row("answer stored", *_milliseconds(waits.stored))
    return made


def _milliseconds(seconds: Sequence[float]) -> list[RenderableType]:
    found = [percentile(seconds, percent) for percent in (50, 99)]
    return [Text("-", QUIET) if each is None else f"{each * 1000:.0f} ms" for each in found]


def _told(moment: Moment) -> Text:
    text = Text.assemble(("Events ", HEADING), f"{moment.events.total():,} received")
    if ported := moment.events["number.ported"]:
        text.append(f", {ported} number.ported")
    return text.append("   Dead letters ", HEADING).append(f"{moment.figures.dead_letters}", "default")
