"""Balance and statement of an account."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from worker.serve.jobs.results import guarded
from worker.storage import accounts, engine, jobs
from worker.storage.accounts import Moved, Movement
from worker.web.site import Site
from worker.web.visit import Visit

if TYPE_CHECKING:
    from sqlalchemy import Connection

_A_PAGE = 50
_A_BLOCK = 1000
_COLUMNS = ("at", "kind", "amount", "balance", "request_id", "note")


class Statements:
    """The page of what an account has, and how that came."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._zone = ZoneInfo(site.timezone)

    def routes(self) -> list[Route]:
        """The page, and the statement as a file."""
        return [
            self._site.page("/account", self._page),
            self._site.page("/account/statement.csv", self._statement),
        ]

    def _page(self, visit: Visit) -> Response:
        given = visit.query("before")
        before = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
        account_id = visit.principal.id
        moved = visit.read(
            partial(accounts.newest_movements, account_id=account_id, most=_A_PAGE + 1, before=before)
        )
        more = moved[_A_PAGE - 1].number if len(moved) > _A_PAGE else None
        account = visit.read(partial(accounts.of_id, account_id=account_id))
        return visit.render(
            "account.html",
            account=account,
            moved=moved[:_A_PAGE],
            lists=visit.read(partial(_lists, account_id=account_id, moved=moved)),
            note_of=note_of,
            more=more,
            newer=before is not None,
        )

    def _statement(self, visit: Visit) -> Response:
        return StreamingResponse(
            self._lines(visit),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="presend-statement.csv"'},
        )

    def _lines(self, visit: Visit) -> Iterator[str]:
        yield "\ufeff" + _text([[visit.say(f"csv.{name}") for name in _COLUMNS]])
        after, account_id = 0, visit.principal.id
        while block := engine.read(
            self._site.database,
            partial(accounts.movements, account_id=account_id, after=after, most=_A_BLOCK),
        ):
            lists = engine.read(self._site.database, partial(_lists, account_id=account_id, moved=block))
            yield _text(
                [
                    one.at.astimezone(self._zone).isoformat(timespec="seconds"),
                    visit.say(f"csv.moved.{one.name}"),
                    one.amount,
                    one.balance,
                    one.request_id or "",
                    guarded(lists.get(one.job_id or "") or note_of(one)),
                ]
                for one in block
            )
            after = block[-1].number


def _lists(connection: Connection, account_id: str, moved: Sequence[Moved]) -> dict[str, str]:
    """The names of the lists that charges were for, by their jobs' ids."""
    job_ids = {one.job_id for one in moved if one.job_id is not None}
    return jobs.names(connection, account_id, job_ids) if job_ids else {}


def note_of(moved: Moved) -> str:
    """What a top-up's note says to the account's owner; who wrote it is no concern of theirs."""
    return moved.note.partition(": ")[2] if moved.kind is Movement.TOPUP else ""


def _text(rows: object) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()
