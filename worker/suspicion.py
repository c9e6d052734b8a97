"""Suspicion: what is held against an item whose process died, or whose batch failed, with it.

Nobody can say which item of a batch ended its process. So a message that was delivered too often is a
suspect: its items run in batches of suspects only, with nothing beside them, and a death counts against
those in the running batch alone. The more deaths, the smaller the batch, until the guilty item stands by
itself. Nothing of this is done for a message whose worker lives.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

CAPS = (1000, 32, 1, 1)
"""Items a batch of suspects may hold, by what is held against them; past the last one they are guilty.

Three steps from 1000 to one keep each neighbour's number below a fourth purchase where the batch fails in
its call, and the deaths that one item can cause at six.
"""
SUSPECT_AFTER = 2
"""Deliveries that failed after which a message is a suspect: one crash, or one roll-out, costs nothing."""
_COUNT_HEADER = "x-delivery-count"
_LONGEST_PLACE = 120


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is held against one item."""

    # the id its dead letter would have, under which deaths are noted; None: in this process only
    item_id: str | None = None
    # deaths of a process in whose running batch of suspects it was
    deaths: int = 0
    # the starts of the first and the last of these batches, UTC
    first_at: datetime | None = None
    last_at: datetime | None = None
    # batches of this process that a defect ended with the item among them
    defects: int = 0
    # the last of these defects, without any value
    defect: str = ""

    @property
    def level(self) -> int:
        """How often it was among those that something happened to."""
        return self.deaths + self.defects

    @property
    def guilty(self) -> bool:
        """Whether it was alone twice when it happened."""
        return self.level >= len(CAPS)

    def died(self, at: datetime) -> Suspicion:
        """What will be held against it if its process dies in the batch that begins now."""
        return replace(self, deaths=self.deaths + 1, first_at=self.first_at or at, last_at=at)

    def failed(self, defect: Exception) -> Suspicion:
        """What is held against it once a defect ended its batch."""
        return replace(self, defects=self.defects + 1, defect=_in_words(defect))

    def reason(self) -> str:
        """Why it is given up, for its dead letter."""
        told = []
        if self.deaths and self.first_at is not None and self.last_at is not None:
            first, last = (f"{at:%Y-%m-%d %H:%M:%S}Z" for at in (self.first_at, self.last_at))
            told.append(
                f"{self.deaths} times the worker died while this ran, at last with nothing else running "
                f"(in batches begun {first} to {last})"
            )
        if self.defects:
            told.append(
                f"{self.defects} times the batch with this failed, at last with nothing else in it "
                f"({self.defect})"
            )
        return (
            f"{' and '.join(told)}: see the worker's log of that time, and the kernel's for want of memory; "
            "mend the cause, then replay this (presend dead replay)"
        )


def cap(level: int) -> int:
    """Return how many items a batch may hold of those against whom so much is held."""
    return CAPS[min(level, len(CAPS) - 1)]


def failed_deliveries(headers: Mapping[str, Any]) -> int:
    """How often a message was handed out before and came back, as its broker counts."""
    count = headers.get(_COUNT_HEADER)
    return count if isinstance(count, int) else 0


def _in_words(defect: Exception) -> str:
    """A defect's kind and place; its message may quote a number."""
    frames = traceback.extract_tb(defect.__traceback__)
    if not frames:
        return type(defect).__name__
    place = "/".join(frames[-1].filename.split("/")[-3:])[-_LONGEST_PLACE:]
    return f"{type(defect).__name__} in {place}, line {frames[-1].lineno}"
