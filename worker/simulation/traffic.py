"""When which number is asked for."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from worker.portability.requests import Lane
from worker.simulation.scenario import LanePlan, Scenario


@dataclass(slots=True, eq=False)
class Message:
    """What the queue carries: one item, or many."""

    # seconds since the beginning
    sent_at: float
    items: list[Item] = field(default_factory=list)
    # items that are not decided
    left: int = 0


@dataclass(slots=True, eq=False)
class Item:
    """A request, as far as its way depends on it. The batcher asks for its ``msisdn`` alone."""

    message: Message
    # the number's rank, from 1: the first is asked for most
    msisdn: int
    # a stored answer does not count for it
    asked_anew: bool
    # seconds since the beginning
    received_at: float = 0.0
    # when the call it waited for was sent, or its receipt if that was earlier; None: it waited for none
    shares_from: float | None = None


def arrivals(scenario: Scenario, lane: Lane) -> Iterator[Message]:
    """A lane's messages in the order they are sent: the backlog, then what comes."""
    plan = scenario.lanes[lane]
    dice = random.Random(f"{scenario.seed} {lane}")  # noqa: S311 - no secret
    numbers = _numbers(scenario, lane, dice)
    for moment in _moments(plan, scenario.seconds, dice):
        message = Message(moment, left=plan.many)
        message.items = [
            Item(message, number, _place(number) < plan.asked_anew)
            for number in itertools.islice(numbers, plan.many)
        ]
        yield message


def _moments(plan: LanePlan, seconds: float, dice: random.Random) -> Iterator[float]:
    yield from itertools.repeat(0.0, math.ceil(plan.backlog / plan.many))
    if not plan.rate:
        return
    rate, moment = plan.rate / plan.many, 0.0
    while (moment := moment + dice.expovariate(rate)) < seconds:
        yield moment


def _numbers(scenario: Scenario, lane: Lane, dice: random.Random) -> Iterator[int]:
    if not scenario.numbers:  # no two lanes ask for the same number either
        return itertools.count(1 + list(Lane).index(lane), len(Lane))
    if not scenario.zipf:
        return (dice.randint(1, scenario.numbers) for _ in itertools.count())
    return _zipf(scenario.numbers, scenario.zipf, dice)


def _zipf(count: int, exponent: float, dice: random.Random) -> Iterator[int]:
    """Ranks of Zipf's law, by rejection-inversion: no table, however many numbers there are.

    Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
    1996: under the curve x**-exponent a point is drawn, and kept where it lies within its rank's bar.
    """
    one = abs(1.0 - exponent) < 1e-9

    def area(x: float) -> float:
        return math.log(x) if one else (x ** (1.0 - exponent) - 1.0) / (1.0 - exponent)

    def position(area: float) -> float:
        return math.exp(area) if one else (1.0 + area * (1.0 - exponent)) ** (1.0 / (1.0 - exponent))

    first, last = area(1.5) - 1.0, area(count + 0.5)
    while True:
        drawn = first + dice.random() * (last - first)
        rank = min(count, max(1, round(position(drawn))))
        if drawn >= area(rank + 0.5) - rank**-exponent:
            yield rank


def _place(number: int) -> float:
    """A number's place between 0 and 1, always the same (Knuth's multiplicative hash)."""
    return (number * 2_654_435_761 & 0xFFFF_FFFF) / 2**32
