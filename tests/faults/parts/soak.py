"""Hours of steady load while the broker closes every connection every ten seconds: nothing may grow."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import psutil

from tests.acceptance.processes import Process
from tests.faults.invariants import Report, check
from tests.faults.scene import Scene

CLOSED_EACH_SECONDS = 10.0
SAMPLED_EACH_SECONDS = 5.0
BACKLOG = 8000
WARM_UP_SHARE = 0.2
"""Of the run, at its beginning: the backlog is drained, and caches fill."""
BOUNDS = {"resident_mb": 1.0, "file_descriptors": 1.0, "threads": 1.0}
"""What each process may grow by in an hour."""


@dataclass(frozen=True)
class Slope:
    """Growth in an hour by least squares, with twice its standard error."""

    an_hour: float
    error: float
    mean: float

    def exceeds(self, bound: float) -> bool:
        """Whether it grows by more than ``bound``, and that is no accident of the samples."""
        return self.an_hour - self.error > bound

    def __str__(self) -> str:
        return f"{self.an_hour:+.2f} ± {self.error:.2f} an hour (mean {self.mean:.1f})"


@dataclass(frozen=True)
class Soaked:
    """What a run came to."""

    report: Report
    # how often the connections were closed
    closed: int
    # (seconds since the start, value) by process and figure
    samples: dict[str, list[tuple[float, float]]]

    def slopes(self) -> dict[str, Slope]:
        """How each figure grew."""
        return {name: slope(found) for name, found in self.samples.items()}

    def course(self, stretches: int = 12) -> dict[str, list[float]]:
        """Each figure's mean over equal stretches of the run, by which a plateau is told from a climb."""
        return {
            name: [
                round(statistics.fmean(value for _, value in found[start : start + length]), 1)
                for length in [max(1, len(found) // stretches)]
                for start in range(0, length * stretches, length)
                if found[start : start + length]
            ]
            for name, found in self.samples.items()
        }


def run(scene: Scene, *, seconds: float, per_second: float) -> Soaked:
    """Run so long under load, closing the connections meanwhile.

    A backlog comes first, which lets every slot work at once: connection pools are as large then as they get.
    """
    scene.send(BACKLOG)
    scene.sent(seconds=600)
    watched = {"upkeep": scene.upkeep()} | {lane: scene.worker(lanes=lane) for lane in ("sms", "recharge")}
    scene.send(0, per_second=per_second, first=BACKLOG)
    samples: dict[str, list[tuple[float, float]]] = {}
    began = close_at = time.monotonic()
    closed = 0
    while (elapsed := time.monotonic() - began) < seconds:
        if time.monotonic() >= close_at:
            close_at += CLOSED_EACH_SECONDS
            _close_connections(scene.broker_url)
            scene.faults.append((time.time() - CLOSED_EACH_SECONDS, time.time() + CLOSED_EACH_SECONDS))
            closed += 1
        if elapsed > WARM_UP_SHARE * seconds:
            for name, process in watched.items():
                for figure, value in _sample(process).items():
                    samples.setdefault(f"{name} {figure}", []).append((elapsed, value))
        time.sleep(SAMPLED_EACH_SECONDS)
    scene.stop_sending()
    scene.settled()
    scene.stop()
    return Soaked(check(scene.evidence()), closed, samples)


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Fit a straight line to (seconds, value)."""
    hours, values = [at / 3600 for at, _ in samples], [value for _, value in samples]
    line = statistics.linear_regression(hours, values)
    left = [value - line.intercept - line.slope * hour for hour, value in zip(hours, values, strict=True)]
    spread = sum((hour - statistics.fmean(hours)) ** 2 for hour in hours)
    variance = sum(each * each for each in left) / max(1, len(samples) - 2)
    return Slope(line.slope, 2 * (variance / spread) ** 0.5, statistics.fmean(values))


def grown(slopes: dict[str, Slope]) -> list[str]:
    """Which figures grow by more than their bound."""
    return [
        f"{name} {found}" for name, found in slopes.items() if found.exceeds(BOUNDS[name.rpartition(" ")[2]])
    ]


def _sample(process: Process) -> dict[str, float]:
    assert process.alive, f"a process ended by itself: {process.shown()}"
    seen = psutil.Process(process.pid)
    return {
        "resident_mb": seen.memory_info().rss / 1e6,
        "file_descriptors": seen.num_fds(),
        "threads": seen.num_threads(),
    }


def _close_connections(broker_url: str) -> None:
    """Let RabbitMQ close every connection of this virtual host."""
    command = shutil.which("rabbitmqctl", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert command, "this part needs rabbitmqctl, and RabbitMQ on this machine"
    host = unquote(urlsplit(broker_url).path[1:]) or "/"
    subprocess.run(
        [command, "close_all_connections", "-p", host, "soak"], check=True, capture_output=True, timeout=30
    )
