"""``presend account``: the front door's callers, what each has, and every movement."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli.operator import by_option, database, reason, who
from worker.cli.screen import console, local, meant, print_json, print_table, printable

if TYPE_CHECKING:
    from worker.storage.accounts import Account

_ONCE = "the key, shown this once: write it down"
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
_COLUMNS = ("at", "kind", "amount", "balance", "request_id", "note")
_day = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.group(
    "account",
    short_help="Accounts of those who call presend serve.",
    epilog="\b\nExample:\n  presend account create shop --fee-type prepaid --balance 10000\n"
    "  presend account statement shop > shop.csv\n",
)
def account() -> None:
    """Accounts of the callers of presend serve; a balance counts look-ups."""


@account.command(
    epilog="\b\nExample:\n  presend account create shop --fee-type postpaid --credit-limit 50000\n"
)
@click.argument("name")
@click.option("--fee-type", type=click.Choice(["prepaid", "postpaid"]), default="prepaid", show_default=True)
@click.option("--balance", default=0, show_default=True, metavar="LOOKUPS", help="What it has to begin with.")
@click.option(
    "--credit-limit",
    type=click.IntRange(0),
    metavar="LOOKUPS",
    help="How far below zero a postpaid balance may fall.  [default: without end]",
)
@click.option(
    "--calls-a-minute",
    type=click.IntRange(1),
    metavar="CALLS",
    help="HTTP 429 past this.  [default: no limit]",
)
@by_option
@_json
def create(  # noqa: PLR0917 - click's options
    name: str,
    fee_type: str,
    balance: int,
    credit_limit: int | None,
    calls_a_minute: int | None,
    by: str | None,
    as_json: bool,
) -> None:
    """Open an account and print its key, once: presend keeps only a hash of it."""
    from worker.carrier.protocol import FeeType
    from worker.storage import accounts, engine

    name_of_who = who(by)
    with database() as used:
        made, key = engine.transact(
            used,
            lambda to: accounts.create(
                to,
                name,
                fee_type=FeeType(fee_type),
                balance=balance,
                credit_limit=credit_limit,
                calls_a_minute=calls_a_minute,
                by=name_of_who,
            ),
        )
    _print_key(made, key, as_json=as_json)


@account.command("list", epilog="\b\nExample:\n  presend account list\n")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def list_(as_json: bool) -> None:
    """Show every account, without keys."""
    from worker.storage import accounts, engine

    with database() as used:
        found = engine.read(used, accounts.every)
    if as_json:
        for each in found:
            print_json(_shown(each))
    elif found:
        print_table(console(), _table(found))
    else:
        click.echo("no account yet: presend account create NAME opens one")


@account.command(
    epilog="\b\nExample:\n  presend account topup shop 10000 --note 'invoice 17'\n",
    context_settings={"ignore_unknown_options": True},  # a negative number is none
)
@click.argument("name")
@click.argument("lookups", type=int)
@click.option("--note", default="", metavar="TEXT", help="For the statement.")
@by_option
@_json
def topup(name: str, lookups: int, note: str, by: str | None, as_json: bool) -> None:
    """Add LOOKUPS to a balance; a negative number takes back: topup shop -100."""
    from worker.storage import accounts, engine

    if not lookups:
        raise click.UsageError("nothing to add: LOOKUPS is 0")
    name_of_who = who(by)
    with database() as used:
        done = engine.transact(used, lambda to: accounts.top_up(to, name, lookups, by=name_of_who, note=note))
    _print_done(done, f"{name} has {done.balance:,}", as_json=as_json)


@account.command(epilog="\b\nExample:\n  presend account disable shop --reason 'unpaid since October'\n")
@click.argument("name")
@click.option("--reason", "why", required=True, metavar="TEXT", help="Why; kept in the history.")
@by_option
@_json
def disable(name: str, why: str, by: str | None, as_json: bool) -> None:
    """Answer an account's calls with -6 from now on; calls in progress end as they are."""
    done = _set_disabled(name, True, why, by)
    _print_done(done, f"{name} is disabled; presend account enable {name} ends that", as_json=as_json)


@account.command(epilog="\b\nExample:\n  presend account enable shop --reason paid\n")
@click.argument("name")
@click.option("--reason", "why", default="none given", metavar="TEXT", help="Why; kept in the history.")
@by_option
@_json
def enable(name: str, why: str, by: str | None, as_json: bool) -> None:
    """Answer a disabled account again."""
    done = _set_disabled(name, False, why, by)
    _print_done(done, f"{name} may call again", as_json=as_json)


@account.command(epilog="\b\nExample:\n  presend account rotate shop --grace-hours 48\n")
@click.argument("name")
@click.option(
    "--grace-hours",
    default=24.0,
    show_default=True,
    type=click.FloatRange(0, 24 * 365),
    help="How long the present key stays good; 0 where it has leaked.",
)
@click.option(
    "--drop-older-key", is_flag=True, help="End the key before the present one, though it is still good."
)
@by_option
@_json
def rotate(name: str, grace_hours: float, drop_older_key: bool, by: str | None, as_json: bool) -> None:
    """Give an account a new key and print it, once."""
    from worker.storage import accounts, engine

    name_of_who = who(by)
    with database() as used:
        done, key = engine.transact(
            used,
            lambda to: accounts.rotate(
                to, name, grace=timedelta(hours=grace_hours), by=name_of_who, drop_older=drop_older_key
            ),
        )
    _print_key(done, key, as_json=as_json)


@account.command(epilog="\b\nExample:\n  presend account statement shop --since 2026-11-01 > november.csv\n")
@click.argument("name")
@click.option("--since", type=_day, help="From this day or moment on, in PRESEND_TIMEZONE.")
@click.option("--until", type=_day, help="Before this day or moment.")
def statement(name: str, since: datetime | None, until: datetime | None) -> None:
    """Print every movement of an account as CSV, oldest first; times are UTC."""
    from worker.storage import accounts, engine

    def write(to: Any) -> None:
        moments = {"since": since and meant(since), "until": until and meant(until)}
        found = accounts.statement(to, name, **moments)  # refuses an unknown name before anything is printed
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(_COLUMNS)
        for moved in found:
            at = moved.at.astimezone(UTC).isoformat()
            row = (at, moved.name, moved.amount, moved.balance, moved.request_id or "", moved.note)
            table.writerow(row)

    with database() as used:
        engine.transact(used, write)


def _set_disabled(name: str, disabled: bool, why: str, by: str | None) -> Account:
    from worker.storage import accounts, engine

    name_of_who, its_reason = who(by), reason(why)
    with database() as used:
        return engine.transact(
            used,
            lambda to: accounts.set_disabled(to, name, disabled, by=name_of_who, reason=its_reason),
        )


def _print_key(made: Account, key: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_shown(made) | {"apikey": key})
        return
    click.echo(key)
    click.echo(f"{made.name}, {made.fee_type}, balance {made.balance:,}; above is {_ONCE}", err=True)
    if made.old_key_until is not None:
        click.echo(f"the key before is good until {local(made.old_key_until)}", err=True)


def _print_done(done: Account, words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_shown(done))
    else:
        click.echo(words)


def _shown(each: Account) -> dict[str, Any]:
    return {
        "id": each.id,
        "name": each.name,
        "fee_type": each.fee_type.value,
        "balance": each.balance,
        "held": each.held,
        "credit_limit": each.credit_limit,
        "calls_a_minute": each.calls_a_minute,
        "status": "disabled" if each.disabled else "active",
        "created_at": each.created_at.isoformat(),
        "old_key_until": each.old_key_until and each.old_key_until.isoformat(),
    }


def _table(found: list[Account]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("account", "pays", "balance", "reserved", "credit limit", "calls a minute", "status"):
        table.add_column(name, justify="left" if name in {"account", "pays", "status"} else "right")
    for each in found:
        table.add_row(
            printable(each.name),
            each.fee_type.value,
            f"{each.balance:,}",
            f"{each.held:,}",
            "-" if each.credit_limit is None else f"{each.credit_limit:,}",
            "-" if each.calls_a_minute is None else f"{each.calls_a_minute:,}",
            ("disabled" if each.disabled else "active") + _older_key(each),
        )
    return table


def _older_key(each: Account) -> str:
    return "" if each.old_key_until is None else f", older key good until {local(each.old_key_until)}"
