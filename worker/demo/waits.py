"""What shoppers waited for their prechecks, and how much of it was presend's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.demo.figures import Asked
from worker.demo.sending import Answered


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds, sorted."""

    # prechecks that bought their answer: the whole wait, and the wait without the provider's time
    bought: Sequence[float]
    own: Sequence[float]
    # prechecks that a stored record answered
    stored: Sequence[float]


def measure(answers: Iterable[Answered], asked: Iterable[Asked]) -> Waits:
    """Hold what was measured outside against what Postgres says of the provider's calls."""
    seconds = {answer.reference: answer.seconds for answer in answers}
    known = [one for one in asked if one.reference in seconds]
    bought = [one for one in known if one.answered_from == "live"]
    return Waits(
        sorted(seconds[one.reference] for one in bought),
        sorted(seconds[one.reference] - one.provider_seconds for one in bought),
        sorted(seconds[one.reference] for one in known if one.answered_from == "stored"),
    )


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """The smallest value that so many per cent do not exceed; None of nothing."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
