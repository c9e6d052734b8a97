"""Broker, Postgres and Redis killed with ``kill -9`` and started again, while messages flow."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tests.acceptance.waiting import eventually
from tests.faults.invariants import Report, check
from tests.faults.scene import Scene
from tests.faults.tracing import last_ack
from tests.services.own_engines import Engine, Engines

RESUMED_SECONDS = 15.0
"""Within so long of a service's return messages are settled again."""
_LONGEST_DOWN_SECONDS = 12.0
"""More than a single number's call is held: an answer that waits for Postgres is not a lost one."""
_BETWEEN_SECONDS = (2.0, 6.0)


@dataclass(frozen=True)
class Outage:
    """One service's absence."""

    service: str
    down_seconds: float
    # from its return until the next message was settled
    resumed_seconds: float


def run(scene: Scene, engines: Engines, *, times: int, per_second: float) -> tuple[Report, list[Outage]]:
    """Kill each service so often, in a random order; consumption has to resume each time. Check the end."""
    chance = random.Random(scene.seed)
    scene.upkeep()
    workers = [scene.worker() for _ in range(2)]
    scene.send(0, per_second=per_second)
    victims = engines.all() * times
    chance.shuffle(victims)
    outages = []
    for engine in victims:
        time.sleep(chance.uniform(*_BETWEEN_SECONDS))
        outages.append(_outage(scene, engine, chance.uniform(0.2, _LONGEST_DOWN_SECONDS)))
        for worker in workers:
            assert worker.alive, f"a worker ended because {engine.name} was gone: {worker.shown()}"
    scene.stop_sending()
    scene.settled()
    scene.stop()
    return check(scene.evidence()), outages


def _outage(scene: Scene, engine: Engine, seconds: float) -> Outage:
    began = time.time()
    engine.kill()
    time.sleep(seconds)
    returned = engine.start()
    resumed = eventually(
        lambda: (at := last_ack(scene.folder / "traces")) > returned and at,
        f"messages settled after the return of {engine.name}",
        seconds=4 * RESUMED_SECONDS,
    )
    scene.faults.append((began, time.time() + RESUMED_SECONDS))
    return Outage(engine.name, round(returned - began, 2), round(resumed - returned, 2))
