"""``kill -9`` in its quick form; the long ones are parts of ``make faults``. The checker is in the parts."""

from __future__ import annotations

import pytest

from tests.faults.parts import kills, points
from tests.faults.scene import Scene

pytestmark = pytest.mark.timeout(240)


def test_kills_on_rabbitmq(on_rabbitmq: Scene) -> None:
    report = kills.run(on_rabbitmq, messages=2500, kills=5, seconds=8)
    assert report.accepted > 2300


def test_kills_on_redis(on_redis: Scene) -> None:
    on_redis.settings["event_batch"] = "20"
    report = kills.run(on_redis, messages=2000, kills=4, seconds=8)
    assert report.accepted > 1800


def test_each_crash_point(on_rabbitmq: Scene) -> None:
    report = points.run(on_rabbitmq, times=1, per_second=250, seconds=90)
    assert report.lost_calls > 0
