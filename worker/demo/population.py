"""Subscribers in real number ranges: a rank has always the same number, and busy ranks come first."""

from __future__ import annotations

from functools import cache
from random import Random

from worker.portability.records import Status
from worker.sandbox.subscribers import subscriber

DOCUMENT_NUMBERS = ("13972565391", "13798361236", "13352918995", "13163320753")
"""The numbers that the provider's document prints."""


VIRTUAL_TAKEN = 0.4
"""Of the numbers drawn from MVNO ranges, which have fewer users each than an operator's."""


@cache
def of_rank(seed: int, rank: int) -> str:
    """The number of the subscriber who comes at this place when the busiest come first."""
    random = Random(f"{seed}:{rank}")  # noqa: S311 - a simulation
    while True:
        msisdn = _drawn(random)
        status = subscriber(msisdn).status
        if status is Status.VIRTUAL and random.random() >= VIRTUAL_TAKEN:
            continue
        if status is not Status.INVALID:
            return msisdn


def ported(random: Random) -> str:
    """A number that has left the operator of its range."""
    return _with(random, Status.PORTED)


def not_ported(random: Random) -> str:
    """A number that has stayed."""
    return _with(random, Status.NOT_PORTED)


def bad(random: Random) -> str:
    """A number of a range nobody holds, or one with a digit too few."""
    number = _with(random, Status.INVALID)
    return number if random.random() < 0.7 else number[:-1]


def _with(random: Random, status: Status) -> str:
    while subscriber(msisdn := _drawn(random)).status is not status:
        pass
    return msisdn


def _drawn(random: Random) -> str:
    return f"1{random.randrange(3_000_000_000, 10_000_000_000)}"
