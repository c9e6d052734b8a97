"""Every named crash point, each so often, while messages flow."""

from __future__ import annotations

import time
from collections import Counter

from tests.faults import points
from tests.faults.invariants import Report, check
from tests.faults.scene import Scene

_LAUNCHERS = 2


def run(
    scene: Scene, *, times: int, per_second: float, seconds: float, names: list[str] | None = None
) -> Report:
    """Kill at each crash point ``times`` times, in ``_LAUNCHERS`` workers side by side; check the end."""
    names = names or points.on("redis" if scene.on_redis else "rabbitmq")
    scene.upkeep()
    shares = [times // _LAUNCHERS + (number < times % _LAUNCHERS) for number in range(_LAUNCHERS)]
    scene.send(0, per_second=per_second)
    for number, share in enumerate(shares):
        crash = ("--crash", ",".join(names), "--times", share) if share else ()
        scene.worker(
            *crash, "--kills", scene.folder / "kills.log", "--seed", scene.seed + number, ready=False
        )
    deadline = time.monotonic() + seconds
    wanted = dict.fromkeys(names, times)
    while (found := Counter(kill.where for kill in scene.all_kills())) != wanted:
        assert time.monotonic() < deadline, (
            f"not every crash point was reached: {wanted} wanted, {found} found"
        )
        time.sleep(0.2)
    scene.stop_sending()
    scene.settled()
    scene.stop()
    return check(scene.evidence())
