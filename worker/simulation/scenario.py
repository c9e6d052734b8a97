"""What is simulated: traffic, settings, the provider, and what work costs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.carrier.protocol import MAX_BATCH
from worker.portability.requests import Lane


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the provider takes, straight between one number and 1000; the defaults are its document's."""

    single_seconds: float = 0.1
    batch_seconds: float = 1.5
    # of the logarithm: 0 is always the same; with 0.5 one call in a hundred takes three times the median
    sigma: float = 0.0

    def of(self, numbers: int, dice: random.Random) -> float:
        """Seconds for one call."""
        share = min(numbers - 1, MAX_BATCH - 1) / (MAX_BATCH - 1)
        seconds = self.single_seconds + share * (self.batch_seconds - self.single_seconds)
        return seconds * dice.lognormvariate(0.0, self.sigma) if self.sigma else seconds


@dataclass(frozen=True, slots=True)
class Costs:
    """What a worker's work costs, in seconds; docs/scale.md says where the figures are from.

    The first three are work on the process's core, the last three are waits for others.
    """

    # the consumer's thread, for a message: receive, read, report to Flower, acknowledge
    message: float = 75e-6
    # a batch's thread, for an item: SQL, decide, event, result
    item: float = 27e-6
    # a batch's thread, for a batch
    batch: float = 5.7e-3
    # from the producer's hand to the consumer's
    delivery: float = 1.9e-3
    # for Postgres and the broker's confirms: for a batch, and for each of its items
    batch_wait: float = 0.5e-3
    item_wait: float = 110e-6


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One lane: what comes, and how it is set up."""

    # items a second, at random moments
    rate: float = 0.0
    # items that wait in the queue when it begins
    backlog: int = 0
    # items a message carries
    many: int = 1
    # processes
    workers: int = 1
    slots: int = 8
    linger_seconds: float = 0.0
    max_age_seconds: float = 0.0
    # share of the numbers whose stored answer does not count: an sms failed on the very operator it names
    asked_anew: float = 0.0
    # seconds after which an item is decided without an answer; None: never
    expiry_seconds: float | None = None
    # how long an item waits for another call for its number before it buys itself; None: as long as it takes
    share_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it; the same scenario comes to the same outcome."""

    lanes: Mapping[Lane, LanePlan]
    # how long items come
    seconds: float = 60.0
    # numbers there are, asked for as Zipf has it: the n-th n**zipf times less than the first; 0: each once
    numbers: int = 10_000_000
    zipf: float = 0.5
    latency: Latency = field(default_factory=Latency)
    costs: Costs = field(default_factory=Costs)
    # messages a process holds at most
    prefetch: int = 13_000
    seed: int = 1
