"""The desk: opens and settles the callers' accounts, many calls in one transaction.

An account's row is locked by each change, so calls of one account one by one would cost a commit each; those
that come while a transaction runs are the next one together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from worker import logs
from worker.carrier.protocol import Balance
from worker.carrier.server import RateLimited
from worker.carrier.wire.codes import Code, refusal
from worker.serve.gathering import Gathering
from worker.storage import accounts, engine, holds
from worker.storage.holds import Opened, Opening, Refused
from worker.storage.ids import new_id
from worker.storage.statements import COMMIT, Statement, together

if TYPE_CHECKING:
    from sqlalchemy import Engine

T = TypeVar("T")

log = logs.get(__name__)

_CODES = {
    Refused.UNKNOWN_KEY: Code.UNKNOWN_KEY,
    Refused.DISABLED: Code.DISABLED,
    Refused.LOW_BALANCE: Code.LOW_BALANCE,
}
_MARGIN_SECONDS = 30.0
"""A hold stands so long past its call's deadline: a server that lives settles before."""

_Opening = Opened | Refused | holds.RateLimited


class Desk:
    """The callers' accounts, for one event loop. Every failure of Postgres is ``StorageUnavailable``."""

    def __init__(self, database: Engine, *, deadline_seconds: float) -> None:
        self._database = database
        self._hold_seconds = deadline_seconds + _MARGIN_SECONDS
        self._giving_up = Event()
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="desk")
        self._opening: Gathering[Opening, _Opening] = Gathering(self._open, self._pool)
        self._settling: Gathering[tuple[str, int], bool] = Gathering(self._settle, self._pool)
        self._sent: Gathering[str, None] = Gathering(partial(self._drop, holds.sent), self._pool)
        self._refunds: Gathering[str, None] = Gathering(partial(self._drop, holds.refunding), self._pool)

    async def open(self, request_id: str, caller: str, numbers: int) -> Opened:
        """Reserve a call's look-ups; raises -1, -6, -5, or ``RateLimited``. No number: the key is checked.

        ``caller`` is the hash of a key, or an account's id. One that is gone by then leaves nothing reserved.
        """
        opening = self._opening.ask(Opening(request_id, caller, numbers))
        try:
            result = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: self.release(request_id))
            raise
        if isinstance(result, Opened):
            return result
        if isinstance(result, holds.RateLimited):
            raise RateLimited(result.calls_a_minute, result.retry_after_seconds)
        raise refusal(_CODES[result])

    async def balance(self, apikey: str) -> Balance:
        """Return what a key's account has left, less what calls in progress have reserved."""
        opened = await self.open(new_id(), accounts.key_hash(apikey), 0)
        return Balance(opened.fee_type, opened.available)

    async def charge(self, request_id: str, numbers: int) -> bool:
        """Charge a call; return whether its answer may be sent.

        For a caller that is gone by then the charge is given back.
        """
        settling = self._settling.ask((request_id, numbers))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            settling.add_done_callback(lambda _: self._refunds.ask(request_id))
            raise

    def release(self, request_id: str) -> None:
        """Give back what a call reserved; nobody waits for it."""
        self._settling.ask((request_id, 0))

    def sent(self, request_id: str) -> None:
        """Take note that a charged answer has left."""
        self._sent.ask(request_id)

    async def close(self) -> None:
        """Finish what was begun."""
        self._giving_up.set()  # Postgres that is away is not waited for: upkeep releases what is left
        for each in (self._opening, self._settling, self._refunds, self._sent):
            await each.drain()
        self._pool.shutdown()

    def _open(self, calls: Sequence[Opening]) -> Sequence[_Opening]:
        return engine.transact(
            self._database,
            lambda to: holds.open_calls(to, calls, hold_seconds=self._hold_seconds, ends=True),
        )

    def _settle(self, charges: Sequence[tuple[str, int]]) -> Sequence[bool]:
        may_be_sent = self._until_done(holds.settling(dict(charges)))
        missing = {call: charge for call, charge in charges if call not in may_be_sent}
        if missing:  # or charged by a run whose reply was lost, and which ended while this one waited for it
            again = self._until_done(holds.settling(missing))
            may_be_sent |= again
        return [request_id in may_be_sent for request_id, _ in charges]

    def _drop(
        self, how: Callable[[Sequence[str]], Statement[None]], request_ids: Sequence[str]
    ) -> Sequence[None]:
        self._until_done(how(request_ids))
        return [None] * len(request_ids)

    def _until_done(self, statement: Statement[T]) -> T:
        result, _ = engine.transact_until_done(
            self._database, lambda to: together(to, statement, COMMIT), giving_up=self._giving_up
        )
        return result
