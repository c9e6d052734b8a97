"""``presend erase``: one number, out of everything presend keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.failures import Failure
from worker.cli.screen import counted, print_json, quiet_logs

if TYPE_CHECKING:
    from worker.erasing import Erased
    from worker.portability.mentions import Mentions

_EPILOG = """\b
Examples:
  presend erase 13972565391 --dry-run
  presend erase 13972565391 --reason "request of 24 November"

\b
Out of reach: messages still in queues, what subscribers and the provider keep, backups, your logs of
other programs. docs/privacy.md says more. Exit code 1: refused, or something is left.
"""
_UNREACHABLE = "what subscribers, producers and the provider keep, and backups of Postgres and Redis"


@click.command("erase", epilog=_EPILOG, short_help="Erase a number from everything presend keeps.")
@click.argument("mobile", metavar="MSISDN")
@click.option("--dry-run", is_flag=True, help="Only say where the number is.")
@click.option("--yes", is_flag=True, help="Do not ask for the number again.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in operator_action; the number is not.")
@click.option(
    "--wait",
    "wait_seconds",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="How long to wait for an open call with the number.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def erase(*, mobile: str, dry_run: bool, yes: bool, reason: str, wait_seconds: float, as_json: bool) -> None:
    """Erase MSISDN from tables, dead letters, results and the event stream; sums stay.

    Decided requests keep their keys and decisions, without the number and what was found.
    """
    from getpass import getuser

    from worker import config
    from worker.erasing import Eraser
    from worker.storage.engine import connect

    mentions = _mentions(mobile)
    quiet_logs()
    settings = config.load()
    database = connect(settings.database_url, connections=1)
    eraser = Eraser(database, settings.broker_url, settings.redis_url)
    try:
        if dry_run:
            found = eraser.find(mentions)
        else:
            if not yes:
                _confirm(mentions)
            found = eraser.erase(
                mentions, who=getuser(), reason=mentions.taken_out_of(reason), wait_seconds=wait_seconds
            )
    finally:
        database.dispose()
    if as_json:
        print_json(_as_json(found, dry_run=dry_run))
    else:
        _tell(found, dry_run=dry_run, on_redis=settings.broker_is_redis)
    if found.left:
        places = ", ".join(f"{table} ({counted(rows, 'row')})" for table, rows in found.left.items())
        raise Failure(f"the number is still in {places}: it came again meanwhile; run this once more")


def _mentions(mobile: str) -> Mentions:
    from worker.errors import Rejected
    from worker.portability import msisdn
    from worker.portability.mentions import Mentions

    try:
        number = msisdn.normalise(mobile)
    except Rejected as exc:
        raise click.BadParameter(exc.reason, param_hint="MSISDN") from exc
    if number is None:
        raise click.BadParameter("not a mobile number: 11 digits from 13 to 19", param_hint="MSISDN")
    return Mentions(number)


def _confirm(mentions: Mentions) -> None:
    again = click.prompt("This cannot be undone. Type the number again to erase it", err=True)
    if _mentions(again).msisdn != mentions.msisdn:
        raise Failure("that is another number: nothing was erased")


def _as_json(found: Erased, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "tables": found.tables,
        "results": found.results,
        "events": found.events,
        "waiting": found.waiting,
        "left": found.left,
        "unreachable": _UNREACHABLE,
    }


def _tell(found: Erased, *, dry_run: bool, on_redis: bool) -> None:
    places = {
        **{("row", f"of {table}"): rows for table, rows in found.tables.items()},
        ("result", "in Redis"): found.results,
        ("event", "in the stream"): found.events,
    }
    for (noun, place), number in places.items():
        if number:
            click.echo(f"  {counted(number, noun)} {place}")
    total = sum(places.values())
    click.echo(
        f"would erase it in {counted(total, 'place')}" if dry_run else f"erased in {counted(total, 'place')}"
    )
    which = "with the number" if on_redis else "whatever they hold"
    for queue, number in found.waiting.items():
        click.echo(
            f"not erased: {counted(number, 'message')} in {queue}, {which}; run this again once decided"
        )
    click.echo(f"out of reach: {_UNREACHABLE}")
