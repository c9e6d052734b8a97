"""Figures that must agree because they count the same thing in two places."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from worker.demo.figures import Figures
from worker.demo.sending import Sent


@dataclass(frozen=True, slots=True)
class Account:
    """One thing, counted twice."""

    one: str
    one_counts: int
    other: str
    other_counts: int
    # counts the other may be short of, for a reason that is known
    tolerance: int = 0
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return 0 <= self.one_counts - self.other_counts <= self.tolerance


def accounts(
    sent: Sent, answers: int, figures: Figures, events: Counter[str], billed: int
) -> tuple[Account, ...]:
    """Hold what was sent, stored, told and billed against each other."""
    told = Counter({f"{lane}.{decision}": n for (lane, decision), n in figures.decisions.items()})
    told["number.ported"] = figures.port_changes
    return (
        Account("different requests sent", len(sent.keys), "rows in the ledger", figures.requests),
        Account("bad items sent", sent.bad, "dead letters", figures.dead_letters),
        Account("numbers that moved", sent.ports, "changes observed", figures.port_changes),
        Account("decisions and ports stored", told.total(), "events, same types", (told & events).total()),
        Account("events received", events.total(), "of them told by the ledger", (told & events).total()),
        Account("answers waited for", sent.waited_for, "answers that came", answers),
        Account(
            "billed by the provider",
            billed,
            "billed, says the ledger",
            figures.billed,
            tolerance=figures.lost,
            note=f"{figures.lost} in calls whose answer was lost" if figures.lost else "",
        ),
    )
