"""``presend check``: one number, asked now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from worker.cli.failures import Failure
from worker.cli.screen import console, counted, local, print_json, quiet_logs

if TYPE_CHECKING:
    from worker.bootstrap import Presend
    from worker.portability.records import CheckedRequest
    from worker.portability.requests import CheckRequest
    from worker.storage.gate import ClosedGate

_DEADLINE = timedelta(seconds=10)
_NO_ANSWER = 3
_EPILOG = """\b
Examples:
  presend check 13972565391
  presend check "+86 139 7256 5391" --max-age 86400
  presend check 13972565391 --json

\b
Exit code 0: answered. 2: not a mobile number. 3: no answer (gate closed, provider failing).
A live answer is one paid look-up.
"""


@click.command("check", epilog=_EPILOG, short_help="Ask for one number now.")
@click.argument("mobile")
@click.option("--json", "as_json", is_flag=True, help="Print the check's data, the number in full.")
@click.option(
    "--max-age",
    "max_age_seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Accept a stored answer not older than this. By default the provider is asked.",
)
def check(mobile: str, as_json: bool, max_age_seconds: float | None) -> None:
    """Ask which operator MOBILE belongs to now."""
    from worker import bootstrap, config

    request = _request(mobile, max_age_seconds)
    quiet_logs()
    presend = bootstrap.build(config.load())
    try:
        row = _decided(presend, request)
        gate = _closed_gate(presend) if row is None or row.status is None else None
    finally:
        presend.close()
    if as_json and row is not None:
        from worker.portability.events import check_data

        print_json(check_data(row))
    if row is None or row.status is None:
        raise Failure(_why_none(row, gate), exit_code=_NO_ANSWER)
    if not as_json:
        console().print(_screen(row, live_cost=_cost(presend, row)))


def _request(mobile: str, max_age_seconds: float | None) -> CheckRequest:
    from worker.errors import Rejected
    from worker.portability import msisdn
    from worker.portability.requests import CheckRequest, Lane

    try:
        number = msisdn.normalise(mobile)
    except Rejected as exc:
        raise click.BadParameter(exc.reason, param_hint="MOBILE") from exc
    if number is None:
        raise click.BadParameter("not a mobile number: 11 digits from 13 to 19", param_hint="MOBILE")
    now = datetime.now(UTC)
    return CheckRequest(
        lane=Lane.DIRECT,
        source="cli",
        reference=uuid4().hex,
        msisdn=number,
        received_at=now,
        expires_at=now + _DEADLINE,
        max_age_seconds=max_age_seconds,
    )


def _decided(presend: Presend, request: CheckRequest) -> CheckedRequest | None:
    """The decision; None where the provider took the number again and again and never answered."""
    from worker.errors import Rejected

    try:
        return presend.pipeline.run_one(request)
    except Rejected:
        return None


def _closed_gate(presend: Presend) -> ClosedGate | None:
    from worker.storage import engine, gate

    return engine.read(presend.database, lambda to: gate.read(to, presend.account))


def _why_none(row: CheckedRequest | None, gate: ClosedGate | None) -> str:
    if gate is not None:
        opens = (
            "presend gate open opens it"
            if gate.by_hand
            else "It opens by itself once the account is well, while presend worker runs"
        )
        closed_at = local(gate.closed_at)
        return f"no answer: the gate was closed by {gate.closed_by} at {closed_at} ({gate.reason}). {opens}"
    if row is None or row.reason == "provider_failing":
        return "no answer: the provider is failing. Try again; see PRESEND_PROVIDER_URL if it never answers"
    return f"no answer within {_DEADLINE.seconds} s: {row.reason}"


def _cost(presend: Presend, row: CheckedRequest) -> str:
    from worker.portability.records import AnsweredFrom, Status

    code = -4 if row.status is Status.UNKNOWN else 0
    billed = row.status is not Status.INVALID and code in presend.settings.billed_codes
    return counted(int(billed and row.answered_from is AnsweredFrom.LIVE), "look-up")


def _screen(row: CheckedRequest, *, live_cost: str) -> Any:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from worker.portability import msisdn

    lines = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("status", _status(row))
    lines.add_row("current operator", Text(_operator(row.current_operator), style="bold"))
    lines.add_row("range holder", Text(_operator(row.range_holder)))
    lines.add_row("area", Text(row.area or "-"))
    lines.add_row("observed", _observed(row))
    lines.add_row("cost", live_cost)
    title = Text(f" {msisdn.mask(row.msisdn or '')} ", style="bold")
    return Panel(lines, title=title, title_align="left", box=box.ROUNDED, padding=(0, 1), expand=False)


def _status(row: CheckedRequest) -> Any:
    from rich.text import Text

    from worker.portability.records import Status

    words, style = {
        Status.NOT_PORTED: ("not ported 未携转", "green"),
        Status.PORTED: ("ported 已携转", "yellow"),
        Status.VIRTUAL: ("virtual 虚拟运营商: an MVNO's number", "cyan"),
        Status.UNKNOWN: ("unknown: the operators say nothing of it", "magenta"),
        Status.INVALID: ("invalid: no such number", "red"),
    }[row.status or Status.UNKNOWN]
    return Text(words, style=style)


def _operator(code: str | None) -> str:
    from worker.portability.operators import Operator

    if code is None:
        return "-"
    return f"{code} {Operator(code).full_name}" if code in set(Operator) else code


def _observed(row: CheckedRequest) -> str:
    if row.observed_at is None:
        return "-"
    age = datetime.now(UTC) - row.observed_at
    since = "just now" if age < timedelta(seconds=60) else f"{_rough(age)} ago"
    return f"{local(row.observed_at)}, {since} ({row.answered_from})"


def _rough(age: timedelta) -> str:
    for seconds, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if age.total_seconds() >= seconds:
            return counted(int(age.total_seconds() // seconds), unit)
    return counted(int(age.total_seconds()), "second")
