"""``kill -9`` of workers at random moments while messages flow."""

from __future__ import annotations

import random
import time

from tests.acceptance.processes import Process
from tests.faults.invariants import Report, examine
from tests.faults.scene import Scene

WORKERS = 2


def run(
    scene: Scene,
    *,
    messages: int,
    kills: int,
    seconds: float,
    patience_seconds: float = 60.0,
) -> Report:
    """Send so many messages in so many seconds and kill a random worker so often meanwhile; check the end."""
    chance = random.Random(scene.seed)
    scene.upkeep()
    workers = [scene.worker() for _ in range(WORKERS)]
    scene.send(messages, per_second=messages / seconds)
    began = time.monotonic()
    # one in each of equal spans, so that the kills cover the whole run
    for moment in [(number + chance.random()) * seconds / kills for number in range(kills)]:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        _replace(scene, workers, chance.randrange(WORKERS))
    scene.sent(seconds=10 * seconds + 60)
    scene.settled(patience_seconds=patience_seconds)
    scene.stop()
    report = examine(scene.evidence())
    report.raise_if_broken()
    return report


def _replace(scene: Scene, workers: list[Process], victim: int) -> None:
    assert workers[victim].alive, f"a worker ended by itself: {workers[victim].shown()}"
    scene.kill(workers[victim])
    workers[victim] = scene.worker(ready=False)
