"""What commands share that bring engines, a provider and workers of their own: ``demo`` and ``bench``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from worker.leaving import leave

if TYPE_CHECKING:
    from rich.console import Console

    from worker.demo.places import Places
    from worker.demo.sending import Ask
    from worker.embedded import Engines

_ANSWER_SECONDS = 30.0


def settings_of(engines: Engines, provider_url: str) -> Mapping[str, str]:
    """The settings of workers on these engines."""
    from worker.demo.provider import APIKEY

    return {
        "PRESEND_BROKER_URL": engines.redis_url,
        "PRESEND_REDIS_URL": engines.redis_url,
        "PRESEND_DATABASE_URL": engines.database_url,
        "PRESEND_PROVIDER_URL": provider_url,
        "PRESEND_PROVIDER_APIKEY": APIKEY,
    }


def asker(settings: Mapping[str, str]) -> Ask:
    """What a shopper's program does: plain Celery, set up as the workers are."""
    for name in [name for name in os.environ if name.startswith("PRESEND_")]:
        del os.environ[name]
    os.environ.update(settings)
    from worker.app import app

    def ask(task: str, arguments: Mapping[str, Any]) -> Any:
        return app.send_task(task, kwargs=dict(arguments)).get(timeout=_ANSWER_SECONDS)

    return ask


@contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """Say what is going on, and how long it took."""
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f" {what:<70}{time.monotonic() - began:>5.1f} s")


def end_on_signals() -> None:
    """Let the first Ctrl-C, SIGTERM or SIGHUP end the command, and none after it disturb the cleaning up."""
    ours = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _frame: FrameType | None) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        click.echo("\nEnding …", err=True)
        leave(128 + number)

    for each in ours:
        signal.signal(each, end)


@contextmanager
def told_from_the_log(place: Places) -> Iterator[None]:
    """Show what sandbox and workers said last, where something goes wrong."""
    try:
        yield
    except Exception:
        if said := place.last_words():
            click.echo(f"\nThe last lines of {place.log}:\n{said}\n", err=True)
        raise
