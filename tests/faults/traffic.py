"""What is sent in a fault test: an endless stream of messages, the same for the same seed.

The numbers are dealt out so that the bill is exact without faults: a *common* number is shared by requests
that any record may answer, so it is bought once for all of them; an *own* number is one request's alone,
and that request asks whatever is stored. Both kinds come again under the same key, too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from tests.acceptance.oracle import FAILURES, NOT_ASKED, Expected, expected
from tests.acceptance.traffic import LONG_AGO, Key, Numbers
from worker.sandbox.subscribers import subscriber

SETTINGS = {
    # a common number's record answers for the whole of a long run
    "recharge_max_age_seconds": "86400",
    "sms_max_age_seconds": "86400",
}
"""What presend must be told for the bill to be exact."""

_KNOWN = ("not_ported", "not_ported", "ported", "virtual", "invalid")
_LARGEST_MANY = 16
_SHARE_OF_MANY = 0.02
_REMEMBERED = 500
_LANES = {
    "recharge": ("recharge.precheck", "order_id"),
    "sms": ("sms.recheck", "message_id"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One request as sent; ``key`` is None where it has to become a dead letter."""

    lane: str
    tag: str
    arguments: dict[str, Any]
    key: Key | None = None
    number: str | None = None
    answer: Expected | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One queue message."""

    index: int
    task: str
    arguments: dict[str, Any]
    items: list[Item]
    wants_result: bool


@dataclass
class Plan:
    """The first messages of a stream, and all that must be true of them in the end."""

    messages: list[Message]
    # what each key must be decided as, where it is answered
    answers: dict[Key, Expected] = field(default_factory=dict)
    numbers: dict[Key, str] = field(default_factory=dict)
    # every item's tag -> its key, None where it is to be a dead letter
    tags: dict[str, Key | None] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, messages: int) -> Plan:
        plan = cls(list(islice(stream(seed), messages)))
        for message in plan.messages:
            for item in message.items:
                plan.tags[item.tag] = item.key
                if item.key is not None and item.answer is not None:
                    plan.answers[item.key] = item.answer
                    if item.number is not None:
                        plan.numbers[item.key] = item.number
        return plan


def stream(seed: int) -> Iterator[Message]:
    """Messages without end; both lanes, single and many, first ones and repeats, good ones and bad."""
    dealer = _Dealer(seed)
    chance = dealer.chance
    for index in count():
        lane = chance.choice(("recharge", "sms"))
        task, _ = _LANES[lane]
        wants_result = chance.random() < 0.1
        if chance.random() < _SHARE_OF_MANY:
            items = [dealer.item(lane) for _ in range(chance.randint(2, _LARGEST_MANY))]
            arguments: dict[str, Any] = {"items": [item.arguments for item in items]}
            yield Message(index, f"{task}_many", arguments, items, wants_result)
        else:
            item = dealer.item(lane)
            yield Message(index, task, item.arguments, [item], wants_result)


class _Dealer:
    """Deals out items and their numbers."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._seed = seed
        self._numbers = Numbers(self.chance)
        self._common: list[str] = []
        self._sequence = count(1)
        self._recent = {lane: deque[Item](maxlen=_REMEMBERED) for lane in _LANES}

    def item(self, lane: str) -> Item:
        """The next item of a lane."""
        kind = self.chance.choices(("common", "own", "again", "not asked", "bad"), (50, 30, 12, 5, 3))[0]
        if kind == "again" and self._recent[lane]:
            return self._again(lane)
        item = self._bad(lane) if kind == "bad" else self._good(lane, kind)
        if item.key is not None:
            self._recent[lane].append(item)
        return item

    def _good(self, lane: str, kind: str) -> Item:
        operator: str | None = self.chance.choice(("CMCC", "CUCC", "CTCC", "CBN"))
        arguments: dict[str, Any] = {}
        failure_class = "none"
        if kind == "own":
            number = self._numbers.take(*_KNOWN)
            # a second try asks anew; so does an sms that failed after whatever is stored was observed
            attempt = 2 if lane == "recharge" else 1
        elif kind == "not asked" and lane == "sms":
            number, attempt = self._numbers.take(*_KNOWN), 1
            code, channel, failure_class = self.chance.choice(NOT_ASKED)
            operator = channel or operator
            arguments["failure_code"] = code
        else:
            number, attempt = self._common_number(), 1
            if lane == "sms":
                code_, channel, failure_class = self.chance.choice(FAILURES)
                operator = channel or operator
                attempt = self.chance.choice((1, 1, 1, 2, 4))
                arguments |= {"failure_code": code_, "failed_at": LONG_AGO}
        if attempt != 1:
            arguments["attempt"] = attempt
        reference = f"f{self._seed}-{next(self._sequence)}"
        key = Key(lane, self.chance.choice(("", "shop1", "shop2")), reference, attempt)
        if key.source:
            arguments["source"] = key.source
        arguments |= {_LANES[lane][1]: reference, "mobile": number, "operator": operator}
        answer = expected(lane, number, operator, failure_class=failure_class, attempt=attempt)
        return self._tagged(lane, arguments, key, number, answer)

    def _again(self, lane: str) -> Item:
        """A recent request once more, under the same key."""
        item = self.chance.choice(self._recent[lane])
        return self._tagged(lane, item.arguments, item.key, item.number, item.answer)

    def _bad(self, lane: str) -> Item:
        reference = f"f{self._seed}-bad{next(self._sequence)}"
        arguments = {
            _LANES[lane][1]: reference,
            "mobile": self._numbers.take("not_ported"),
            "operator": "CMCC",
        }
        name, value = self.chance.choice(
            [("mobile", ""), ("operator", "Vodafone"), ("attempt", 0), ("colour", "red")]
        )
        return self._tagged(lane, arguments | {name: value}, None, None, None)

    def _common_number(self) -> str:
        """A number that others ask for as well: a few very often, most seldom."""
        if not self._common or self.chance.random() < 0.45:
            self._common.append(self._numbers.take(*_KNOWN))
            return self._common[-1]
        return self._common[int(len(self._common) * self.chance.random() ** 3)]

    def _tagged(
        self,
        lane: str,
        arguments: dict[str, Any],
        key: Key | None,
        number: str | None,
        answer: Expected | None,
    ) -> Item:
        tag = f"t{next(self._sequence)}"
        return Item(lane, tag, arguments | {"x_tag": tag}, key, number, answer)


def is_billed(number: str) -> bool:
    """Whether the sandbox charges for this number's answer."""
    return subscriber(number).code in {0, -4}
