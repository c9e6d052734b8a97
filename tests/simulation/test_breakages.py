"""The control arms: with a guard switched off, the simulation finds what it guards against."""

from __future__ import annotations

import re

import pytest

from tests.simulation.breakages import BREAKAGES, Breakage
from tests.simulation.choices import Choices
from tests.simulation.running import violation

_SCHEDULES = 1500
"""Most are seen within ten; those that need three things at once within some hundred."""


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
def test_a_guard_that_is_switched_off_is_missed(breakage: Breakage) -> None:
    seeds = range(breakage.from_seed, breakage.from_seed + _SCHEDULES)
    with breakage.made():
        said = next((said for seed in seeds if (said := violation(Choices(seed))[0]) is not None), None)
    assert said is not None, f"{_SCHEDULES} schedules did not miss it"
    assert re.search(breakage.seen_as, said)
