"""``presend events``: what presend says, as it says it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import Failure
from worker.cli.screen import console, zone

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {
    "confirmed": "green",
    "resend": "green",
    "reroute": "yellow",
    "ported": "cyan",
    "rejected": "red",
    "undeliverable": "red",
    "unverified": "magenta",
}
_LAST = 10
_EPILOG = """\b
Examples:
  presend events --follow
  presend events --follow --type "sms.*"
  presend events --follow --json | jq -c .data
  presend events --last 20       on Redis, which keeps a stream of them

\b
Types: recharge.confirmed .reroute .rejected .unverified, sms.resend .reroute .undeliverable,
number.ported. With --json numbers are shown in full.
"""


@click.command("events", epilog=_EPILOG, short_help="Show events as they come.")
@click.option("--follow", "-f", is_flag=True, help="Show events from now on, until Ctrl-C.")
@click.option(
    "--last",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help=f"Show the newest N (Redis only; {_LAST} without --follow).",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as it was sent, one a line.")
@click.option("--type", "pattern", default="*", help="Only types that fit this pattern, as in sms.*")
def events(follow: bool, last: int | None, as_json: bool, pattern: str) -> None:
    """Show the events presend sends: one line each, numbers masked."""
    from worker import config, publisher

    settings = config.load()
    show = _raw if as_json else _shower()
    try:
        if last is not None or not follow:
            if not settings.broker_is_redis:
                raise Failure("RabbitMQ keeps no past events: --follow shows those to come")
            _show(publisher.latest(settings.broker_url, last or _LAST), show, pattern)
        if follow:
            _show(publisher.follow(settings.broker_url), show, pattern)
    except KeyboardInterrupt:
        return


def _show(bodies: Iterable[bytes], show: Callable[[bytes, Any], None], pattern: str) -> None:
    for body in bodies:
        if body:  # an empty one only says that none came for a while
            event = json.loads(body)
            if fnmatchcase(event["type"], pattern):
                show(body, event)


def _raw(body: bytes, _event: Any) -> None:
    click.echo(body)


def _shower() -> Callable[[bytes, Any], None]:
    screen = console()

    def show(_body: bytes, event: Any) -> None:
        screen.print(_line(event), soft_wrap=True)

    return show


def _line(event: Any) -> Text:
    """One event: time, type, reference, number, reason, target."""
    from rich.text import Text

    from worker.portability.msisdn import mask
    from worker.portability.operators import label_of

    data, kind = event["data"], str(event["type"])
    ported = kind == "number.ported"
    words = Text(f"{datetime.fromisoformat(event['time']).astimezone(zone()):%H:%M:%S} ", style="dim")
    words.append(f"{kind:<18} ", style=_STYLES.get(kind.rpartition(".")[2], ""))
    words.append(f"{mask(data['mobile'] or '')}  ")
    words.append("-" if ported else str(event["subject"]))
    if ported:
        doubtful = ", doubtful" if data["doubtful"] else ""
        words.append(f"  {label_of(data['donor'])} → {label_of(data['recipient'])}{doubtful}", style="cyan")
        return words
    words.append(f"  {data['reason']}", style="dim")
    if data["target_operator"]:
        words.append(f" → {data['target_operator']} {label_of(data['target_operator'])}", style="yellow")
    return words
