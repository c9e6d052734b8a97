"""How long a shopper waits for one precheck, beside what the provider alone takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.carrier.client import HttpCarrier
from worker.demo.sending import Ask
from worker.demo.waits import percentile

_FIRST_NUMBER = 13_800_000_000


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds, sorted."""

    # from the send of a precheck to the return of ``.get()``
    precheck: Sequence[float]
    # the provider asked directly, over a connection kept open
    provider: Sequence[float]

    @property
    def added(self) -> float:
        """What presend, broker and client add, in the median."""
        return (percentile(self.precheck, 50) or 0.0) - (percentile(self.provider, 50) or 0.0)


def waits(ask: Ask, carrier: HttpCarrier, rounds: int) -> Waits:
    """Ask both in turn, one number at a time, each number once; the first round is not counted."""
    prechecks, direct = [], []
    for turn in range(rounds + 1):
        mine, theirs = str(_FIRST_NUMBER + 2 * turn), str(_FIRST_NUMBER + 2 * turn + 1)
        precheck = _timed(lambda mine=mine, turn=turn: _precheck(ask, mine, turn))  # type: ignore[misc]
        alone = _timed(lambda theirs=theirs: carrier.lookup(theirs))  # type: ignore[misc]
        if turn:
            prechecks.append(precheck)
            direct.append(alone)
    return Waits(sorted(prechecks), sorted(direct))


def _precheck(ask: Ask, mobile: str, turn: int) -> None:
    ask("recharge.precheck", {"order_id": f"bench-{turn}", "mobile": mobile, "source": "bench"})


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
