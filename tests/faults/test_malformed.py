"""Malformed messages between good ones, in the quick form: one of each kind."""

from __future__ import annotations

import pytest

from tests.acceptance.harness import Place
from tests.faults.parts import malformed


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"])
def test_each_kind_is_parked_with_its_reason(request: pytest.FixtureRequest, broker: str) -> None:
    here: Place = request.getfixturevalue(f"place_on_{broker}")
    told = malformed.run(here, seed=1, messages=42, per_second=20)
    for kind, reason in sorted(told.reasons.items()):
        print(f"{kind}: {reason}")  # noqa: T201
