"""The simulated subscribers: who holds a number's range, who serves it now, and where it belongs.

``subscriber`` is a pure function of number and seed, so tests use it as the truth. What is real in it:
number ranges and their holders come from ``phonenumbers`` (its core and carrier data: 13 MB, 30 ms); 6.53 %
are ported, the provider's figure of 2023-01; the document's own four numbers answer as it prints them.
What is not: the area. ``phonenumbers`` knows it, at 102 MB and 215 ms, and for few of the newer ranges;
so a range of seven digits is given one of the real areas, each as often as it holds ranges
(``areas.csv``, counted from the geocoding data of phonenumbers 9.0.43, Apache-2.0).
"""

from __future__ import annotations

import csv
import re
from bisect import bisect
from collections.abc import Callable
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import resources
from itertools import accumulate
from typing import Any

from phonenumbers import PhoneMetadata
from phonenumbers.carrierdata import CARRIER_DATA

from worker.carrier.protocol import Answer
from worker.portability import operators
from worker.portability.records import Status

PORTED_PER_10000 = 653
"""The provider's document: 6.53 % of all users in 2023-01."""

UNKNOWN_PER_10000 = 50
"""Numbers in use that the operators say nothing of: answered -4."""

_DOCUMENT = {
    "13972565391": Answer("13972565391", 0, Status.PORTED, "CMCC", "CTCC", "湖北-宜昌"),
    "13798361236": Answer("13798361236", 0, Status.NOT_PORTED, "CMCC", "CMCC", "广东-深圳"),
    "13352918995": Answer("13352918995", 0, Status.NOT_PORTED, "CTCC", "CTCC", "广东-深圳"),
    "13163320753": Answer("13163320753", 0, Status.NOT_PORTED, "CUCC", "CUCC", "湖北-武汉"),
}

# MVNO ranges and the operators whose networks they use; 170 is shared by its fourth digit
_VIRTUAL = {"162": "CTCC", "165": "CMCC", "167": "CUCC", "171": "CUCC"}
_VIRTUAL |= {f"170{digit}": "CTCC" for digit in "012"}
_VIRTUAL |= {f"170{digit}": "CMCC" for digit in "356"}
_VIRTUAL |= {f"170{digit}": "CUCC" for digit in "4789"}

# to whom numbers are ported, in tenths
_RECIPIENTS = ("CMCC",) * 3 + ("CUCC",) * 3 + ("CTCC",) * 3 + ("CBN",)

_SHAPE = re.compile(r"1[3-9][0-9]{9}").fullmatch


@lru_cache(maxsize=100_000)
def subscriber(msisdn: str, seed: int = 0) -> Answer:
    """What the provider answers of a number nobody has ported by hand."""
    if msisdn in _DOCUMENT:
        return _DOCUMENT[msisdn]
    if not _SHAPE(msisdn):
        return Answer(msisdn, -2 if len(msisdn) != 11 else -3, Status.INVALID)
    holder, virtual, area = _range(msisdn[:7])
    if holder is None:
        return Answer(msisdn, -3, Status.INVALID)
    choice, chance = divmod(_hash(f"{seed}:{msisdn}"), 10_000)
    if chance >= 10_000 - UNKNOWN_PER_10000:
        return Answer(msisdn, -4, Status.UNKNOWN)
    status, current = Status.NOT_PORTED, holder
    if virtual:
        status = Status.VIRTUAL
    elif chance < PORTED_PER_10000:
        others = [operator for operator in _RECIPIENTS if operator != holder]
        status, current = Status.PORTED, others[choice % len(others)]
    return Answer(msisdn, 0, status, holder, current, area)


@lru_cache(maxsize=100_000)
def _range(prefix: str) -> tuple[str | None, bool, str]:
    """Holder, whether it is an MVNO's, and area of a range of seven digits; no holder: not allocated."""
    if not _allocated()(prefix + "0000"):
        return None, False, ""
    virtual = _VIRTUAL.get(prefix[:3]) or _VIRTUAL.get(prefix[:4])
    areas, ends = _areas()
    area = areas[bisect(ends, _hash(prefix) % ends[-1])]
    if virtual:
        return virtual, True, area
    holders = _holders()
    for length in range(7, 1, -1):
        if holder := holders.get(prefix[:length]):
            return holder, False, area
    return None, False, ""


@cache
def _holders() -> dict[str, str]:
    """Operator codes by prefix of 2 to 7 digits."""
    return {
        prefix[2:]: operators.parse(names["zh"])
        for prefix, names in CARRIER_DATA.items()
        if prefix[:2] == "86"
    }


@cache
def _allocated() -> Callable[[str], Any]:
    china: Any = PhoneMetadata.metadata_for_region("CN")
    return re.compile(china.mobile.national_number_pattern).fullmatch


@cache
def _areas() -> tuple[list[str], list[int]]:
    """Areas, and where each ends on a line as long as all ranges."""
    with resources.files(__package__).joinpath("areas.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [row["area"] for row in rows], list(accumulate(int(row["weight"]) for row in rows))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("ascii", "replace"), digest_size=8).digest(), "big")
