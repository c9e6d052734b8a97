"""What the sandbox sold: every call, and how often each number was billed."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

RECENT_CALLS = 1000


class BilledCall(msgspec.Struct, frozen=True):
    """One call as billed; a line of the bill log, with the numbers in it."""

    # POSIX seconds
    time: float
    endpoint: str
    # numbers asked
    numbers: int
    billed: int
    # how often each code was answered; a call refused whole has the one
    codes: dict[str, int]


class Bill:
    """Calls and numbers sold. Thread-safe.

    ``log_path`` gets a JSON line a call, with every number billed, written before the answer leaves: the
    oracle of tests that kill what asks. It holds whole numbers, so it is only written where asked for.
    """

    def __init__(self, log_path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._log_path = log_path
        self.reset()

    def reset(self) -> None:
        """Forget everything sold so far; the log file stays."""
        with self._lock:
            self._times_billed: Counter[str] = Counter()
            self._recent: deque[BilledCall] = deque(maxlen=RECENT_CALLS)
            self._codes: Counter[str] = Counter()
            self._calls: Counter[str] = Counter()
            self._numbers = 0
            self._billed = 0

    def add(self, endpoint: str, numbers: int, codes: Counter[int], billed: Sequence[str]) -> None:
        """Enter one call: how many numbers were asked, the codes answered, the numbers billed."""
        by_code = {str(code): count for code, count in codes.items()}
        call = BilledCall(time.time(), endpoint, numbers, len(billed), by_code)
        with self._lock:
            self._recent.append(call)
            self._calls[endpoint] += 1
            self._codes.update(by_code)
            self._numbers += numbers
            self._billed += len(billed)
            self._times_billed.update(billed)
            if self._log_path is not None:
                line = msgspec.json.encode(msgspec.structs.asdict(call) | {"mobiles": billed})
                with self._log_path.open("ab") as log:
                    log.write(line + b"\n")

    @property
    def billed(self) -> int:
        """Look-ups billed so far."""
        return self._billed

    @property
    def calls(self) -> int:
        """Calls that asked for numbers so far, refused ones too."""
        return sum(self._calls.values())

    def times_billed(self, mobile: str) -> int:
        """How often this number was billed."""
        return self._times_billed[mobile]

    def by_number(self) -> dict[str, int]:
        """How often each number was billed."""
        with self._lock:
            return dict(self._times_billed)

    def billed_again(self) -> dict[str, int]:
        """The numbers billed more than once, and how often."""
        return {mobile: times for mobile, times in self.by_number().items() if times > 1}

    def recent(self) -> list[BilledCall]:
        """The last calls, at most 1000, oldest first."""
        with self._lock:
            return list(self._recent)

    def summary(self) -> dict[str, object]:
        """Totals, for the control API."""
        again = len(self.billed_again())
        with self._lock:
            return {
                "calls": dict(self._calls),
                "numbers": self._numbers,
                "billed": self._billed,
                "codes": dict(self._codes),
                "distinct_billed": len(self._times_billed),
                "billed_again": again,
            }
