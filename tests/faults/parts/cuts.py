"""The connections to broker, Postgres and Redis cut, one service after the other, while messages flow."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.acceptance.proxy import Proxy, proxied
from tests.acceptance.waiting import eventually
from tests.faults.invariants import Report, check
from tests.faults.parts.outages import RESUMED_SECONDS, Outage
from tests.faults.scene import Scene
from tests.faults.tracing import last_ack

_LONGEST_AWAY_SECONDS = 2.0


@contextmanager
def through_proxies(scene: Scene) -> Iterator[dict[str, Proxy]]:
    """Let presend reach its services through proxies alone; producer and subscriber go straight there."""
    with ExitStack() as open_proxies:
        found = {}
        for setting in ("broker_url", "database_url", "redis_url"):
            found[setting], scene.settings[setting] = open_proxies.enter_context(
                proxied(getattr(scene, setting))
            )
        yield found


def run(scene: Scene, *, times: int, per_second: float) -> tuple[Report, list[Outage]]:
    """Cut each service's connections in each way so often; consumption has to resume. Check the end."""
    chance = random.Random(scene.seed)
    with through_proxies(scene) as proxies:
        scene.upkeep()
        workers = [scene.worker() for _ in range(2)]
        scene.send(0, per_second=per_second)
        ways = [(name, way) for name in proxies for way in _WAYS] * times
        chance.shuffle(ways)
        outages = [_outage(scene, name, proxies[name], way, chance) for name, way in ways]
        for worker in workers:
            assert worker.alive, f"a worker ended because of a cut connection: {worker.shown()}"
        scene.stop_sending()
        scene.settled()
        scene.stop()
    return check(scene.evidence()), outages


def _outage(scene: Scene, name: str, proxy: Proxy, way: str, chance: random.Random) -> Outage:
    time.sleep(chance.uniform(0.2, 1.0))
    began = time.time()
    _WAYS[way](proxy, chance)
    returned = time.time()
    resumed = eventually(
        lambda: (at := last_ack(scene.folder / "traces")) > returned and at,
        f"messages settled after {way} of {name}",
        seconds=4 * RESUMED_SECONDS,
    )
    scene.faults.append((began, time.time() + RESUMED_SECONDS))
    return Outage(f"{name}: {way}", round(returned - began, 2), round(resumed - returned, 2))


def _reset(proxy: Proxy, _chance: random.Random) -> None:
    proxy.cut()


def _reset_in_an_answer(proxy: Proxy, chance: random.Random) -> None:
    """Where an answer is being read: of a COMMIT, a confirm, a delivery."""
    proxy.cut_after(chance.randint(1, 20_000))
    time.sleep(1.0)


def _refuse(proxy: Proxy, chance: random.Random) -> None:
    proxy.refuse(True)
    proxy.cut()
    time.sleep(chance.uniform(0.2, _LONGEST_AWAY_SECONDS))
    proxy.refuse(False)


_WAYS: dict[str, Callable[[Proxy, random.Random], None]] = {
    "reset": _reset,
    "reset in mid-answer": _reset_in_an_answer,
    "refused for a while": _refuse,
}
