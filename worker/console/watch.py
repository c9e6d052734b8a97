"""The watch: a thread that asks the broker and the provider how things stand: no page waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kombu.exceptions import OperationalError

from worker import backlog, logs
from worker.carrier.protocol import Balance, CarrierLookup
from worker.errors import CarrierError

log = logs.get(__name__)

_LOOK_SECONDS = 2.0
_BALANCE_SECONDS = 60.0
_BALANCE_AGAIN_SECONDS = 10.0
_PATIENCE_SECONDS = 4.0
"""How long an end waits for a look that is on its way."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen last."""

    # messages that wait in each queue, by its name; a queue that does not exist yet is absent
    waiting: Mapping[str, int]
    # why the broker could not be asked; None: it answered
    broker_fault: str | None
    balance: Balance | None = None
    balance_at: datetime | None = None
    # why the provider did not tell its balance
    balance_fault: str | None = None


class Watch:
    """Looks every two seconds until closed; the balance is asked for once a minute, which costs nothing."""

    def __init__(self, broker_url: str, carrier: CarrierLookup | None) -> None:
        self._broker_url = broker_url
        self._carrier = carrier
        self._closed = threading.Event()
        self._looked = threading.Event()
        self._next_balance = 0.0
        self.sight = Sight({}, None)
        self._thread = threading.Thread(target=self._watch, name="console-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def looked(self, timeout_seconds: float) -> bool:
        """Wait for the first look; return whether there was one."""
        return self._looked.wait(timeout_seconds)

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                self._look()
            except Exception:  # a defect must not leave a picture standing that looks alive
                log.exception("console_watch_failed")
                self.sight = Sight({}, "see the log")
            self._looked.set()
            self._closed.wait(_LOOK_SECONDS)

    def _look(self) -> None:
        waiting, fault = self._waiting()
        before = self.sight
        balance, at, balance_fault = before.balance, before.balance_at, before.balance_fault
        if self._carrier is not None and time.monotonic() >= self._next_balance:
            try:
                balance, at, balance_fault = self._carrier.balance(), datetime.now(UTC), None
            except CarrierError as exc:
                balance_fault = str(exc)
            again = _BALANCE_SECONDS if balance_fault is None else _BALANCE_AGAIN_SECONDS
            self._next_balance = time.monotonic() + again
        self.sight = Sight(waiting, fault, balance, at, balance_fault)

    def _waiting(self) -> tuple[dict[str, int], str | None]:
        try:
            return {name: its.messages for name, its in backlog.read(self._broker_url).items()}, None
        except (OperationalError, OSError) as exc:
            return {}, type(exc).__name__
