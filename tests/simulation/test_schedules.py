"""2,000 schedules, the same in each run: every promise holds at each step, and once all is quiet.

New ones are tried by ``make faults PART=simulation``, or here with ``SEED``.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.running import account_of, first_violation

_PARTS, _SCHEDULES_A_PART = 8, 250


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_promise_holds_in_every_schedule(part: int) -> None:
    first = int(os.environ.get("SEED", "0")) + part * _SCHEDULES_A_PART
    broken = first_violation(range(first, first + _SCHEDULES_A_PART))
    if broken is not None:
        pytest.fail(account_of(broken), pytrace=False)


def test_a_seed_tells_its_schedule() -> None:
    assert account_of(7) == account_of(7)
