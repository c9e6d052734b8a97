"""Dead letters: filtered, shown in full by who says so, priced, and replayed under a cap of look-ups."""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from starlette.responses import Response

from worker import logs
from worker.errors import NotConfirmed, SettingsError
from worker.producing.pricing import Pricing
from worker.producing.producer import Producer
from worker.producing.replay import (
    NO_ARGUMENTS,
    NO_TASK,
    OVER_THE_CAP,
    Cap,
    Replayed,
    note_begin,
    note_end,
    plan,
    replay,
)
from worker.producing.showing import brief
from worker.queues import TASKS
from worker.storage import dead_letters, operator_actions
from worker.storage.dead_letters import DeadLetter, Which
from worker.storage.reports import is_id
from worker.web.moments import read_moment, written_moment
from worker.web.visit import Refused, Visit

if TYPE_CHECKING:
    from worker.console.console import Console

log = logs.get(__name__)

_PAGE = 50
MOST_AT_ONCE = 5000
"""Letters one replay takes, oldest first: each waits for its confirm."""
_HOURS = {"1": 1, "24": 24, "168": 168, "720": 720}
_REPLAYED = {"no": False, "yes": True, "any": None}
_LONGEST = 200
_LEFT = {NO_TASK: "no_task", NO_ARGUMENTS: "no_arguments", OVER_THE_CAP: "over_the_cap"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters the page shows, as its form says it."""

    task: str = ""
    kind: str = ""
    reason: str = ""
    hours: str = ""
    replayed: str = "no"

    def which(self, now: datetime) -> Which:
        """The letters it means."""
        hours = _HOURS.get(self.hours)
        return Which(
            reason=self.reason or None,
            kind=self.kind or None,
            task=self.task or None,
            since=None if hours is None else now - timedelta(hours=hours),
            replayed=_REPLAYED[self.replayed],
        )

    def fields(self) -> dict[str, str]:
        """Its form's fields."""
        return {
            "task": self.task,
            "kind": self.kind,
            "contains": self.reason,
            "hours": self.hours,
            "replayed": self.replayed,
        }

    def words(self) -> str:
        """It in few words, for the history."""
        named = {name: value for name, value in self.fields().items() if value and name != "replayed"}
        return ", ".join(f"{name} {value!r}" for name, value in named.items()) or "all"


def page(visit: Visit) -> Response:
    """Show the newest letters that fit, numbers masked."""
    chosen, now = _filter(visit.query), datetime.now(UTC)
    which = chosen.which(now)
    letters = visit.read(
        partial(dead_letters.newest, which=which, most=_PAGE + 1, before=_cursor(visit.query("before")))
    )
    shown, more = letters[:_PAGE], len(letters) > _PAGE
    last = f"{written_moment(shown[-1].received_at)}~{shown[-1].id}" if more else None
    return visit.render(
        "dead.html",
        letters=[(letter, brief(letter.payload)) for letter in shown],
        total=visit.read(partial(dead_letters.count, which=which)),
        kinds=visit.read(partial(dead_letters.kinds, which=Which(replayed=which.replayed))),
        tasks=sorted(TASKS),
        hours=_HOURS,
        chosen=chosen,
        older=visit.to("/dead", **chosen.fields(), before=last) if last else None,
        is_first=not visit.query("before"),
    )


def letter_page(visit: Visit) -> Response:
    """Show one letter, numbers masked."""
    letter = _letter(visit)
    return visit.render("letter.html", letter=letter, words=brief(letter.payload), whole=None)


def show_whole(visit: Visit) -> Response:
    """Show one letter with everything that came; that somebody looked is written down first."""
    letter = _letter(visit)
    visit.transact(
        partial(
            operator_actions.add,
            who=visit.principal.name,
            action="show",
            subject=f"dead letter {letter.id}",
            reason="its arguments, unmasked",
        )
    )
    return visit.render(
        "letter.html", letter=letter, words=brief(letter.payload), whole=_whole(letter.payload)
    )


def price(its: Console, visit: Visit) -> Response:
    """Say what a replay of the chosen letters would do and buy; nothing is sent."""
    chosen, ids, found = _selection(visit)
    planned = plan(visit.site.database, ids, _cap(its, None))
    return _priced(visit, chosen, ids, found, planned)


def send_again(its: Console, visit: Visit) -> Response:
    """Replay the chosen letters as far as the cap lets them."""
    chosen, ids, found = _selection(visit)
    cap, why = _number(visit.form("cap")), _reason(visit)
    if cap is None or why is None:
        planned = plan(visit.site.database, ids, _cap(its, None))
        return _priced(visit, chosen, ids, found, planned, unsaid=True)
    selected = f"{len(ids)} chosen" if visit.forms("id") else chosen.words()
    database, who = visit.site.database, visit.principal.name
    note_begin(database, who=who, why=why, chosen=selected, most=cap)
    done, fault = Replayed(), None
    try:
        with Producer(its.observing.broker_url) as producer:
            for part in replay(database, producer, ids, _cap(its, cap)):
                done.add(part)
    except (OperationalError, NotConfirmed, SettingsError, OSError) as exc:
        fault = type(exc).__name__
        log.warning("replay_stopped", error=fault)
    note_end(database, done, who=who, letters=len(ids), stopped=fault is not None)
    its.live.forget()
    return visit.render(
        "replayed.html",
        status=200 if fault is None else 503,
        done=done,
        left=_left(done),
        passed_over=len(ids) - len(done.sent) - len(done.left) if fault is None else 0,
        fault=fault,
        chosen=chosen,
    )


def _priced(
    visit: Visit, chosen: Filter, ids: Sequence[str], found: int, planned: Replayed, *, unsaid: bool = False
) -> Response:
    prices = planned.prices
    return visit.render(
        "price.html",
        status=422 if unsaid else 200,
        unsaid=unsaid,
        chosen=chosen,
        ids=visit.forms("id"),
        letters=len(ids),
        found=found,
        planned=planned,
        tasks=Counter(str(letter.task) for letter in planned.sent).most_common(),
        left=_left(planned),
        decided=sum(price.decided for price in prices),
        unasked=sum(price.unasked for price in prices),
        wrong=sum(price.wrong for price in prices),
        cap=visit.form("cap"),
        why=visit.form("why"),
    )


def _left(replayed: Replayed) -> list[tuple[str, int]]:
    """Why letters stay, by the keys of the texts, and how many."""
    return Counter(_LEFT[why] for _, why in replayed.left).most_common()


def _selection(visit: Visit) -> tuple[Filter, list[str], int]:
    """The filter, the letters meant (those ticked, else the oldest that fit), and how many fit."""
    chosen = _filter(visit.form)
    ticked = [each for each in visit.forms("id") if is_id(each)]
    if ticked:
        return chosen, ticked, len(ticked)
    which = replace(chosen, replayed="no").which(datetime.now(UTC))
    found = visit.read(partial(dead_letters.count, which=which))
    return chosen, visit.read(partial(dead_letters.ids, which=which, most=MOST_AT_ONCE)), found


def _filter(field: Any) -> Filter:
    hours, replayed = field("hours"), field("replayed", "no")
    return Filter(
        task=field("task")[:_LONGEST],
        kind=field("kind")[:_LONGEST],
        reason=field("contains").strip()[:_LONGEST],
        hours=hours if hours in _HOURS else "",
        replayed=replayed if replayed in _REPLAYED else "no",
    )


def _letter(visit: Visit) -> DeadLetter:
    letter_id = visit.request.path_params["id"]
    found = visit.read(partial(dead_letters.one, letter_id=letter_id)) if is_id(letter_id) else None
    if found is None:
        raise Refused(404)
    return found


def _cursor(text: str) -> tuple[datetime, str] | None:
    at, _, letter_id = text.partition("~")
    moment = read_moment(at)
    return None if moment is None or not is_id(letter_id) else (moment, letter_id)


def _cap(its: Console, most: int | None) -> Cap:
    return Cap(Pricing(its.observing.rules, its.observing.intake), most)


def _number(text: str) -> int | None:
    plain = text.strip().replace(",", "")
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) < 10 else None


def _reason(visit: Visit) -> str | None:
    try:
        return operator_actions.reason(" ".join(visit.form("why").split())[:500])
    except ValueError:
        return None


def _whole(payload: Any) -> str:
    """Everything that came, as text; of a body that could not be decoded what can be read of it."""
    shown = json.dumps(payload, ensure_ascii=False, indent=2)
    body = payload.get("base64") if isinstance(payload, dict) else None
    if isinstance(body, str) and _is_text(body):
        return f"{shown}\n\n{base64.b64decode(body).decode()}"
    return shown


def _is_text(body: str) -> bool:
    """Whether base64 holds UTF-8 text."""
    try:
        return base64.b64decode(body, validate=True).decode().isprintable()
    except (binascii.Error, UnicodeDecodeError):
        return False
