"""Explain a number: every request, call, record, change, dead letter and cost of it on a time line.

It is searched by POST, so that no number stands in an address, a history or a proxy's log. It is shown masked
unless somebody of the role ``act`` says otherwise, and then that is written down first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from starlette.responses import Response

from worker.errors import Rejected
from worker.portability import msisdn as numbers
from worker.storage import number_story, operator_actions
from worker.storage.number_story import Story
from worker.web.moments import read_moment
from worker.web.visit import Refused, Visit

if TYPE_CHECKING:
    from worker.console.console import Console

_MOST = 50
_AFTER = timedelta(milliseconds=1)
"""A change is told after the request whose call showed it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the time line."""

    at: datetime
    # request, change, lost or letter
    kind: str
    it: Any
    # the moment at which it is over
    done_at: datetime


def page(visit: Visit) -> Response:
    """Show the form."""
    return visit.render("explain.html", story=None, wrong=None, at=None, shown="")


def tell(its: Console, visit: Visit) -> Response:
    """Tell a number's story, now or as of a moment."""
    try:
        number = numbers.normalise(visit.form("mobile").strip())
    except Rejected:
        number = None
    at, at_wrong = _moment(visit)
    if number is None or at_wrong:
        wrong = "explain.wrong_number" if number is None else "explain.wrong_moment"
        return visit.render("explain.html", status=422, story=None, wrong=wrong, at=None, shown="")
    unmasked = visit.form("unmasked") == "yes"
    if unmasked:
        _write_down(visit, number)
    story = visit.read(
        partial(number_story.tell, msisdn=number, rules=its.observing.rules, at=at, most=_MOST)
    )
    return visit.render(
        "explain.html",
        story=story,
        entries=_entries(story),
        wrong=None,
        at=at,
        number=number,
        shown=number if unmasked else numbers.mask(number),
        unmasked=unmasked,
        max_age_seconds=its.observing.rules.freshness.max_age_seconds,
    )


def _entries(story: Story) -> Sequence[Entry]:
    """What happened, oldest first."""
    first = story.requests[0].row.received_at if story.earlier_requests else None
    entries = [
        Entry(told.row.received_at, "request", told, told.emitted_at or told.row.decided_at)
        for told in story.requests
    ]
    for change in story.changes:
        at = change.change.observed_before + _AFTER
        entries.append(Entry(at, "change", change, change.emitted_at or at))
    entries += [
        Entry(call.sent_at, "lost", call, call.sent_at)
        for call in story.lost_calls
        if first is None or call.sent_at >= first
    ]
    entries += [Entry(letter.received_at, "letter", letter, letter.received_at) for letter in story.letters]
    return sorted(entries, key=lambda entry: entry.at)


def _write_down(visit: Visit, number: str) -> None:
    if not visit.principal.may_act:
        raise Refused(403)
    visit.transact(
        partial(
            operator_actions.add,
            who=visit.principal.name,
            action="show",
            subject=f"number {numbers.mask(number)}",
            reason="its story, unmasked",
        )
    )


def _moment(visit: Visit) -> tuple[datetime | None, bool]:
    """The moment asked for, an entry's or the one typed in the site's zone; and whether it is none."""
    exact = read_moment(visit.form("moment"))
    typed = visit.form("at").strip()
    if exact is not None or not typed:
        return exact, False
    try:
        at = datetime.fromisoformat(typed)
    except ValueError:
        return None, True
    return at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(visit.site.timezone)), False
