"""The provider misbehaves: the quick form, eight telling faults and one that lasts."""

from __future__ import annotations

from tests.acceptance.harness import Place
from tests.faults.misbehaviours import LASTING, ONCE
from tests.faults.parts import misbehaviours

_TELLING = {
    "code 1",
    "code -6 for one number",
    "code -9 because of one number",
    "reset",
    "reset, not worked",
    "a page of HTML, status 502",
    "one item missing",
    "one item more",
}


def test_a_thousand_numbers_meet_a_fault(place_on_rabbitmq: Place) -> None:
    misbehaviours.run(
        place_on_rabbitmq,
        [case for case in ONCE if case.name in _TELLING],
        [one for one in LASTING if one.name == "code -8"],
        backlog=300,
        seconds=9,
        quiet_after_seconds=5,
    )
