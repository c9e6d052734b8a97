"""What a replay would buy: each letter is read as the worker will read it, and held to what is stored now.

A price is the most that can be bought if every call is answered: a request costs nothing if its key was
decided, a rule decides it unasked, or its number has a record that is fresh enough; every other one costs a
look-up. Requests for the same number may share one, so it may come to less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from worker.errors import Rejected
from worker.intake import Intake, Taken
from worker.portability.records import NoAnswer
from worker.portability.requests import CheckRequest, Lane
from worker.portability.rules import Rules
from worker.queues import TASKS
from worker.storage import ledger, port_records
from worker.storage.dead_letters import DeadLetter

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Price:
    """What becomes of one letter's requests."""

    # numbers to buy, one a request
    to_buy: Sequence[str] = ()
    # requests with an answer in the ledger: it is sent again
    decided: int = 0
    # requests that a rule or a stored record answers
    unasked: int = 0
    # requests still wrong: they come back as new letters
    wrong: int = 0

    @property
    def look_ups(self) -> int:
        """The most that are bought."""
        return len(self.to_buy)


@dataclass(frozen=True, slots=True)
class Pricing:
    """Prices letters by an installation's rules."""

    rules: Rules
    intake: Mapping[Lane, Intake]

    def of(self, connection: Connection, letters: Sequence[DeadLetter], *, now: datetime) -> list[Price]:
        """Return each letter's price; one that cannot be sent costs nothing."""
        taken = [self._taken(letter, now) for letter in letters]
        requests = [each.request for items in taken for each in items if each.request is not None]
        decided = ledger.find(connection, {request.key for request in requests})
        records = port_records.read(connection, {each.msisdn for each in requests if each.msisdn is not None})
        seen: set[object] = set()

        def add(price: _Sum, request: CheckRequest) -> None:
            row = decided.get(request.key)
            if row is not None:
                if request.same_question(row.msisdn, row.asked_operator):
                    price.decided += 1
                else:
                    price.wrong += 1
            elif request.key in seen:
                price.decided += 1
            else:
                seen.add(request.key)
                record = None if request.msisdn is None else records.get(request.msisdn)
                found = self.rules.finding(request, record, now=now)
                if found is None or isinstance(found, NoAnswer):
                    price.to_buy.append(request.msisdn or "")
                else:
                    price.unasked += 1

        prices = []
        for items in taken:
            price = _Sum(wrong=sum(each.request is None for each in items))
            for each in items:
                if each.request is not None:
                    add(price, each.request)
            prices.append(Price(tuple(price.to_buy), price.decided, price.unasked, price.wrong))
        return prices

    def _taken(self, letter: DeadLetter, now: datetime) -> list[Taken]:
        task = TASKS.get(str(letter.task))
        if task is None or not isinstance(letter.payload, Mapping):
            return []
        reader = self.intake[task.lane]
        try:
            if not task.many:
                return [reader.take_one(letter.payload, now=now)]
            items = letter.payload.get("items")
            if isinstance(items, list):  # a replay splits a message of too many
                return [reader.take_one(item, now=now) for item in items]
            return reader.take_many(letter.payload, now=now)
        except Rejected as exc:
            return [Taken(letter.payload, reason=exc.reason)]


@dataclass
class _Sum:
    wrong: int = 0
    decided: int = 0
    unasked: int = 0
    to_buy: list[str] = field(default_factory=list)
