"""``presend demo``: a day of traffic through the real thing, on engines of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli import staging

if TYPE_CHECKING:
    from rich.console import Console

    from worker.demo.places import Places
    from worker.demo.show import Stage

_FULL, _QUICK = (2400, 22.0), (400, 5.0)
"""Requests in the day, and the seconds it takes."""

_EPILOG = """\b
Examples:
  presend demo           a day in about 22 seconds
  presend demo --keep    and everything stays up until Ctrl-C, to be looked at
"""


@click.command("demo", epilog=_EPILOG)
@click.option("--quick", is_flag=True, help="A short day of a few hundred requests.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print its settings.")
@click.option("--folder", type=click.Path(path_type=Path), help="Run there, instead of in a cache folder.")
@click.option("--seed", default=1, show_default=True, help="Same seed, same traffic.")
def demo(quick: bool, keep: bool, folder: Path | None, seed: int) -> None:
    """Run a day of recharges and failed SMS through presend; nothing has to be set up.

    Real PostgreSQL and Valkey (the wheels of presend[embedded]), real workers, and a simulated provider with
    the latency of the real one. All of it ends with the command.
    """
    from rich.console import Console

    from worker.demo import places, report
    from worker.demo.traffic import day
    from worker.errors import PresendError, SettingsError

    if sys.platform == "win32":
        raise SettingsError("the demo runs on Linux and macOS: use WSL, or docker compose")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # a terminal may lack a character
    console = Console(highlight=False)
    items, seconds = _QUICK if quick else _FULL
    began = time.monotonic()
    staging.end_on_signals()
    place = places.prepare(folder)
    with place.held(), staging.told_from_the_log(place), ExitStack() as running:
        console.print(f" A day of recharges and failed SMS, in about {seconds:.0f} seconds\n")
        traffic = day(seed, items)
        stage, settings = _set(console, place, running)
        with staging.step(console, "workers: recharge, sms, upkeep"):
            stage.warm_up(traffic)
        console.print()
        if not stage.play(traffic, seconds=seconds):
            raise PresendError('the demo\'s figures disagree, see "Counted twice"')
        console.print(report.next_steps())
        if keep:
            _keep(console, stage, settings)
    console.print(f"\n Ended after {time.monotonic() - began:.0f} s; nothing is left running.")


def _set(console: Console, place: Places, running: ExitStack) -> tuple[Stage, Mapping[str, str]]:
    """Start everything, the last started to end first; returns the stage and the settings it runs with."""
    from worker.demo import child, provider
    from worker.demo.events import Events
    from worker.demo.figures import Ledger
    from worker.demo.sending import Senders
    from worker.demo.show import Stage
    from worker.embedded import embedded
    from worker.storage import migrations

    running.callback(child.end_leftovers)
    sandbox = running.enter_context(provider.provider(place))
    with staging.step(console, "PostgreSQL and Valkey, from wheels"):
        engines = running.enter_context(embedded(place.engines, fresh=True))
    with staging.step(console, "tables"):
        migrations.upgrade(engines.database_url)
    with staging.step(console, "provider: a simulated one, 0.1 s a number, 1.5 s a thousand"):
        settings = staging.settings_of(engines, sandbox.url)
    workers = running.enter_context(child.running(["worker"], places=place, settings=settings))
    ledger = running.enter_context(Ledger(engines.database_url))
    senders = Senders(
        broker_url=engines.redis_url,
        ask=staging.asker(settings),
        port=lambda port: sandbox.port(port.msisdn, port.recipient),
    )
    return Stage(console, sandbox, workers, ledger, Events(engines.redis_url), senders), settings


def _keep(console: Console, stage: Stage, settings: Mapping[str, str]) -> None:
    """Leave it all running until a signal comes."""
    console.print("\n Everything is still running. In another terminal:\n")
    for name, value in settings.items():
        console.out(f"export {name}='{value}'", highlight=False)
    bill = f"curl {settings['PRESEND_PROVIDER_URL']}/sandbox/bill"
    console.print(f"\n What the provider has billed since: {bill}\n Ctrl-C ends it.", soft_wrap=True)
    while True:
        stage.check()
        time.sleep(0.25)
