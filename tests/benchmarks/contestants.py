"""Who drains a queue: presend, its rivals, and the floor; how each is started and with which settings."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.acceptance.processes import ROOT

RIVALS_PYTHON = ROOT / ".venv" / "rivals" / "bin" / "python"

PRESEND = "presend"
BATCHES, EACH = "batches", "each"
RAW = "raw"


@dataclass(frozen=True)
class Contestant:
    """One of those who drain, and the queue it is given."""

    name: str
    kind: str
    # items to be decided: enough for ten seconds where it is quick
    items: int
    # items by the thousand in a message
    many: bool = False
    # presend's: those its processes work for
    lanes: tuple[str, ...] = ("upkeep", "sms")
    # not less at any scale: four batches for each that it keeps in flight, or there is no steady rate
    fewest: int = 1000
    on_redis: bool = False
    processes: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    # the queue drained, and that of the subscriber: classic or quorum
    queue: str = "quorum"
    events: str = "classic"
    # times the documented latency of the provider
    latency: float = 0.0
    # producers that want results
    results: bool = False

    def but(self, name: str, **changed: object) -> Contestant:
        """A variant of it."""
        return replace(self, name=name, **changed)  # type: ignore[arg-type]

    def commands(self, broker_url: str) -> list[list[str]]:
        """The command lines of its processes."""
        if self.kind == RAW:
            return [[sys.executable, "-m", "tests.benchmarks.rivals.raw", broker_url, str(self.items)]]
        if self.kind == PRESEND:
            presend = [sys.executable, "-m", "worker.cli", "worker", "--lane"]
            return [
                [*presend, lane] for lane in self.lanes for _ in range(self.processes if lane == "sms" else 1)
            ]
        celery = [str(RIVALS_PYTHON), "-m", "celery", "-A", "tests.benchmarks.rivals.app", "worker"]
        quiet = ["-l", "WARNING", "--without-mingle", "--without-gossip"]
        return [[*celery, "-Q", "sms", "-n", f"rival{number}@%h", *quiet] for number in range(self.processes)]

    def environment(self) -> dict[str, str]:
        """What its processes read beside the addresses of the services."""
        return {"RIVAL": self.kind} | self.settings if self.kind in {BATCHES, EACH} else self.settings


def missing_rivals() -> str | None:
    """Say what to do where the rivals are not installed."""
    if Path(RIVALS_PYTHON).exists():
        return None
    return "the rivals are not installed: run it as `make bench`, which makes .venv/rivals"
