"""The parts of ``make bench``, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.ground import Ground
from tests.benchmarks.parts import (
    counting,
    drain,
    event_batches,
    front_door,
    growth,
    lookups,
    memory,
    plans,
    prechecks,
    profile,
    prune,
    simulation,
    size,
    workers,
)

PARTS: dict[str, Callable[[Ground], None]] = {
    "drain": drain.on_rabbitmq,
    "drain-quorum": drain.with_quorum_queues,
    "drain-redis": drain.on_redis,
    "drain-latency": drain.with_latency,
    "event-batches": event_batches.run,
    "lookups": lookups.run,
    "workers": workers.run,
    "growth": growth.run,
    "memory": memory.run,
    "plans": plans.run,
    "front-door": front_door.run,
    "profile": profile.run,
    "idle-precheck": prechecks.idle,
    "backlog-precheck": prechecks.behind_backlog,
    "prune": prune.run,
    "counting": counting.run,
    "simulation": simulation.run,
    "size": size.run,
}
