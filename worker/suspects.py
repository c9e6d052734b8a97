"""Suspects run apart: before a batch of them begins Postgres knows who is in it, in case it never ends."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from worker import logs
from worker.batching import Waiter
from worker.errors import StorageUnavailable
from worker.suspicion import Suspicion

log = logs.get(__name__)

_PATIENCE_SECONDS = 1.0
"""How long a batch of suspects keeps its lane waiting for that of the process's other lane."""


class Notes(Protocol):
    """Where suspicions are noted; ``StorageUnavailable`` where that cannot be had now."""

    def begin(self, suspicions: Collection[Suspicion]) -> None:
        """Note what will be held against a batch's items if its process dies from now on."""

    def end(self, suspicions: Collection[Suspicion], *, cleared: Collection[str]) -> None:
        """The process lived: hold against items what was held before, and nothing against ``cleared``."""


class Suspects:
    """One a process, for all its lanes: a death must speak against one batch of suspects, not two."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._one_batch = threading.Lock()

    @contextmanager
    def run_apart(self, batch: Sequence[Waiter]) -> Iterator[bool]:
        """Yield whether a batch may run now; one without suspects may.

        Raises ``StorageUnavailable`` before it yields, never after.
        """
        noted = [one.suspicion for one in batch if one.suspicion and one.suspicion.item_id]
        if not noted:
            yield True
        elif not self._one_batch.acquire(timeout=_PATIENCE_SECONDS):
            yield False
        else:
            try:
                now = datetime.now(UTC)
                self._notes.begin([each.died(now) for each in noted])
                log.warning(
                    "suspects_run_apart",
                    lane=batch[0].request.lane,
                    requests=len(noted),
                    deaths=noted[0].deaths,
                )
                try:
                    yield True
                finally:
                    self._take_back(batch)
            finally:
                self._one_batch.release()

    def _take_back(self, batch: Sequence[Waiter]) -> None:
        held, cleared = [], []
        for waiter in batch:
            if waiter.suspicion is not None and waiter.suspicion.item_id is not None:
                if waiter.settled or not waiter.suspicion.deaths:
                    cleared.append(waiter.suspicion.item_id)
                else:
                    held.append(waiter.suspicion)
        try:
            self._notes.end(held, cleared=cleared)
        except StorageUnavailable as exc:  # one death too many is held against those not decided yet
            log.warning("suspicion_not_taken_back", requests=len(batch), error=str(exc))
