"""What every command's screen shares."""

from __future__ import annotations

import json
import os
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.console import Console, RenderableType

_WIDE = 240
"""Columns where no terminal says: a table in a pipe is not wrapped."""


def console(*, stderr: bool = False) -> Console:
    """Return where to print; in a pipe a table's lines stay whole, unless ``COLUMNS`` is set."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return made
    return Console(stderr=stderr, highlight=False, width=_WIDE)


def print_table(screen: Console, table: RenderableType) -> None:
    """Print a table or the like; where no terminal is, without the blanks that fill up its lines."""
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


@cache
def zone() -> ZoneInfo:
    """``PRESEND_TIMEZONE``, in which commands show times and read those given without an offset."""
    from zoneinfo import ZoneInfo

    from worker import config

    return ZoneInfo(config.load().timezone)


def local(moment: datetime) -> str:
    """A moment as people here read it, with its offset from UTC."""
    return moment.astimezone(zone()).isoformat(" ", "seconds")


def meant(given: datetime) -> datetime:
    """A moment that somebody typed: without an offset, one of ``PRESEND_TIMEZONE``."""
    return given if given.tzinfo is not None else given.replace(tzinfo=zone())


def counted(number: int, noun: str) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
