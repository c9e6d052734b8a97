"""What every command's screen shares."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDE = 240
"""Columns where no terminal says: a table in a pipe is not wrapped."""


def console(*, stderr: bool = False) -> Console:
    """Return where to print; tables keep their lines whole in a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def print_table(screen: Console, table: Table) -> None:
    """Print a table; where no terminal is, without the blanks that fill up its lines."""
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as captured:
        screen.print(table)
    for line in captured.get().rstrip("\n").split("\n"):
        click.echo(line.rstrip())


def quiet_logs() -> None:
    """Keep log lines off a command's screen, unless ``presend --debug`` asks for them."""
    from worker import logs

    debug = bool(click.get_current_context().find_root().params.get("debug"))
    logs.configure(level="INFO" if debug else "CRITICAL", uncaught=False)


def print_json(value: Any) -> None:
    """Print one JSON line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def printable(text: str) -> str:
    """Words a stranger wrote, made safe for a terminal: masked, and without control characters."""
    from worker.masking import masked

    return masked("".join(each if each.isprintable() else "·" for each in text))


def local(moment: datetime) -> str:
    """A moment as people here read it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def counted(number: int, noun: str) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
