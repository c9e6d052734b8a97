"""``presend gate``: closing the gate by hand, opening it, and who did what when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import Failure
from worker.cli.operator import by_option as _by
from worker.cli.operator import database as _database
from worker.cli.operator import reason as _reason
from worker.cli.operator import who as _who
from worker.cli.screen import console, local, print_json, print_table, printable

if TYPE_CHECKING:
    from worker.storage.budget import Budget, BudgetDay
    from worker.storage.gate import ClosedGate
    from worker.storage.lane_pauses import PausedLane
    from worker.storage.operator_actions import OperatorAction

_OPEN_BY_HAND = "presend gate open"
_MEND = (
    "mend the provider's account: the gate opens by itself once /balance is well, while presend worker runs. "
    "presend gate open --provider opens it now; the next call closes it again if the account still cannot buy"
)

_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


@click.group(
    "gate",
    short_help="Stop all buying by hand, and start it again.",
    epilog='\b\nExample:\n  presend gate close --reason "prices change at noon"\n  presend gate show\n',
)
def gate() -> None:
    """The gate: while it is closed nothing is bought, for any worker or lane."""


@gate.command(epilog="\b\nExamples:\n  presend gate show\n  presend gate show --history\n")
@click.option(
    "--history", is_flag=True, help="Also who closed, opened, paused and resumed what, newest first."
)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="So much of the history."
)
@_json
def show(history: bool, limit: int, as_json: bool) -> None:
    """Show what is stopped, since when, by whom, why, and what to do; and what is left of the day's budget.

    Stopped is a closed gate, a paused lane, or a budget that is spent. The budget is the one this command's
    environment names.
    """
    from worker import bootstrap, config
    from worker.storage import budget, engine, lane_pauses, operator_actions
    from worker.storage import gate as gates

    daily = bootstrap.budget(config.load())
    with _database() as database:
        closed, paused, day, actions = engine.read(
            database,
            lambda to: (
                gates.closed(to),
                lane_pauses.read(to),
                budget.today(to, daily),
                operator_actions.latest(to, most=limit) if history else [],
            ),
        )
    stops = [*map(_gate_shown, closed), *map(_pause_shown, paused), *_spent_shown(daily, day)]
    if as_json:
        shown: dict[str, Any] = {"stopped": stops, "budget": _budget_shown(daily, day)}
        print_json(shown | {"history": list(map(_action_shown, actions))} if history else shown)
        return
    screen = console()
    if stops:
        print_table(screen, _stops_table(stops))
        click.echo()
    else:
        click.echo("the gate is open, and no lane is paused")
    click.echo(_budget_words(daily, day))
    if history:
        click.echo()
    if actions:
        print_table(screen, _history_table(actions))
    elif history:
        click.echo("nobody has closed, opened, paused or resumed anything yet")


@gate.command(epilog='\b\nExample:\n  presend gate close --reason "price list changes at noon" --by mei\n')
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to whoever looks.")
@_by
@_json
def close(reason: str, by: str | None, as_json: bool) -> None:
    """Close the gate for every account and worker: nothing is bought until somebody opens it.

    sms waits in its queue; a recharge is answered from stored records, or told at once that its number could
    not be checked.
    """
    from worker.storage import engine
    from worker.storage import gate as gates

    who, why = _who(by), _reason(reason)
    with _database() as database:
        newly = engine.transact(database, lambda to: gates.close(to, gates.EVERY_ACCOUNT, by=who, reason=why))
        closed = engine.read(database, lambda to: gates.read(to, gates.EVERY_ACCOUNT))
    if as_json:
        print_json({"closed": newly, "gate": closed and _gate_shown(closed)})
    elif newly:
        click.echo(f"the gate is closed for every worker within a second; {_OPEN_BY_HAND} opens it")
    elif closed is not None:
        since = local(closed.closed_at)
        click.echo(printable(f"it was closed already, by {closed.closed_by} since {since}: {closed.reason}"))


@gate.command("open", epilog="\b\nExamples:\n  presend gate open\n  presend gate open --provider\n")
@click.option(
    "--provider",
    is_flag=True,
    help="Also what the provider's account fault closed; the next call closes it again if the fault stands.",
)
@click.option("--reason", default="none given", metavar="TEXT", help="Why, for the history.")
@_by
@_json
def open_(provider: bool, reason: str, by: str | None, as_json: bool) -> None:
    """Open the gate that was closed by hand. Exit code 1 where another one still is closed."""
    from worker.storage import engine
    from worker.storage import gate as gates

    who, why = _who(by), _reason(reason)

    def reopen(to: Any) -> tuple[list[ClosedGate], list[ClosedGate]]:
        found = gates.closed(to)
        opening = [one for one in found if one.by_hand or provider]
        opened = [one for one in opening if gates.reopen(to, one.account, by=who, reason=why)]
        return opened, [one for one in found if one not in opening]

    with _database() as database:
        opened, left = engine.transact(database, reopen)
    if as_json:
        print_json({"opened": list(map(_gate_shown, opened)), "stopped": list(map(_gate_shown, left))})
    else:
        for one in opened:
            was = f"closed by {one.closed_by}: {one.reason}"
            click.echo(printable(f"opened the {gates.subject(one.account)}, {was}"))
        if not opened and not left:
            click.echo("the gate is open")
    if left:
        what = ", ".join(f"{gates.subject(one.account)} ({one.reason})" for one in left)
        raise Failure(f"still closed by the provider's account fault: {what}. To go on, {_MEND}")


def _gate_shown(closed: ClosedGate) -> dict[str, Any]:
    from worker.storage.gate import subject

    return {
        "what": subject(closed.account),
        "since": closed.closed_at.isoformat(),
        "by": closed.closed_by,
        "reason": closed.reason,
        "next_step": _OPEN_BY_HAND if closed.by_hand else _MEND,
    }


def _pause_shown(paused: PausedLane) -> dict[str, Any]:
    return {
        "what": f"lane {paused.lane}",
        "since": paused.paused_at.isoformat(),
        "by": paused.paused_by,
        "reason": paused.reason,
        "next_step": f"celery -A worker.app control resume_lane {paused.lane} YOUR_NAME",
    }


def _spent_shown(daily: Budget, day: BudgetDay) -> list[dict[str, Any]]:
    """Who may buy nothing more today."""
    from worker.portability.requests import Lane

    if not daily.daily or day.taken < daily.limit(Lane.SMS):
        return []
    all_of_it = day.taken >= daily.daily
    what = "buying, in every lane" if all_of_it else "lane sms"
    its = f"all {daily.daily:,}" if all_of_it else f"its {daily.limit(Lane.SMS):,} of {daily.daily:,}"
    return [
        {
            "what": what,
            "since": (day.changed_at or day.ends_at).isoformat(),
            "by": "the budget",
            "reason": f"{its} numbers of today's budget are taken",
            "next_step": f"wait until {local(day.ends_at)}, or raise PRESEND_DAILY_BUDGET and start the "
            "workers again",
        }
    ]


def _budget_shown(daily: Budget, day: BudgetDay) -> dict[str, Any] | None:
    if not daily.daily:
        return None
    return {
        "daily": daily.daily,
        "taken": day.taken,
        "kept_for_recharges": daily.kept_for_recharges,
        "ends_at": day.ends_at.isoformat(),
    }


def _budget_words(daily: Budget, day: BudgetDay) -> str:
    if not daily.daily:
        return "budget: no bound, for PRESEND_DAILY_BUDGET is 0 here"
    return (
        f"budget: {day.taken:,} of today's {daily.daily:,} numbers are taken, "
        f"{daily.kept_for_recharges:,} are kept for recharges; the day ends at {local(day.ends_at)}"
    )


def _action_shown(action: OperatorAction) -> dict[str, Any]:
    return {
        "at": action.at.isoformat(),
        "who": action.who,
        "action": action.action,
        "subject": action.subject,
        "reason": action.reason,
    }


def _stops_table(stops: list[dict[str, Any]]) -> Any:
    from datetime import datetime

    return _table(
        ("stopped", "since", "by", "why", "what to do"),
        [
            (
                stop["what"],
                local(datetime.fromisoformat(stop["since"])),
                stop["by"],
                stop["reason"],
                stop["next_step"],
            )
            for stop in stops
        ],
    )


def _history_table(actions: list[OperatorAction]) -> Any:
    return _table(
        ("at", "who", "did", "to", "why"),
        [(local(one.at), one.who, one.action, one.subject, one.reason) for one in actions],
    )


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
