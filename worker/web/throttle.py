"""Log-in attempts that come too often wait: per name, and per address."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Engine

from worker.storage import engine, log_in_attempts


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many attempts may fail in a row before the next waits: 10 s at first, doubling to 15 minutes."""

    per_subject: int = 5
    # an office behind one address has more than one person who mistypes
    per_address: int = 30
    first_wait_seconds: float = 10.0


@dataclass
class Attempt:
    """One attempt, counted before its secret is looked at."""

    database: Engine
    site: str
    subject: str
    address: str
    _right: bool = field(default=False, init=False)

    def count(self, throttle: Throttle) -> float:
        """Count it; return the seconds to wait, 0 where it may go on."""
        allowances = {self._subject: throttle.per_subject, self._address: throttle.per_address}
        return engine.transact(
            self.database,
            partial(
                log_in_attempts.count,
                site=self.site,
                allowances=allowances,
                first_wait_seconds=throttle.first_wait_seconds,
            ),
        )

    def succeeded(self) -> None:
        """Say that the secret was right."""
        engine.transact(
            self.database,
            partial(log_in_attempts.forgive, site=self.site, subject=self._subject, address=self._address),
        )

    @property
    def _subject(self) -> str:
        return f"subject {self.subject}"

    @property
    def _address(self) -> str:
        return f"address {self.address}"
