"""``presend audit``: the ledger beside the movements of the provider's balance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import Failure
from worker.cli.screen import console, counted, local, meant, print_json, print_table, quiet_logs

if TYPE_CHECKING:
    from rich.console import Console

    from worker.portability.reconciliation import Audit, Finding, LedgerCall, Unsettled

_DAY = timedelta(days=1)
_EPILOG = """\b
Examples:
  presend audit
  presend audit --since 2026-11-01
  presend audit --since 2026-11-28T08:00:00 --json

\b
Exit code 1: something is unexplained, or charged that should not be: claim it from the provider with the
calls named. Upkeep reads the balance every PRESEND_BALANCE_SECONDS; nothing is asked of the provider now.
"""
_WORDS = {
    "lost_charged": "answers that were lost were charged",
    "failure_charged": "failed calls were charged",
    "overcharged": "charged beyond what was asked",
    "topped_up": "the account was topped up",
    "undercharged": "charged less than the answers cost",
}
_NEXT = {
    "lost_charged": "honest by the contract: they may have been worked",
    "failure_charged": "claim: a failed call costs nothing",
    "overcharged": "claim: no call of ours accounts for it. Does somebody else use this key?",
    "topped_up": "compare with what was paid in",
    "undercharged": "see PRESEND_BILLED_CODES, and whether somebody topped up a little",
}


@click.command("audit", epilog=_EPILOG, short_help="Compare the ledger with the provider's balance.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="From this day or moment on, in PRESEND_TIMEZONE.  [default: 24 hours ago]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def audit(since: datetime | None, as_json: bool) -> None:
    """Say where the provider's balance moved otherwise than the answers we got cost, and by how much.

    Named are lost answers and failed calls that were charged, what was charged beyond all that, and top-ups.
    Where calls overlap without a pause, the time between two pauses is compared as a whole.
    """
    quiet_logs()
    until = datetime.now(UTC)
    begin = until - _DAY if since is None else meant(since).astimezone(UTC)
    found = _audit(begin, until)
    if found is None:
        raise Failure(
            f"the balance was not read twice since {local(begin)}: run presend worker, whose upkeep reads it "
            "every PRESEND_BALANCE_SECONDS, or give an earlier --since"
        )
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found)
    if found.unexplained:
        raise Failure(f"{counted(found.unexplained, 'look-up')} to claim or to explain")


def _audit(since: datetime, until: datetime) -> Audit | None:
    from worker import config
    from worker.portability import reconciliation
    from worker.storage import balance_readings, engine
    from worker.storage.gate import account_id

    settings = config.load()
    account = account_id(settings.provider_url, settings.require_apikey())
    database = engine.connect(settings.database_url, connections=1, by_key=True)

    def compare(to: Any) -> Audit | None:
        readings = balance_readings.between(to, account, since=since, until=until)
        if not readings:
            return None
        span = {"since": readings[0].asked_at, "until": readings[-1].answered_at}
        return reconciliation.reconcile(readings, balance_readings.calls(to, settings.provider_url, **span))

    try:
        return engine.transact(database, compare)
    finally:
        database.dispose()


def _as_json(found: Audit) -> Any:
    import msgspec

    shown = msgspec.to_builtins(found)
    for finding, told in zip(found.findings, shown["findings"], strict=True):
        told["unexplained"] = finding.gap.unexplained
    return shown | {"unexplained": found.unexplained}


def _show(found: Audit) -> None:
    screen = console()
    if found.compared is None:
        screen.print("nothing could be compared", style="bold yellow")
    else:
        screen.print(f"compared: {_span(*found.compared)}")
        answers = counted(found.lost, "answer")
        lost = f"; {answers} {'was' if found.lost == 1 else 'were'} lost" if found.lost else ""
        calls = counted(found.calls, "call")
        screen.print(f"  the ledger has {calls}, whose answers cost {found.billed:,}{lost}")
        spans = counted(found.spans, "span")
        screen.print(f"  the balance fell by {found.fell:,}, top-ups apart; compared in {spans}")
    if found.left_out is not None:
        _show_left_out(screen, found.left_out, "first", "try an earlier --since")
    if found.unsettled is not None:
        _show_left_out(screen, found.unsettled, "last", "the next audit looks again")
    screen.print()
    if found.findings:
        print_table(screen, _table(found.findings))
    elif found.compared is not None:
        screen.print("nothing is unexplained", style="green")
    else:
        screen.print(
            "run it again once the balance was read twice while no call was open: upkeep reads it every "
            "PRESEND_BALANCE_SECONDS"
        )


def _show_left_out(screen: Console, rest: Unsettled, which: str, next_step: str) -> None:
    screen.print(f"left out: {_span(rest.since, rest.until)}", style="yellow")
    screen.print(f"  {counted(rest.calls, 'call')}, as one was open at the {which} reading; {next_step}")
    screen.print(
        f"  {rest.fell:,} fell, {rest.billed:,} cost, {rest.unsure:,} may have come or gone; "
        "only more than that is claimed",
        style="dim",
    )


def _span(since: datetime, until: datetime) -> str:
    return f"{local(since)} to {local(until)}"


def _table(findings: tuple[Finding, ...]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("between", no_wrap=True)
    table.add_column("look-ups", justify="right", no_wrap=True)
    table.add_column("what, and what to do", overflow="fold", ratio=1)
    for each in findings:
        words = Text(_WORDS[each.gap], style="bold red" if each.gap.unexplained else "bold")
        words.append(f"\n{_NEXT[each.gap]}", style="default")
        if each.free_answers and each.free_answers == each.numbers:
            words.append("; as many answers cost nothing by PRESEND_BILLED_CODES", style="default")
        for call in each.calls:
            words.append(f"\n{_call(call)}", style="dim")
        table.add_row(f"{local(each.since)}\n{local(each.until)}", f"{each.numbers:,}", words)
    return table


def _call(call: LedgerCall) -> str:
    what = f"{call.lost:,} lost" if call.lost else "failed"
    return f"{call.id}, sent {local(call.sent_at)}, {counted(call.numbers, 'number')}, {what}"
