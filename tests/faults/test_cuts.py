"""The connections to every service cut in every way, in its quick form."""

from __future__ import annotations

import pytest

from tests.faults.parts import cuts
from tests.faults.scene import Scene


@pytest.mark.timeout(240)
def test_each_service_in_each_way(on_rabbitmq: Scene) -> None:
    on_rabbitmq.settings["event_batch"] = "20"
    report, outages = cuts.run(on_rabbitmq, times=1, per_second=200)
    assert len(outages) == 9
    assert max(outage.resumed_seconds for outage in outages) < 2 * cuts.RESUMED_SECONDS
    assert report.lost == 0
