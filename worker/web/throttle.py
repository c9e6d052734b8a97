"""Log-in attempts that come too often wait: per name, and per address."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Engine

from worker.storage import engine, log_in_attempts
from worker.storage.log_in_attempts import Allowance

_A_NAME = Allowance(5, longest_wait_seconds=60.0)
_AN_ADDRESS = Allowance(30, longest_wait_seconds=900.0)


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many attempts may fail in a row before the next waits: 10 s at first, then twice as long."""

    # a name is not shut out for long by somebody else's guesses: a guess a minute finds no password
    per_subject: Allowance = _A_NAME
    # an office behind one address has more than one person who mistypes
    per_address: Allowance = _AN_ADDRESS
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
