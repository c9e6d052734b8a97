"""One number, looked up as ``/carrier`` does it: the same account, price, limits and deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.routing import Route

from worker.carrier.protocol import Answer
from worker.carrier.server import Question, RateLimited, Reply
from worker.carrier.wire.codes import Code
from worker.errors import CarrierError, StorageUnavailable
from worker.serve.front_door import FrontDoor
from worker.serve.jobs import lists
from worker.storage import accounts, jobs
from worker.storage.accounts import Account
from worker.web.site import Site
from worker.web.visit import Visit

_RECENT = 5
_TOLD = {Code.UNKNOWN_KEY, Code.LOW_BALANCE, Code.DISABLED, Code.SYSTEM_ERROR}
_FIELD_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of a look-up, for the page."""

    mobile: str = ""
    answer: Answer | None = None
    # live, stored or shared; none
    answered_from: str = ""
    cost: int = 0
    # a sentence, where there is no answer
    problem: str = ""


async def _in_the_loop(sent: Callable[[], None]) -> None:
    sent()


class LookUps:
    """The first page: one number, and where a list is given."""

    def __init__(self, site: Site, door: FrontDoor) -> None:
        self._site = site
        self._door = door

    def routes(self) -> list[Route]:
        """The first page and its form."""
        return [self._site.page("/", self._page), self._site.action("/look-up", self._look_up)]

    def _page(self, visit: Visit) -> Response:
        return self._shown(visit, None)

    async def _look_up(self, visit: Visit) -> Response:
        typed = visit.form("mobile")[:_FIELD_LENGTH]
        mobile, wrong = lists.number_in(typed)
        reply: Reply | None = None
        if mobile is None:
            shown = Shown(typed, problem=visit.say(f"wrong.{wrong}"))
        else:
            shown, reply = await self._asked(visit, mobile)
        response = await self._site.in_thread(partial(self._shown, visit, shown))
        if reply is not None and reply.sent is not None:
            response.background = BackgroundTask(_in_the_loop, reply.sent)
        return response

    async def _asked(self, visit: Visit, mobile: str) -> tuple[Shown, Reply | None]:
        account: Account = visit.principal
        try:
            reply = await self._door.answer(account.id, Question("", (mobile,), batch=False))
        except RateLimited as exc:
            return Shown(mobile, problem=visit.say("look_up.rate_limited", seconds=exc.retry_after)), None
        except (CarrierError, StorageUnavailable, TimeoutError) as exc:
            code = getattr(exc, "code", None)
            told = code if code in _TOLD else Code.SYSTEM_ERROR
            return Shown(mobile, problem=visit.say(f"look_up.code_{-int(told)}")), None
        (entry,) = reply.entries
        if not isinstance(entry, Answer):
            return Shown(mobile, problem=visit.say(f"look_up.code_{-int(Code.SYSTEM_ERROR)}")), reply
        cost = int(reply.headers.get("Presend-Cost", "0"))
        return Shown(mobile, entry, reply.headers.get("Presend-Answered-From", ""), cost), reply

    def _shown(self, visit: Visit, shown: Shown | None) -> Response:
        """The whole page, or the answer alone where htmx asks."""
        account = visit.read(partial(accounts.of_id, account_id=visit.principal.id))
        if visit.by_htmx and shown is not None:
            return visit.render("_answer.html", shown=shown, account=account)
        recent = visit.read(partial(jobs.newest, account_id=visit.principal.id, most=_RECENT))
        return visit.render(
            "home.html",
            shown=shown,
            account=account,
            recent=recent,
            refused=None,
            most_bytes=lists.MOST_BYTES,
        )
