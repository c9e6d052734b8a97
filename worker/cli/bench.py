"""``presend bench``: how fast presend is on this machine, on engines of its own."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli import staging
from worker.cli.screen import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from worker.bench.shopper import Waits
    from worker.demo.places import Places
    from worker.demo.provider import Provider
    from worker.embedded import Engines

_QUIET = {"PRESEND_TASK_EVENTS": "false"}

_EPILOG = """\b
Examples:
  presend bench                       a minute
  presend bench --numbers 100000      steadier rates
  presend bench --json | jq .singles_a_second
"""


@click.command("bench", epilog=_EPILOG)
@click.option(
    "--numbers",
    default=20_000,
    show_default=True,
    type=click.IntRange(4_000, 1_000_000),
    help="Of each drain.",
)
@click.option(
    "--prechecks", default=50, show_default=True, type=click.IntRange(10, 10_000), help="To be timed."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run there, instead of in a cache folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(numbers: int, prechecks: int, folder: Path | None, as_json: bool) -> None:
    """Measure how many numbers a second presend decides here, and how long one precheck takes.

    Real PostgreSQL and Valkey (the wheels of presend[embedded]), real workers, a simulated provider: all on
    this machine's cores, so close what else is running. Nothing of yours is touched.
    """
    from worker.demo import places
    from worker.errors import SettingsError

    if sys.platform == "win32":
        raise SettingsError("the benchmark runs on Linux and macOS: use WSL")
    from worker.cli import screen

    console = screen.console(stderr=as_json)
    staging.end_on_signals()
    place = places.prepare(folder)
    with place.held(), staging.told_from_the_log(place), ExitStack() as running:
        engines = _engines(console, place, running)
        with_no_latency = running.enter_context(_provider(place, latency=0.0))
        singles = _drained(console, place, engines, with_no_latency, numbers, many=False)
        many = _drained(console, place, engines, with_no_latency, numbers, many=True)
        waits = _waited(console, place, engines, prechecks)
    if as_json:
        print_json(_figures(singles, many, waits))
    else:
        _show(console, singles, many, waits)


def _provider(place: Places, *, latency: float) -> Any:
    from worker.demo.provider import provider

    return provider(place, latency=latency)


def _engines(console: Console, place: Places, running: ExitStack) -> Engines:
    from worker.demo import child
    from worker.embedded import embedded
    from worker.storage import migrations

    running.callback(child.end_leftovers)
    with staging.step(console, "PostgreSQL and Valkey, from wheels"):
        engines = running.enter_context(embedded(place.engines, fresh=True))
        migrations.upgrade(engines.database_url)
    return engines


def _drained(
    console: Console, place: Places, engines: Engines, provider: Provider, numbers: int, *, many: bool
) -> float:
    from worker.bench import drain
    from worker.demo import child
    from worker.errors import PresendError

    source = "many" if many else "singles"
    each = "1000 numbers a message" if many else "a number a message"
    with staging.step(console, f"queue {numbers:,} failed SMS, {each}"):
        drain.fill(engines.redis_url, source, numbers, many=many, first=numbers * many)
    settings = {**staging.settings_of(engines, provider.url), **_QUIET}
    with child.running(["worker"], places=place, settings=settings) as workers:

        def check() -> None:
            if (code := workers.poll()) is not None:
                raise PresendError(f"the workers ended with exit code {code}")

        with staging.step(console, "drain them, the provider answering at once"):
            return drain.rate(engines.database_url, source, numbers, check=check)


def _waited(console: Console, place: Places, engines: Engines, prechecks: int) -> Waits:
    from worker.bench.shopper import waits
    from worker.carrier.client import HttpCarrier
    from worker.demo import child
    from worker.demo.provider import APIKEY

    with _provider(place, latency=1.0) as provider:
        settings = staging.settings_of(engines, provider.url)
        carrier = HttpCarrier(provider.url, APIKEY)
        with child.running(["worker"], places=place, settings=settings):
            what = f"{prechecks} prechecks, one after the other, the provider taking 0.1 s"
            with staging.step(console, what):
                return waits(staging.asker(settings), carrier, prechecks)


def _figures(singles: float, many: float, waits: Waits) -> dict[str, Any]:
    from worker.demo.waits import percentile

    def milliseconds(seconds: float | None) -> float | None:
        return None if seconds is None else round(1000 * seconds, 1)

    return {
        "singles_a_second": round(singles),
        "many_a_second": round(many),
        "precheck_ms": {p: milliseconds(percentile(waits.precheck, p)) for p in (50, 99)},
        "provider_ms": {p: milliseconds(percentile(waits.provider, p)) for p in (50, 99)},
        "added_ms": milliseconds(waits.added),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    }


def _show(console: Console, singles: float, many: float, waits: Waits) -> None:
    from rich.table import Table

    found = _figures(singles, many, waits)
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    table.add_row("Backlog of single-number messages", f"{singles:,.0f}", "numbers a second")
    table.add_row("Backlog of *_many messages", f"{many:,.0f}", "numbers a second")
    precheck, provider = found["precheck_ms"], found["provider_ms"]
    table.add_row("A precheck, nothing else to do, median", f"{precheck[50]}", "ms")
    table.add_row("… 99 of 100 within", f"{precheck[99]}", "ms")
    table.add_row("The provider alone, median", f"{provider[50]}", "ms")
    table.add_row("Added by presend, broker and client", f"{found['added_ms']}", "ms")
    console.print()
    console.print(table)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    console.print(f"\n {machine}; broker, Postgres and provider shared them.", soft_wrap=True)
