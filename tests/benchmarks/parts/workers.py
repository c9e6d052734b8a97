"""One to four worker processes on one backlog, in turn: what more of them bring on these cores."""

from __future__ import annotations

from tests.benchmarks.contestants import PRESEND, Contestant
from tests.benchmarks.ground import Ground
from tests.benchmarks.parts import drain

_QUIET = {"PRESEND_TASK_EVENTS": "false"}
_MOST = 4
_FEWEST = 32_000
_ONE = Contestant("1 worker", PRESEND, 80_000, fewest=_FEWEST, settings=_QUIET, events="quorum")
_MANY = _ONE.but("1 worker, many", items=120_000, many=True)


def run(ground: Ground) -> None:
    """Over RabbitMQ, the provider answers at once."""
    more = range(2, _MOST + 1)
    contestants = [
        one.but(one.name.replace("1 worker", f"{number} workers"), processes=number, fewest=number * _FEWEST)
        for one in (_ONE, _MANY)
        for number in more
    ]
    ratios = [drain.Ratio("", who.name, (_MANY if who.many else _ONE).name) for who in contestants]
    drain.run(ground, [_ONE, _MANY, *contestants], ratios)
