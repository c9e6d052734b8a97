"""Who gives a command, for the history; and the database a short command uses."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

by_option = click.option("--by", metavar="NAME", help="Who does it.  [default: the login name]")


@contextmanager
def database() -> Iterator[Engine]:
    """The settings' database, over one connection."""
    from worker import config
    from worker.storage.engine import connect

    engine = connect(config.load().database_url, connections=1)
    try:
        yield engine
    finally:
        engine.dispose()


def who(by: str | None) -> str:
    """The name to write down."""
    from worker.storage import operator_actions

    try:
        login = by if by is not None else getpass.getuser()
    except OSError:  # a container's user has no name
        login = ""
    try:
        return operator_actions.person(login)
    except ValueError as exc:
        raise click.UsageError(f"{exc}: --by NAME") from exc


def reason(text: str) -> str:
    """The reason to write down."""
    from worker.storage import operator_actions

    try:
        return operator_actions.reason(text)
    except ValueError as exc:
        raise click.UsageError(f"{exc}: --reason TEXT") from exc
