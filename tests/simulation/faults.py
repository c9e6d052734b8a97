"""Which faults a schedule knows, and how often each strikes: some schedules know few, some all."""

from __future__ import annotations

from tests.simulation.choices import Choices
from tests.simulation.schedule import Schedule

SEAM = {
    "storage fails": 0.06,
    "reply to commit lost": 0.06,
    "dies after": 0.015,
    "not confirmed": 0.15,
    "event sent twice": 0.1,
    "ack lost": 0.08,
    "balance unreachable": 0.2,
    "not sent": 0.1,
    "busy": 0.15,
    "lost before it was billed": 0.08,
    "answer lost": 0.15,
    "late answer": 0.5,
    "item missing": 0.08,
    "item refused": 0.06,
}
"""Faults of the seams, and how likely each is at a call of its seam."""

HAPPENINGS = {
    "a worker dies": 2,
    "a connection is cut": 2,
    "a process stands still": 2,
    "a presence lock is lost": 1,
    "upkeep dies": 1,
    "the account is emptied": 1,
    "the account is refilled": 3,
    "the account is disabled": 1,
    "the account is mended": 3,
    "the provider goes down": 1,
    "the provider comes up": 3,
    "the provider loses its answers": 2,
    "the provider answers again": 2,
    "the gate is closed by hand": 1,
    "the gate is opened by hand": 2,
    "a number ports": 4,
    "the wall clock is put forward": 1,
    "a message is delivered twice": 4,
}
"""What happens between the seams, and how often in relation."""


class Faults:
    """The faults of one schedule."""

    def __init__(self, schedule: Schedule, *, only: frozenset[str] | None = None) -> None:
        choices = schedule.choices
        self._schedule = schedule
        self.off = False
        intensity = (0.0, 0.3, 1.0, 2.0)[choices.below(4)]
        known = _some(choices, sorted(SEAM))
        self._rates = {name: SEAM[name] * intensity for name in known if only is None or name in only}
        self.happenings = [
            name
            for name in _some(choices, sorted(HAPPENINGS))
            if only is None or name in only
            for _ in range(HAPPENINGS[name])
        ]
        self.happening_rate = (0.0, 0.01, 0.03, 0.06)[choices.below(4)]

    def strike(self, name: str) -> bool:
        """Whether a seam's fault strikes now."""
        rate = self._rates.get(name)
        if rate is None or self.off:
            return False
        struck = self._schedule.choices.chance(rate)
        if struck:
            self._schedule.note(f"    ! {name}")
        return struck


def _some(choices: Choices, names: list[str]) -> list[str]:
    """All, or about half, or about a fifth of the names."""
    share = (1.0, 0.5, 0.2)[choices.below(3)]
    return [name for name in names if share == 1.0 or choices.chance(share)]
