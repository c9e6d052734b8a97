"""What a worker takes and acknowledges, written as it happens: when it is killed, what it held is known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.patching import wrap

_TAIL_BYTES = 50_000


def trace(folder: Path) -> None:
    """Write this process's trace into ``folder``, named by its pid."""
    file = os.open(folder / f"{os.getpid()}.trace", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def note(what: bytes, message: Any) -> None:
        task_id = str((message.headers or {}).get("id")).encode()
        os.write(file, b"%s %s %.6f\n" % (what, task_id, time.time()))

    def take(
        original: Callable[..., Any], feed: Any, task: Any, message: Any, *rest: Any, **more: Any
    ) -> None:
        note(b"took", message)
        original(feed, task, message, *rest, **more)

    def ack(original: Callable[..., Any], message: Any, *rest: Any) -> None:
        original(message, *rest)
        note(b"acked", message)

    wrap("worker.feed:Feed.take", take)
    wrap("kombu.message:Message.ack_log_error", ack)


@dataclass
class Trace:
    """One process's trace."""

    took: list[str] = field(default_factory=list)
    # message -> POSIX seconds
    acked: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Trace:
        found = cls()
        for line in path.read_text().splitlines():
            what, message, at = line.split(" ")
            if what == "took":
                found.took.append(message)
            else:
                found.acked[message] = float(at)
        return found

    def held(self) -> set[str]:
        """Messages it had taken and not acknowledged."""
        return set(self.took) - self.acked.keys()


@dataclass(frozen=True)
class Kill:
    """A kill and what it cost in time."""

    pid: int
    # POSIX seconds
    at: float
    # the crash point, or what was done
    where: str


@dataclass(frozen=True)
class Recovery:
    """Seconds from a kill until others had settled the first, and the last, message of the killed worker."""

    first: float
    last: float


def recoveries(folder: Path, kills: list[Kill]) -> list[Recovery]:
    """For each kill of a worker that held something, how long until that was settled by others."""
    traces = {int(path.stem): Trace.read(path) for path in folder.glob("*.trace")}
    settled: dict[str, list[float]] = {}
    for one in traces.values():
        for message, at in one.acked.items():
            settled.setdefault(message, []).append(at)
    found = []
    for kill in kills:
        held = traces[kill.pid].held() if kill.pid in traces else set()
        times = [min(later) for m in held if (later := [at for at in settled.get(m, ()) if at > kill.at])]
        if times:
            found.append(Recovery(min(times) - kill.at, max(times) - kill.at))
    return found


def last_ack(folder: Path) -> float:
    """When the last message was acknowledged by anybody (POSIX seconds)."""
    return max((at for path in folder.glob("*.trace") for at in _acks(path)), default=0.0)


def _acks(path: Path) -> list[float]:
    """The moments of the latest acknowledgements in a trace."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        found = file.read().rpartition(b"\n")[0].splitlines()[1:]
    return [float(line.split(b" ")[2]) for line in found if line.startswith(b"acked ")]
