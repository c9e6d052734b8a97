"""PostgreSQL for the tests: databases of our own on a server that may be anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.services.names import is_stale, unique_name

CONNECT_SECONDS = 3


def postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            row = connection.execute(
                "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            return row == (True,)
    except psycopg.Error:
        return False


def database_url(server: str, name: str) -> str:
    """The server's URL with another database."""
    server, _, query = server.partition("?")
    base = server.rpartition("/")[0]
    return f"{base}/{name}" + (f"?{query}" if query else "")


def run_sql(server: str, statement: str, *names: str) -> None:
    """One statement outside any transaction, `{}` filled with quoted names."""
    composed = sql.SQL(statement).format(*map(sql.Identifier, names))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(composed)


def drop_database(server: str, name: str) -> None:
    """Drop it although connections linger."""
    run_sql(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextmanager
def own_database(server: str, what: str, *, template: str | None = None) -> Iterator[str]:
    """The name of a database that nobody else has, empty or a copy of ``template``; dropped at the end."""
    name = unique_name(what)
    if template is None:
        run_sql(server, "CREATE DATABASE {}", name)
    else:
        run_sql(server, "CREATE DATABASE {} TEMPLATE {}", name, template)
    try:
        yield name
    finally:
        drop_database(server, name)


def drop_stale_databases(server: str) -> None:
    """Drop what killed sessions left."""
    with psycopg.connect(server, autocommit=True) as connection:
        names = [name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()]
    for name in filter(is_stale, names):
        drop_database(server, name)
