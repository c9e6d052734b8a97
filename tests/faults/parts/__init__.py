"""The parts of ``make faults``: each is one story, in a module that tells it at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import points as crash_points
from tests.faults.ground import Ground
from tests.faults.outcome import Outcome, services
from tests.faults.parts import kills, points
from tests.faults.scene import Scene
from tests.faults.tracing import recoveries

_RECHARGES_WAIT = {"recharge_expiry_seconds": "60"}
"""A recharge waits longer than a restart takes, so that it is bought, not told that nobody answered."""


@dataclass(frozen=True)
class Part:
    """One part."""

    # at full size, about
    minutes: int
    run: Callable[[Ground], Outcome]


def _kills_rabbitmq(ground: Ground) -> Outcome:
    messages, times = ground.sized(200_000), ground.sized(100)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = kills.run(scene, messages=messages, kills=times, seconds=900 * ground.scale)
        return _killed(scene, "kill -9 of a worker, at random", messages, report)


def _kills_redis(ground: Ground) -> Outcome:
    messages, times = ground.sized(50_000), ground.sized(50)
    with ground.on_redis(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = kills.run(scene, messages=messages, kills=times, seconds=450 * ground.scale)
        return _killed(scene, "kill -9 of a worker, at random", messages, report)


def _crash_points(ground: Ground) -> Outcome:
    times = ground.sized(20)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = points.run(scene, times=times, per_second=200, seconds=1100)
        named = len(crash_points.on("rabbitmq"))
        return _killed(scene, f"kill -9 at each of {named} crash points", len(scene.confirmed()), report)


def _killed(scene: Scene, fault: str, messages: int, report: object) -> Outcome:
    found = recoveries(scene.folder / "traces", scene.all_kills())
    last = max((one.last for one in found), default=0.0)
    return Outcome(
        fault,
        len(scene.all_kills()),
        messages,
        report,  # type: ignore[arg-type]
        [one.first for one in found],
        {"kills_of_a_worker_that_held_something": len(found), "worst_until_all_was_settled": round(last, 2)},
        services(scene.broker_url, scene.redis_url, scene.database_url),
    )


PARTS: dict[str, Part] = {
    "kills-rabbitmq": Part(18, _kills_rabbitmq),
    "crash-points": Part(15, _crash_points),
    "kills-redis": Part(15, _kills_redis),
}
