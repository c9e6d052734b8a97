"""The front door: each call is reserved, asked, charged and answered, in that order.

Only answers with code 0 are charged. An answer leaves after its charge is committed; past the deadline the
caller is told -8, and whatever was or will be charged for it is given back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from worker.carrier.protocol import Answer, Balance, Unanswered
from worker.carrier.server import Question, Reply
from worker.carrier.wire.codes import Code, refusal
from worker.portability.records import CheckedRequest, Status
from worker.portability.requests import CheckRequest, Lane
from worker.serve.desk import Desk
from worker.serve.direct_lane import DirectLane, Rows
from worker.storage import accounts
from worker.storage.ids import new_id

_CODES = {Status.UNKNOWN: Code.NOT_FOUND, Status.INVALID: Code.NOT_A_MOBILE}
_FOR_THE_LANE = 0.95
"""The share of the deadline after which a number is decided unanswered: the others' answers still get out."""
_OLDEST_SECONDS = 10 * 365 * 86400.0


class FrontDoor:
    """Answers calls over the accounts' desk and the direct lane."""

    def __init__(
        self, desk: Desk, lane: DirectLane, *, deadline_seconds: float, max_age_seconds: float
    ) -> None:
        self._desk = desk
        self._lane = lane
        self._deadline_seconds = deadline_seconds
        self._max_age_seconds = max_age_seconds

    async def lookup(self, question: Question) -> Reply:
        """Answer one call, or raise its refusal; ``TimeoutError`` past the deadline."""
        return await self.answer(accounts.key_hash(question.apikey), question)

    async def answer(self, caller: str, question: Question) -> Reply:
        """Answer one call of the account with this key's hash, or this id."""
        request_id, received_at = new_id(), datetime.now(UTC)
        max_age = self._accepted_age(question.max_age)
        async with asyncio.timeout(self._deadline_seconds):
            account = await self._desk.open(request_id, caller, len(question.mobiles))
            if not question.mobiles:
                return Reply()
            try:
                requests = self._requests(question, account.account_id, request_id, received_at, max_age)
                rows = await self._lane.ask(requests, seconds=self._deadline_seconds * _FOR_THE_LANE)
            except BaseException:
                self._desk.release(request_id)
                raise
            entries = list(map(_entry, question.mobiles, rows))
            charge = sum(entry.code == Code.SUCCESS for entry in entries)
            headers = _headers(question, request_id, rows, charge)
            if not charge:
                self._desk.release(request_id)
                return Reply(entries, headers)
            if not await self._desk.charge(request_id, charge):
                raise refusal(Code.SYSTEM_ERROR)  # its time was up, and its reservation released
            return Reply(entries, headers, sent=lambda: self._desk.sent(request_id))

    async def balance(self, apikey: str) -> Balance:
        """Return what a key's account has left."""
        async with asyncio.timeout(self._deadline_seconds):
            return await self._desk.balance(apikey)

    def _accepted_age(self, said: str | None) -> float | None:
        """How old an answer may be, in seconds; None: live. What is no such number is refused with 1."""
        if said is None:
            return self._max_age_seconds or None
        try:
            seconds = float(said)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise refusal(Code.BAD_PARAMETER)
        return min(seconds, _OLDEST_SECONDS) or None

    def _requests(
        self,
        question: Question,
        account_id: str,
        request_id: str,
        received_at: datetime,
        max_age: float | None,
    ) -> list[CheckRequest]:
        expires_at = received_at + timedelta(seconds=self._deadline_seconds * _FOR_THE_LANE)
        return [
            CheckRequest(
                lane=Lane.DIRECT,
                source=account_id,
                # a number of a batch is told from the others by its place
                reference=f"{request_id}:{place}" if question.batch else request_id,
                msisdn=mobile,
                received_at=received_at,
                expires_at=expires_at,
                max_age_seconds=max_age,
            )
            for place, mobile in enumerate(question.mobiles)
        ]


def _entry(mobile: str, row: CheckedRequest | None) -> Answer | Unanswered:
    if row is None or row.status is None:
        return Unanswered(mobile, Code.SYSTEM_ERROR, "given up" if row is None else row.reason)
    code = _CODES.get(row.status, Code.SUCCESS)
    if code is not Code.SUCCESS:
        return Answer(mobile, code, row.status)
    return Answer(mobile, code, row.status, row.range_holder, row.current_operator, row.area)


def _headers(question: Question, request_id: str, rows: Rows, charge: int) -> dict[str, str]:
    """Where the answers came from, how old the oldest is, and what they cost."""
    headers = {"Presend-Request-Id": request_id, "Presend-Cost": str(charge)}
    answered = [row for row in rows if row is not None and row.status is not None]
    origins = Counter(row.answered_from.value for row in answered if row.answered_from is not None)
    each = [f"{name}={number}" if question.batch else name for name, number in sorted(origins.items())]
    headers["Presend-Answered-From"] = ", ".join(each) or "none"
    observed: Sequence[datetime] = [row.observed_at for row in answered if row.observed_at is not None]
    if observed:
        headers["Presend-Age"] = f"{max(0.0, (datetime.now(UTC) - min(observed)).total_seconds()):.3f}"
    return headers
