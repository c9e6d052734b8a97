"""Connections to Postgres, with time-outs, and transactions that are run again when Postgres falters."""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import psycopg
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from worker import logs
from worker.errors import StorageUnavailable

T = TypeVar("T")

log = logs.get(__name__)

_OPTIONS = "-c lock_timeout=3000 -c statement_timeout=15000 -c idle_in_transaction_session_timeout=30000"
_BY_KEY = " -c enable_seqscan=off -c jit=off"
"""A batch looks rows up by key, so no table is read whole that has an index for it. Left to itself, Postgres
plans for the table it saw last: a ledger that was vacuumed while empty was read whole for each of a batch's
keys until autovacuum came by. The penalty on what has no index must not start the JIT."""
_PASSING = ("40P01", "40001", "55P03", "57P", "57014", "53", "08")
"""SQLSTATEs (or their classes) after which the same transaction may succeed: deadlock,
serialisation, lock and statement time-out, shutdown, out of resources, connection."""
_LONGEST_PAUSE_SECONDS = 2.0


def connect(database_url: str, *, connections: int = 20, by_key: bool = False) -> Engine:
    """Make the process's engine, ``by_key`` for one that runs batches; nothing is opened until first use."""
    _scheme, _, rest = database_url.partition("://")
    return create_engine(
        f"postgresql+psycopg://{rest}",
        pool_size=connections,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={
            "options": _OPTIONS + (_BY_KEY if by_key else ""),
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
            "application_name": "presend",
        },
    )


def read(engine: Engine, query: Callable[[Connection], T]) -> T:
    """Run single statements without a transaction: each sees and commits for itself."""
    return _once(lambda: _autocommitted(engine, query))


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction; ``StorageUnavailable`` where trying again may help."""
    return _once(lambda: _committed(engine, work))


def transact_until_done(engine: Engine, work: Callable[[Connection], T], *, giving_up: Event) -> T:
    """Run ``work`` in one transaction until Postgres has taken it.

    For what was paid for: the call is never repeated, its transaction is. ``work`` must be safe
    to run twice, since a lost reply to COMMIT looks like a failure. Once ``giving_up`` is set
    (shutdown), the next ``StorageUnavailable`` goes to the caller.
    """
    attempt = 0
    while True:
        try:
            return transact(engine, work)
        except StorageUnavailable as exc:
            if giving_up.is_set():
                raise
            attempt += 1
            log.warning("transaction_retried", attempt=attempt, error=str(exc))
            giving_up.wait(pause_seconds(attempt))


def pause_seconds(attempt: int) -> float:
    """Return the jittered pause before try ``attempt + 1``: 0.05 s doubling, at most 2 s."""
    return random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_SECONDS, 0.05 * 2.0**attempt)  # noqa: S311 - jitter


def _autocommitted(engine: Engine, query: Callable[[Connection], T]) -> T:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return query(connection)


def _committed(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _once(run: Callable[[], T]) -> T:
    try:
        return run()
    except DBAPIError as exc:
        if not _may_pass(exc):
            raise
        raise StorageUnavailable(_words(exc)) from None  # the cause carries row values
    except NoFreeConnection as exc:
        raise StorageUnavailable(f"no free connection: {exc}") from None


def _may_pass(exc: DBAPIError) -> bool:
    sqlstate = getattr(exc.orig, "sqlstate", None)
    if sqlstate is None:  # the connection itself failed: psycopg knows no SQLSTATE then
        return isinstance(exc, OperationalError) or exc.connection_invalidated
    return bool(sqlstate.startswith(_PASSING))


def _words(exc: DBAPIError) -> str:
    """Postgres' message without its DETAIL, which quotes row values."""
    original = exc.orig
    if isinstance(original, psycopg.Error) and original.diag.message_primary:
        return f"{original.diag.sqlstate}: {original.diag.message_primary}"
    return str(original).splitlines()[0] if str(original) else type(original).__name__
