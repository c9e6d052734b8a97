"""Which item of a batch answer belongs to which number: never a guess.

The provider answers in the order submitted and names the number in ``Mobile``, except in items that
carry an error and no ``result``. An item is matched by its ``Mobile``. One without is matched by its
position, and only while the array has the asked length and every ``Mobile`` in it stands at its place.
A number named twice is not answered at all: two items cannot both be its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Mismatch(StrEnum):
    """Why a number has no item it could safely be given."""

    MISSING = "missing"
    REPEATED = "repeated"


def match(asked: Sequence[str], mobiles: Sequence[str | None]) -> Sequence[int | Mismatch]:
    """For each distinct number asked, the index of its item in ``mobiles``, or why there is none."""
    if len(asked) == len(mobiles) and _in_place(asked, mobiles):
        return range(len(asked))
    places: dict[str, int | Mismatch] = {}
    for index, mobile in enumerate(mobiles):
        if mobile is not None:
            places[mobile] = Mismatch.REPEATED if mobile in places else index
    return [places.get(msisdn, Mismatch.MISSING) for msisdn in asked]


def _in_place(asked: Sequence[str], mobiles: Sequence[str | None]) -> bool:
    return all(mobile is None or mobile == msisdn for msisdn, mobile in zip(asked, mobiles, strict=True))
