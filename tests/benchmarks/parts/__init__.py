"""The parts of ``make bench``, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.ground import Ground
from tests.benchmarks.parts import drain, event_batches, idle_precheck, profile, prune, simulation, size

PARTS: dict[str, Callable[[Ground], None]] = {
    "drain": drain.on_rabbitmq,
    "drain-redis": drain.on_redis,
    "drain-latency": drain.with_latency,
    "event-batches": event_batches.run,
    "profile": profile.run,
    "idle-precheck": idle_precheck.run,
    "prune": prune.run,
    "simulation": simulation.run,
    "size": size.run,
}
