"""Why messages fail, and with which code: the codes are those of the shipped table."""

from __future__ import annotations

from random import Random

from worker.portability.failure_codes import FailureClass, FailureCodes
from worker.portability.operators import Operator

SHARES = {
    FailureClass.ABSENT_SUBSCRIBER: 30,
    FailureClass.UNREACHABLE: 22,
    FailureClass.UNDETERMINED: 12,
    FailureClass.REFUSED: 12,
    FailureClass.BARRED: 8,
    FailureClass.THROTTLED: 6,
    FailureClass.NETWORK: 6,
    FailureClass.NO_ROUTE: 3,
    FailureClass.PORTED: 1,
}
"""In hundredths; assumed, for nobody publishes them."""
PORTED_AMONG_EXPLAINED = 0.35
"""Ported numbers among the failures that porting explains; assumed."""

_EXPLAINED = frozenset({FailureClass.ABSENT_SUBSCRIBER, FailureClass.NO_ROUTE, FailureClass.PORTED})


class Failures:
    """Draws failures by their shares."""

    def __init__(self) -> None:
        self._codes: dict[FailureClass, list[str]] = {each: [] for each in FailureClass}
        for code, failure_class in FailureCodes.shipped().exact.items():
            self._codes[failure_class].append(code)

    @staticmethod
    def draw(random: Random) -> tuple[FailureClass, bool]:
        """Return a class, and whether the number it befell was ported."""
        (failure_class,) = random.choices(list(SHARES), weights=list(SHARES.values()))
        return failure_class, failure_class in _EXPLAINED and random.random() < PORTED_AMONG_EXPLAINED

    def code(self, failure_class: FailureClass, channel: str, random: Random) -> str:
        """Return a code of the class that comes from this operator's channel."""
        return random.choice([code for code in self._codes[failure_class] if _comes_from(channel, code)])


def _comes_from(channel: str, code: str) -> bool:
    """Whether a code is that operator's own, or any's."""
    owner = code.partition(":")[0]
    return owner == channel or owner not in set(Operator)
