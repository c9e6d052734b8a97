"""The demo from curtain to curtain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live

from worker.demo import child, report, waits
from worker.demo.accounts import Account, accounts
from worker.demo.events import Events
from worker.demo.figures import Ledger
from worker.demo.population import DOCUMENT_NUMBERS
from worker.demo.provider import Provider
from worker.demo.screen import Dashboard, Moment
from worker.demo.sending import Senders
from worker.demo.traffic import Day
from worker.errors import PresendError

_LOOK_SECONDS = 0.25
_LINE_SECONDS = 2.0
_STILL_SECONDS = 15.0
"""So long after the last change the rest is not waited for: a call may fail, and be tried again."""


@dataclass(slots=True)
class Stage:
    """What the demo plays on, all of it running."""

    console: Console
    provider: Provider
    workers: child.Process
    ledger: Ledger
    events: Events
    senders: Senders

    def warm_up(self, day: Day) -> None:
        """Have the opening answered: from then on every lane has a worker."""
        self.senders.open(day.opening)
        while self.senders.busy():
            self.check()
            time.sleep(_LOOK_SECONDS)

    def play(self, day: Day, *, seconds: float) -> bool:
        """Send the day, show it, and say what came of it; returns whether the figures agree."""
        self.senders.send(day, seconds=seconds)
        began = last_change = time.monotonic()
        before = None
        with self._shown() as show:
            while True:
                self.check()
                now = time.monotonic()
                busy = self.senders.busy()
                moment = self._moment(day, min(1.0, (now - began) / seconds))
                show(moment)
                if not busy and all(account.agrees for account in self._accounts(moment)):
                    break
                if moment.figures != before:
                    before, last_change = moment.figures, now
                elif not busy and now - last_change > _STILL_SECONDS:
                    break
                time.sleep(_LOOK_SECONDS)
        return self._report(moment)

    def check(self) -> None:
        """Raise if a process has ended that must not."""
        for name, process in (("sandbox", self.provider.process), ("workers", self.workers)):
            if (code := process.poll()) is not None:
                raise PresendError(f"the {name} ended with exit code {code}")

    def _moment(self, day: Day, share: float) -> Moment:
        answers = list(self.senders.answers)
        measured = answers[len(day.opening) :]  # the opening waited for the workers' start
        asked = self.ledger.asked([answer.reference for answer in measured])
        return Moment(
            share,
            self.senders.sent,
            day.items,
            self.ledger.figures(),
            self.provider.billed(),
            self.events.by_type.copy(),
            waits.measure(measured, asked),
        )

    def _accounts(self, moment: Moment) -> tuple[Account, ...]:
        return accounts(
            self.senders.sent, len(self.senders.answers), moment.figures, moment.events, moment.billed
        )

    @contextmanager
    def _shown(self) -> Iterator[Callable[[Moment], None]]:
        """Show moments: on a terminal in place, elsewhere as a line now and then."""
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                yield lambda moment: live.update(Dashboard(moment), refresh=True)
            return
        last = time.monotonic()

        def line(moment: Moment) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                self.console.print(moment.line(), soft_wrap=True)

        yield line

    def _report(self, moment: Moment) -> bool:
        kept = self._accounts(moment)
        for part in (
            Dashboard(moment),
            report.numbers(self.ledger.records(DOCUMENT_NUMBERS)),
            report.happenings(self.ledger.first_change(), self.ledger.first_letter()),
            report.agreement(kept),
        ):
            self.console.print(part)
        return all(account.agrees for account in kept)
