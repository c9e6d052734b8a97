"""Statements as values, so that several can go to Postgres in one round trip.

A precheck is some thirteen statements while a shopper waits; alone each costs a round trip and SQLAlchemy's
way through it, which is more than Postgres takes. psycopg's pipeline sends them together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, overload

import psycopg
from sqlalchemy import Connection, Dialect, TextClause, text
from sqlalchemy.exc import DBAPIError, OperationalError

# Where a connection ends in a pipeline psycopg warns of the second error; the first one is raised, and told.
logging.getLogger("psycopg").setLevel(logging.ERROR)

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Statement(Generic[T]):
    """A statement, its parameters, and what its rows say."""

    sql: TextClause
    parameters: Mapping[str, object]
    # given the rows; of a statement that returns none, an empty list
    reading: Callable[[list[Any]], T]


def nothing(_rows: list[Any]) -> None:
    """What the rows of a statement say that returns none."""


COMMIT = Statement(text("COMMIT"), {}, nothing)
"""As the last statement of a transaction, so that its end costs no round trip of its own; the engine's own
COMMIT finds nothing to do then."""


def run(connection: Connection, statement: Statement[T]) -> T:
    """Run one statement."""
    result = connection.execute(statement.sql, statement.parameters)
    return statement.reading(list(result) if result.returns_rows else [])


@overload
def together(connection: Connection, first: Statement[A], second: Statement[B], /) -> tuple[A, B]: ...
@overload
def together(
    connection: Connection,
    first: Statement[A],
    second: Statement[B],
    third: Statement[C],
    fourth: Statement[D],
    /,
) -> tuple[A, B, C, D]: ...
@overload
def together(connection: Connection, /, *statements: Statement[Any]) -> tuple[Any, ...]: ...
def together(connection: Connection, /, *statements: Statement[Any]) -> tuple[Any, ...]:
    """Run statements in order, in one round trip: each sees what those before it did.

    Outside a transaction they are one. ``DBAPIError`` as SQLAlchemy raises it, and then none was run.
    """
    driver: Any = connection.connection.driver_connection
    texts = [_of_psycopg(each.sql, connection.dialect) for each in statements]
    try:
        with driver.pipeline():
            cursors = [
                driver.execute(words, each.parameters) for words, each in zip(texts, statements, strict=True)
            ]
        # not its description: that makes an object of each column, a fifth of a look-up's CPU
        rows = [cursor.fetchall() if cursor.pgresult.nfields else [] for cursor in cursors]
    except psycopg.Error as exc:
        if driver.broken:
            connection.invalidate(exc)
        kind = OperationalError if isinstance(exc, psycopg.OperationalError) else DBAPIError
        raise kind(None, None, exc, hide_parameters=True, connection_invalidated=driver.broken) from None
    return tuple(each.reading(its) for each, its in zip(statements, rows, strict=True))


@cache
def _of_psycopg(sql: TextClause, dialect: Dialect) -> str:
    return str(sql.compile(dialect=dialect))
