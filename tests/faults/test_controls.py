"""Control arms: with a guard switched off the checker must object, or it would prove nothing."""

from __future__ import annotations

import pytest

from tests.faults.invariants import BrokenError
from tests.faults.parts import controls
from tests.faults.scene import Scene


@pytest.mark.parametrize("guard", [guard for guard, arm in controls.ARMS.items() if arm.quick])
def test_the_checker_objects(on_rabbitmq: Scene, guard: str) -> None:
    with pytest.raises(BrokenError, match=controls.ARMS[guard].objection):
        controls.run(on_rabbitmq, guard)
