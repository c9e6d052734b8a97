"""Patching presend from outside: act before or after one of its functions, or around its SQL.

Seams that stay where they are when modules are rearranged: psycopg below storage, kombu below the feed, and
presend's own few entrances, named here by module and attribute.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

import psycopg

Act = Callable[[], None]

CLAIM = re.compile(r"INSERT INTO in_flight")
LEDGER = re.compile(r"INSERT INTO check_request")
MARK = re.compile(r"UPDATE lookup_batch SET emitted_at")
LETTER = re.compile(r"INSERT INTO dead_letter")


def wrap(where: str, wrapper: Callable[..., Any]) -> None:
    """Replace ``module:Class.name`` by a function that gets the original first."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *inner, name = path.split(".")
    for each in inner:
        owner = getattr(owner, each)
    original = getattr(owner, name)

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, patched)


def before(where: str, act: Act) -> None:
    """Act each time before a function runs."""

    def wrapper(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        act()
        return original(*args, **kwargs)

    wrap(where, wrapper)


def after(where: str, act: Act) -> None:
    """Act each time a function has returned."""

    def wrapper(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        act()
        return result

    wrap(where, wrapper)


def around_statement(
    statement: re.Pattern[str],
    *,
    first: Callable[[Any], None] | None = None,
    then: Callable[[Any], None] | None = None,
) -> None:
    """Act before and after an SQL statement; both get the connection."""

    def wrapper(original: Callable[..., Any], cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        found = statement.search(str(query))
        if found and first:
            first(cursor.connection)
        result = original(cursor, query, *args, **kwargs)
        if found and then:
            then(cursor.connection)
        return result

    wrap("psycopg:Cursor.execute", wrapper)


def around_commit(
    statement: re.Pattern[str],
    *,
    first: Callable[[Any], None] | None = None,
    then: Callable[[Any], None] | None = None,
) -> None:
    """Act before and after the COMMIT of a transaction in which this statement ran."""
    marked: set[int] = set()
    around_statement(statement, then=lambda connection: marked.add(id(connection)))

    def wrapper(original: Callable[..., Any], connection: psycopg.Connection[Any]) -> None:
        found = id(connection) in marked
        marked.discard(id(connection))
        if found and first:
            first(connection)
        original(connection)
        if found and then:
            then(connection)

    wrap("psycopg:Connection.commit", wrapper)
