"""What came out: every event of the stream, counted by type and by id."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import msgspec

from worker.publisher import follow


class _Envelope(msgspec.Struct):
    id: str
    type: str


class Events:
    """Follows the events in a thread that ends with the process."""

    def __init__(self, broker_url: str) -> None:
        self._bodies = follow(broker_url)
        next(self._bodies)  # from here on nothing is missed
        self._ids: set[str] = set()
        self._failure: Exception | None = None
        self.by_type: Counter[str] = Counter()
        threading.Thread(target=self._count, args=(self._bodies,), daemon=True).start()

    @property
    def different(self) -> int:
        """Events seen, one that came twice counted once."""
        if self._failure is not None:
            raise self._failure
        return len(self._ids)

    def _count(self, bodies: Iterator[bytes]) -> None:
        try:
            for body in bodies:
                if body:
                    self._add(msgspec.json.decode(body, type=_Envelope))
        except Exception as exc:  # noqa: BLE001 - raised again by the main thread
            self._failure = exc

    def _add(self, event: _Envelope) -> None:
        if event.id not in self._ids:
            self._ids.add(event.id)
            self.by_type[event.type] += 1
