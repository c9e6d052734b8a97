"""The traffic of one day in both lanes, squeezed to whatever time the demo has; the same seed, the same day.

From the provider's document: above 80 % of the queries come before a recharge, the rest after a failed
SMS; callers label a number with the operator of its range, which 6.53 % of the numbers have left. Number
ranges and failure codes are real. What nobody publishes is assumed, and stated as a constant: how often a
number comes again, why messages fail, how busy an hour is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any

from worker.demo import blunders, population
from worker.demo.failures import Failures
from worker.demo.population import DOCUMENT_NUMBERS
from worker.portability.requests import Lane
from worker.sandbox.subscribers import subscriber

RECHARGE_SHARE = 0.81
"""Of all items; the document: above 80 %."""
RECHARGES_IN_BULK = 0.10
"""Recharges that come in a reseller's ``precheck_many``; each other one is a message of its own."""
SMS_IN_BULK = 0.65
"""Failed messages that a gateway reports as ``recheck_many``."""
REPEATED_KEYS = 0.01
"""Messages that are sent twice: a producer that did not see its first try succeed."""
BAD_NUMBERS = 0.015
"""Numbers nobody was given, or with a digit too few."""
WATCHED = 0.15
"""Single prechecks whose answer is waited for, as a shopper does."""

SUBSCRIBERS = 20_000
ZIPF_EXPONENT = {Lane.RECHARGE: 0.75, Lane.SMS: 1.0}
"""The k-th busiest number comes with weight k to the power of minus this; failed SMS come back more often."""

_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 9, 9, 8, 7, 7, 7, 7, 8, 9, 10, 9, 8, 6, 4)
"""How busy each hour is."""


@dataclass(frozen=True, slots=True)
class Message:
    """One queue message."""

    # when it is sent, as a share of the day: 0 to 1
    at: float
    task: str
    arguments: Mapping[str, Any]
    # whether somebody waits for its answer
    watched: bool = False
    # how many of its items, the last ones, must become dead letters
    bad: int = 0

    @property
    def items(self) -> list[Mapping[str, Any]]:
        """The requests in it."""
        many: list[Mapping[str, Any]] | None = self.arguments.get("items")
        return [self.arguments] if many is None else many

    @property
    def good_items(self) -> list[Mapping[str, Any]]:
        """Those that can be taken."""
        return self.items[: len(self.items) - self.bad]


@dataclass(frozen=True, slots=True)
class Port:
    """A number that moves to another operator while the day runs."""

    msisdn: str
    donor: str
    recipient: str
    # share of the day
    at: float


@dataclass(frozen=True)
class Day:
    """What is sent in a day."""

    # one for each lane to begin with: whoever waits for both knows that the workers are up
    opening: tuple[Message, ...]
    # in the order of their times
    messages: tuple[Message, ...]
    port: Port

    @cached_property
    def items(self) -> int:
        """Requests in all messages, each repetition counted."""
        return sum(len(message.items) for message in (*self.opening, *self.messages))

    @cached_property
    def bad(self) -> int:
        """Items that must become dead letters."""
        return sum(message.bad for message in self.messages)


def day(seed: int, items: int) -> Day:
    """Make a day of about so many requests (at least 200)."""
    maker = _Maker(Random(seed), seed)  # noqa: S311 - a simulation
    recharges = round(items * RECHARGE_SHARE)
    port = maker.port()
    messages = [
        *maker.recharges(recharges),
        *maker.failed_messages(items - recharges),
        *maker.port_story(port),
        *maker.blunders(),
    ]
    messages += maker.sent_again(messages, round(items * REPEATED_KEYS))
    return Day(tuple(maker.opening()), tuple(sorted(messages, key=lambda message: message.at)), port)


class _Maker:
    """Draws a day's messages; every draw comes from one generator, in one order."""

    def __init__(self, random: Random, seed: int) -> None:
        self._random, self._seed = random, seed
        self._orders, self._texts = 0, 0
        self._ends = {
            lane: list(accumulate((rank + 10) ** -exponent for rank in range(SUBSCRIBERS)))
            for lane, exponent in ZIPF_EXPONENT.items()
        }
        self._hour_ends = list(accumulate(_HOURS))
        self._failures = Failures()

    def opening(self) -> Iterator[Message]:
        """The document's own numbers, and the first of them after an SMS to it failed."""
        for number, msisdn in enumerate(DOCUMENT_NUMBERS, 1):
            arguments = {"order_id": f"document-{number}", "mobile": msisdn, "operator": _label(msisdn)}
            yield Message(0.0, "recharge.precheck", arguments, watched=True)
        arguments = {"message_id": "document-1", "mobile": DOCUMENT_NUMBERS[0], "operator": "CMCC"}
        yield Message(0.0, "sms.recheck", arguments | {"failure_code": "MK:0001"}, watched=True)

    def recharges(self, items: int) -> Iterator[Message]:
        """Prechecks, most of them single."""
        in_bulk = round(items * RECHARGES_IN_BULK)
        for _ in range(items - in_bulk):
            watched = self._random.random() < WATCHED
            yield Message(self._moment(), "recharge.precheck", self._recharge(), watched)
        for size in self._sizes(in_bulk, 15, 60):
            yield Message(
                self._moment(), "recharge.precheck_many", {"items": [self._recharge() for _ in range(size)]}
            )

    def failed_messages(self, items: int) -> Iterator[Message]:
        """Rechecks of failed SMS."""
        in_bulk = round(items * SMS_IN_BULK)
        for _ in range(items - in_bulk):
            yield Message(self._moment(), "sms.recheck", self._failed_message())
        for size in self._sizes(in_bulk, 10, 80):
            yield Message(
                self._moment(), "sms.recheck_many", {"items": [self._failed_message() for _ in range(size)]}
            )

    def port(self) -> Port:
        """A number that has stayed with its operator until now, and moves at noon."""
        msisdn = population.not_ported(self._random)
        donor = subscriber(msisdn).range_holder or ""
        return Port(msisdn, donor, "CTCC" if donor != "CTCC" else "CUCC", at=0.5)

    @staticmethod
    def port_story(port: Port) -> Iterator[Message]:
        """A recharge before the port; then a failed SMS and a recharge that still name the old operator."""
        told = {"mobile": port.msisdn, "operator": port.donor}
        yield Message(0.3, "recharge.precheck", told | {"order_id": "port-1"})
        yield Message(0.6, "sms.recheck", told | {"message_id": "port-2", "failure_code": "MK:0001"})
        yield Message(0.7, "recharge.precheck", told | {"order_id": "port-3"})

    def blunders(self) -> Iterator[Message]:
        """Bad messages, and a good one that the conflict needs."""
        one, other, *more = (population.not_ported(self._random) for _ in range(12))
        for index, (task, arguments) in enumerate(blunders.bad_items(one)):
            yield Message(0.2 + index / 10, task, arguments, bad=1)
        task, arguments = blunders.bulk_with_a_bad_item(more, bad=one)
        yield Message(0.4, task, arguments, bad=1)
        for index, (task, arguments) in enumerate(blunders.conflict((one, other))):
            yield Message(0.3 + index / 4, task, arguments, bad=index)

    def sent_again(self, messages: list[Message], times: int) -> list[Message]:
        """Repetitions of single messages, a little later."""
        single = [one for one in messages if "items" not in one.arguments and not one.bad]
        again = self._random.sample(single, times)
        return [Message(min(1.0, one.at + 0.02), one.task, one.arguments) for one in again]

    def _recharge(self) -> dict[str, Any]:
        self._orders += 1
        mobile = self._mobile(Lane.RECHARGE)
        arguments: dict[str, Any] = {"order_id": f"order-{self._orders}", "mobile": mobile}
        if self._random.random() < 0.02:
            arguments["attempt"] = 2
        if self._random.random() >= 0.04:
            arguments["operator"] = _label(mobile)
        return arguments

    def _failed_message(self) -> dict[str, Any]:
        self._texts += 1
        failure_class, ported = self._failures.draw(self._random)
        mobile = population.ported(self._random) if ported else self._mobile(Lane.SMS)
        channel = _label(mobile)
        arguments: dict[str, Any] = {
            "message_id": f"sms-{self._texts}",
            "mobile": mobile,
            "operator": channel,
            "failure_code": self._failures.code(failure_class, channel, self._random),
        }
        attempt = self._random.choices((1, 2, 4), weights=(94, 5, 1))[0]
        return arguments if attempt == 1 else arguments | {"attempt": attempt}

    def _mobile(self, lane: Lane) -> str:
        if self._random.random() < BAD_NUMBERS:
            return population.bad(self._random)
        (rank,) = self._random.choices(range(SUBSCRIBERS), cum_weights=self._ends[lane])
        return population.of_rank(self._seed, rank)

    def _moment(self) -> float:
        (hour,) = self._random.choices(range(24), cum_weights=self._hour_ends)
        return (hour + self._random.random()) / 24

    def _sizes(self, total: int, smallest: int, largest: int) -> Iterator[int]:
        yield total // 3  # a campaign
        total -= total // 3
        while total > 0:
            size = min(total, self._random.randint(smallest, largest))
            yield size
            total -= size


def _label(msisdn: str) -> str:
    """The operator a caller takes the number for: its range's."""
    return subscriber(msisdn).range_holder or "CMCC"
