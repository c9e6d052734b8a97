"""Presence: how the others see that a process which buys numbers is alive.

Each process holds an advisory lock under its own number, which Postgres drops in the moment the process
dies. A call whose owner has been gone for some seconds will never be answered: its numbers are let go at
once, instead of when the call's time is up.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from worker import logs
from worker.errors import StorageUnavailable
from worker.portability.requests import Lane

log = logs.get(__name__)

_CLASS = 1886545774
"""The first key of every presence lock; the second is the owner's number."""
_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
"""How long a claim waits for the first lock of a process."""
GONE_SECONDS = 4.0
"""A lock missing for so long means its process is dead: one that only lost its connection, or whose
Postgres was started anew, has taken it again by then."""

ABSENT = f"""NOT EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = {_CLASS} AND l.objid = {{owner}} AND l.objsubid = 2
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )"""  # noqa: S608 - the class is ours
"""The condition that nobody holds the lock of ``{owner}`` now."""

_HOLD = text(f"SELECT pg_advisory_lock({_CLASS}, :owner)")
_NAME = text("SELECT set_config('application_name', :name, false)")
_STILL = text("SELECT 1")
_GONE = text(f"""
    SELECT DISTINCT owner FROM lookup_call c WHERE outcome = 'calling' AND {ABSENT.format(owner="c.owner")}
""")  # noqa: S608
_NAMED = "presend "
_ALIVE = text(f"""
    SELECT a.application_name, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.classid = {_CLASS} AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1, 2
""")  # noqa: S608 - the class is ours


@dataclass(frozen=True, slots=True)
class Alive:
    """A process that is there."""

    # the lanes it works for; empty where it did not say
    lanes: tuple[Lane, ...]
    # its connection's: since when it can be seen
    since: datetime


class Presence:
    """This process's sign of life; started by the first claim, ended with the process or by :meth:`close`."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._name = "presend"
        self._starting = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._held = threading.Event()
        self._closed = threading.Event()
        self.owner = secrets.randbelow(2**31 - 1) + 1
        """The number under which this process's calls are named."""

    def announce(self, lanes: Collection[Lane]) -> None:
        """Be seen from now on, as working for these lanes: also before there is anything to buy."""
        self._name = f"{_NAMED}{'+'.join(lanes)}"
        self._start()

    def require(self) -> int:
        """Return the owner's number; ``StorageUnavailable`` where Postgres cannot see this process now."""
        self._start()
        if not self._held.wait(_PATIENCE_SECONDS):
            raise StorageUnavailable("no connection to Postgres to be seen by: it may have none free")
        return self.owner

    def close(self) -> None:
        """Let the lock go; the process buys nothing more."""
        self._closed.set()

    def _start(self) -> None:
        with self._starting:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="presence", daemon=True)
                self._keeper.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            try:
                with self._database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(_NAME, {"name": self._name})
                    connection.execute(_HOLD, {"owner": self.owner})
                    self._held.set()
                    while not self._closed.wait(_LOOK_SECONDS):
                        connection.execute(_STILL)
                    connection.invalidate()  # back in the pool it would go on holding the lock
            except SQLAlchemyError as exc:
                log.warning("presence_interrupted", error=type(exc).__name__)
            finally:
                self._held.clear()
            self._closed.wait(_LOOK_SECONDS / 4)


def alive(connection: Connection) -> list[Alive]:
    """Return the processes that buy numbers, as long as they live."""
    return [Alive(_lanes(name), since) for name, since in connection.execute(_ALIVE)]


def _lanes(name: str | None) -> tuple[Lane, ...]:
    named = (name or "").removeprefix(_NAMED).split("+")
    return tuple(lane for lane in Lane if lane.value in named)


class Absences:
    """Which owners of open calls have been gone too long to come back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # owner -> since when its lock is missing, and when that was last seen
        self._missing: dict[int, tuple[float, float]] = {}

    def gone(self, connection: Connection) -> list[int]:
        """Look who is missing now; return those that have been, at every look, for ``GONE_SECONDS``.

        Looks further apart than that say nothing about the time between them: each starts anew.
        """
        now = self._clock()
        missing = [int(owner) for (owner,) in connection.execute(_GONE)]
        kept = {
            owner: (since, now)
            for owner in missing
            for since, seen in [self._missing.get(owner, (now, now))]
            if now - seen < GONE_SECONDS
        }
        self._missing = {owner: kept.get(owner, (now, now)) for owner in missing}
        return [owner for owner, (since, _) in self._missing.items() if now - since >= GONE_SECONDS]
