"""The quick form of the kill loops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.parts import kills, points
from tests.faults.scene import Scene, opened

SETTINGS = {"provider_timeout_seconds": "2,3", "recharge_expiry_seconds": "60"}


def test_ten_kills(broker_url: str, redis_url: str, database_url: str, tmp_path: Path) -> None:
    scene = Scene(broker_url, redis_url, database_url, tmp_path / "scene", seed=1, settings=SETTINGS, relay_after=2, latency=0.2)
    with opened(scene):
        report = kills.run(scene, messages=5000, kills=10, seconds=12)
    print(report)


def test_each_crash_point(broker_url: str, redis_url: str, database_url: str, tmp_path: Path) -> None:
    scene = Scene(broker_url, redis_url, database_url, tmp_path / "scene", seed=1, settings=SETTINGS, relay_after=2, latency=0.5)
    with opened(scene):
        report = points.run(scene, times=1, per_second=300, seconds=60)
    print(report)
