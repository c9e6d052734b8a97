"""``presend explain``: the story of one number, on one screen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.screen import console, counted, local, meant, print_json, print_table, quiet_logs

if TYPE_CHECKING:
    from rich.text import Text

    from worker.portability.records import PortRecord
    from worker.portability.requests import RequestKey
    from worker.storage.dead_letters import DeadLetter
    from worker.storage.number_story import ProviderCall, Story, ToldChange, ToldRequest

_EPILOG = """\b
Examples:
  presend explain 13972565391
  presend explain 13972565391 --at 2026-11-28T21:05:00
  echo 13972565391 | presend explain -          # keeps the number out of the shell's history

\b
Nothing is bought. A moment without offset is in PRESEND_TIMEZONE. Requests older than
PRESEND_LEDGER_DAYS are deleted, and their part of the story with them.
"""
_MOST_LETTERS = 3
_DECISIONS = {
    "confirmed": "green",
    "resend": "green",
    "answered": "green",
    "reroute": "yellow",
    "rejected": "red",
    "undeliverable": "red",
    "unverified": "magenta",
    "unanswered": "magenta",
}
_REASONS = {
    "invalid_number": "no such number",
    "unknown_number": "the operators say nothing of it",
    "expired": "its time was up before an answer came",
    "gate_closed": "no stored record answered, and the gate was closed: nothing could be bought",
    "budget_spent": "no stored record answered, and the day's budget was spent",
    "provider_failing": "the provider failed",
    "virtual": "an MVNO's number: no operator's product fits",
    "attempts_used_up": "attempts used up",
    "no_product_operator": "the producer named no operator",
    "same_operator": "still with {asked}",
    "other_operator": "no longer with {asked}",
    "permanent_failure": "still with {asked}, and the failure is for good",
    "refused": "the failure code says refused: porting cannot explain it",
    "throttled": "the failure code says throttled: porting cannot explain it",
    "not_ported": "not ported",
    "ported": "ported",
}
_OBJECTIONS = {
    "no_record": "nothing was known of it",
    "unknown": "the last answer was: unknown",
    "live_wanted": "a direct caller wants a live answer, if it accepts no age",
    "another_attempt": "attempt {attempt}: a stored answer is not taken",
    "said_to_have_moved": "the failure code says that it moved",
    "channel_failed": "the record of {observed} names the channel that failed since",
    "old": "the record of {observed} was {age} old, more than {most}",
}


class _Entry(NamedTuple):
    """One entry of the time line."""

    at: datetime
    lines: list[Text]


@click.command("explain", epilog=_EPILOG, short_help="Tell all that is known of one number.")
@click.argument("mobile", metavar="MSISDN")
@click.option("--at", "at_words", metavar="TIME", help="As of this moment: what came later is left out.")
@click.option(
    "--limit", default=8, show_default=True, type=click.IntRange(1, 1000), help="Newest requests told."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def explain(*, mobile: str, at_words: str | None, limit: int, as_json: bool) -> None:
    """Tell the story of MSISDN: requests, calls, costs, changes, decisions, events, dead letters.

    With - in place of the number it is read from standard input. The number is shown in full.
    """
    from worker import bootstrap, config
    from worker.storage import engine, number_story

    msisdn, at = _number(mobile), _moment(at_words)
    quiet_logs()
    settings = config.load()
    rules = bootstrap.rules(settings)
    database = engine.connect(settings.database_url, connections=1, by_key=True)
    try:
        story = engine.read(
            database, lambda to: number_story.tell(to, msisdn, rules=rules, at=at, most=limit)
        )
    finally:
        database.dispose()
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(story))
        return
    _print(story, _Words(settings.max_age_seconds), now_asked=at is None)


def _number(mobile: str) -> str:
    from worker.errors import Rejected
    from worker.portability import msisdn

    given = sys.stdin.readline().strip() if mobile == "-" else mobile
    try:
        number = msisdn.normalise(given)
    except Rejected as exc:
        raise click.BadParameter(exc.reason, param_hint="MSISDN") from exc
    if number is None:
        raise click.BadParameter("not a mobile number: 11 digits from 13 to 19", param_hint="MSISDN")
    return number


def _moment(words: str | None) -> datetime | None:
    if words is None:
        return None
    try:
        return meant(datetime.fromisoformat(words)).astimezone(UTC)
    except ValueError:
        raise click.BadParameter(
            "not a moment: write 2026-11-28T21:05:00, with +08:00 or Z behind it for another time zone",
            param_hint="--at",
        ) from None


def _print(story: Story, words: _Words, *, now_asked: bool) -> None:
    from rich.table import Table

    screen = console()
    screen.print(_heading(story, now_asked=now_asked))
    if story.earlier_requests:
        screen.print(f"{'':16}… {counted(story.earlier_requests, 'earlier request')}: --limit", style="dim")
    entries = sorted(_entries(story, words), key=lambda entry: entry.at)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim", width=14)
    table.add_column(overflow="fold", ratio=1)
    day = ""
    for entry in entries:
        date, time = local(entry.at)[:10], local(entry.at)[11:19]
        shown, day = (f"{date[5:]} {time}" if date != day else f"{time:>14}"), date
        for line in entry.lines:
            table.add_row(shown, line)
            shown = ""
    print_table(screen, table)
    for words_below in _footing(story):
        screen.print(words_below, style="dim")


def _entries(story: Story, words: _Words) -> Iterator[_Entry]:
    first = story.requests[0].row.received_at if story.earlier_requests else None
    for told in story.requests:
        yield _Entry(told.row.received_at, words.of_request(told, story.at))
    for changed in story.changes:
        yield _Entry(changed.change.observed_before + _AFTER, words.of_change(changed))
    for call in story.lost_calls:
        if first is None or call.sent_at >= first:
            yield _Entry(call.sent_at, words.of_lost(call))
    for letter in story.letters[-_MOST_LETTERS:]:
        yield _Entry(letter.received_at, words.of_letter(letter))


_AFTER = timedelta(milliseconds=1)
"""A change is told after the request whose call showed it."""


def _heading(story: Story, *, now_asked: bool) -> Any:
    from rich.text import Text

    when = "now" if now_asked else f"as of {local(story.at)}"
    head = Text(story.msisdn, style="bold")
    head.append(f"  {when}: ", style="dim")
    record = story.record
    if record is None:
        last = story.changes[-1].change if story.changes else None
        head.append("nothing is known of it" if last is None else _last_seen(last.recipient), style="bold")
    else:
        head.append(_what(record), style="bold")
        head.append(f"\n{'':16}observed {local(record.observed_at)}, {_age(story.at, record.observed_at)}")
        if record.changed_at is not None:
            head.append(f"\n{'':16}first seen there {local(record.changed_at)}")
    if story.being_bought is not None:
        head.append(f"\n{'':16}a call sent {local(story.being_bought.sent_at)} is buying it", style="yellow")
    head.append("\n")
    return head


def _last_seen(operator: str) -> str:
    return f"last seen with {_operator(operator)}; the ledger of then is gone"


def _what(record: PortRecord) -> str:
    if record.current_operator is None:
        return f"{record.status}"
    its = f"{_operator(record.current_operator)}, {record.status}"
    if record.range_holder not in {None, record.current_operator}:
        its += f", range of {_operator(record.range_holder)}"
    return f"{its}, {record.area}" if record.area else its


def _footing(story: Story) -> Iterator[str]:
    if not (story.requests or story.letters or story.changes):
        yield f"{'':16}no request, change or dead letter names it"
    if story.requests:
        requests = counted(len(story.requests) + story.earlier_requests, "request")
        lost = sum(call.lost for call in story.lost_calls)
        perhaps = f", and perhaps {_times(lost)} more in {counted(lost, 'lost call')}" if lost else ""
        yield f"\n{requests} in the ledger, for which it was bought {_times(story.bought)}{perhaps}"
    hidden = len(story.letters) - _MOST_LETTERS
    if hidden > 0:
        yield f"{counted(hidden, 'earlier dead letter')} with it: --json tells them"
    if story.letters_skimmed:
        yield (
            f"{counted(story.letters_skimmed, 'older dead letter')} searched for its plain digits only, "
            "not as +86 or with blanks or dashes: presend dead list --replayed shows all"
        )


class _Words:
    """What each entry says."""

    def __init__(self, max_age_seconds: Any) -> None:
        self._max_age_seconds = max_age_seconds

    def of_request(self, told: ToldRequest, at: datetime) -> list[Text]:
        from rich.text import Text

        row = told.row
        head = Text(f"{row.lane} {row.reference}", style="bold")
        head.append(_asked(told))
        if not told.decided:
            return [head, Text(f"waiting: decided {_seconds(row.decided_at - at)} later", style="yellow")]
        lines = [head, Text(self._answer(told))]
        lines += [Text(line, style="dim") for line in _charged(told)]
        reason = _REASONS.get(row.reason, row.reason.replace("_", " "))
        said = reason.format(asked=_short(row.asked_operator))
        target = f" to {_operator(row.target_operator)}" if row.target_operator else ""
        end = Text(f"→ {row.decision}{target}", style=_DECISIONS.get(row.decision, ""))
        end.append(f": {said}", style="default")
        end.append(_told(told), style="dim")
        return [*lines, end]

    def _answer(self, told: ToldRequest) -> str:
        """Where the answer came from, why, and what it cost."""
        row, call = told.row, told.call
        shared = _shared(told)
        if row.answered_from == "live":
            price = _price(call) if call is not None else "its call is no longer in the ledger"
            return f"bought ({self._why(told)}): {price}{shared}"
        if row.answered_from == "rule":
            return "nothing asked: a rule decides it"
        if row.answered_from is None:
            return f"no answer; {self._why(told)}" if row.reason != "expired" else "no answer in time"
        if row.answered_from == "shared":
            return f"shared what {_bought_by(told)} was buying, at no cost"
        age = _age(row.decided_at, row.observed_at or row.decided_at).removesuffix(" ago")
        limit = f"; {_span(self._max_age_seconds[row.lane])} are allowed" if row.lane != "direct" else ""
        return f"answered from store, at no cost: bought {age} before for {_bought_by(told)}{limit}"

    def _why(self, told: ToldRequest) -> str:
        if told.objection is None:
            return "the record of then did not do (by today's settings it would)"
        met, row = told.met, told.row
        observed = "-" if met is None else _clock(met.observed_at, row.received_at)
        age = "-" if met is None else _age(row.received_at, met.observed_at).removesuffix(" ago")
        return _OBJECTIONS[told.objection].format(
            attempt=row.attempt,
            observed=observed,
            age=age,
            most=_span(self._max_age_seconds[row.lane]),
        )

    @staticmethod
    def of_change(told: ToldChange) -> list[Text]:
        from rich.text import Text

        change = told.change
        line = Text(f"ported from {_operator(change.donor)} to {_operator(change.recipient)}", style="cyan")
        between = f"{local(change.observed_after)} and {local(change.observed_before)}"
        after = Text(f"between {between}", style="default")
        if change.doubtful:
            after.append("; doubtful: against the regulator's rules", style="yellow")
        after.append(_event("number.ported", told.emitted_at, change.observed_before), style="dim")
        return [line, after]

    @staticmethod
    def of_lost(call: ProviderCall) -> list[Text]:
        from rich.text import Text

        if call.lost:
            words = f"a call of lane {call.lane} with {counted(call.numbers, 'number')} was lost: "
            return [Text(f"{words}it may have been billed without an answer", style="red")]
        words = f"lane {call.lane} did not wait for another call in flight and bought it a second time"
        return [Text(words, style="yellow")]

    @staticmethod
    def of_letter(letter: DeadLetter) -> list[Text]:
        from rich.text import Text

        from worker.cli.screen import printable

        head = Text(f"dead letter {letter.task or 'without a task'}", style="bold red")
        head.append(f"  {letter.id}", style="dim")
        replayed = "" if letter.replayed_at is None else f"; sent again {local(letter.replayed_at)}"
        return [head, Text(f"{printable(letter.reason)[:300]}{replayed}")]


def _asked(told: ToldRequest) -> str:
    row = told.row
    words = [f"of {row.source}"] if row.source else []
    if row.asked_operator is not None:
        verb = {"recharge": "sells", "sms": "failed by"}.get(row.lane, "asks of")
        words.append(f"{verb} {_short(row.asked_operator)}")
    if row.failure_code is not None:
        words.append(f"code {row.failure_code}")
    if row.attempt > 1:
        words.append(f"attempt {row.attempt}")
    return f"  {', '.join(words)}" if words else ""


def _price(call: ProviderCall) -> str:
    if call.answered_at is None:
        return f"a call of {counted(call.numbers, 'number')}, {call.outcome}"
    took = _seconds(call.answered_at - call.sent_at)
    if call.numbers == 1:
        return f"1 look-up, {'billed' if call.billed else 'not billed'}, {took}"
    return f"1 look-up, in a call of {call.numbers:,} of which {call.billed or 0:,} were billed, {took}"


def _shared(told: ToldRequest) -> str:
    others = [_key(key) for key in told.shared_with]
    if not others:
        return ""
    more = f" and {len(others) - 2} more" if len(others) > 2 else ""
    return f"; answered {', '.join(others[:2])}{more} too"


def _charged(told: ToldRequest) -> Iterator[str]:
    for charge in told.charges:
        yield f"account {charge.account}: {charge.kind} {charge.amount:+,}, balance {charge.balance:,}"


def _bought_by(told: ToldRequest) -> str:
    return "a request that is no longer in the ledger" if told.buyer is None else _key(told.buyer)


def _key(key: RequestKey) -> str:
    attempt = f" (attempt {key.attempt})" if key.attempt > 1 else ""
    return f"{key.lane} {key.reference}{attempt}"


def _told(told: ToldRequest) -> str:
    if told.row.lane == "direct":
        return ""
    return _event(f"{told.row.lane}.{told.row.decision}", told.emitted_at, told.row.decided_at)


def _event(kind: str, emitted_at: datetime | None, decided_at: datetime) -> str:
    if emitted_at is None:
        return f"; {kind} not confirmed by the broker yet"
    return f"; {kind} out after {_seconds(emitted_at - decided_at)}"


def _operator(code: str | None) -> str:
    from worker.portability.operators import label_of

    return "no operator" if code is None else f"{code} {label_of(code)}".strip()


def _short(code: str | None) -> str:
    return code or "no operator"


def _age(now: datetime, then: datetime) -> str:
    seconds = max(0.0, (now - then).total_seconds())
    return f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return counted(int(seconds // size), unit)
    return counted(int(seconds), "second")


def _seconds(span: timedelta) -> str:
    seconds = max(0.0, span.total_seconds())
    return (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 100 else _span(seconds)
    )


def _clock(moment: datetime, near: datetime) -> str:
    """A moment in as few words as the day allows."""
    words = local(moment)
    return words[11:19] if words[:10] == local(near)[:10] else words


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count:,} times")
