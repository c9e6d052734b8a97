"""Where a worker's time goes while it drains a queue: py-spy's samples, told apart by stage.

A sample belongs to the stage of its innermost known function. Shares of samples, times the CPU that the
process took for an item, are the microseconds of each stage. Task events and results are on here, for they
are stages too.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.contestants import PRESEND, RIVALS_PYTHON, Contestant, missing_rivals
from tests.benchmarks.course import course
from tests.benchmarks.ground import Ground

_PY_SPY = RIVALS_PYTHON.with_name("py-spy")
_SAMPLES_A_SECOND = 200
_FRAME = re.compile(r"(?:\S+\.)?([\w<>]+) \((?:.*/)?(\w+\.py):\d+\)")

_STAGES = (
    ("task events", "task_events.py", ".*"),
    ("acknowledge", "feed.py", "_acknowledge"),
    ("decode and read", "feed.py", "_read"),
    ("hold, make waiters", "feed.py", "take|_feed_lane|_started"),
    ("hold, make waiters", "unsettled.py", ".*"),
    ("gather", "lane.py", "_dispatch|submit"),
    ("gather", "batching.py", "add|next_batch|_take|overdue"),
    ("group by key", "batch.py", "of"),
    ("look-up SQL", "postgres_store.py", "look_up"),
    ("claim SQL", "postgres_store.py", "claim"),
    ("claim SQL", "sharing.py", "claim"),
    ("provider call", "buyer.py", "buy"),
    ("hand out answers", "asking.py", "ask|_hand_out"),
    ("decide, make rows", "pipeline.py", "_decide|_answer_without_asking"),
    ("event ids", "events.py", "event_id"),
    ("build events", "events.py", "of_check|of_port_change"),
    ("store SQL", "postgres_store.py", "settle"),
    ("store SQL", "pipeline.py", "_settle"),
    ("publish and confirm", "amqp.py", "publish"),
    ("publish and confirm", "stream.py", "publish"),
    ("mark emitted", "pipeline.py", "_mark_emitted"),
    ("pair rows and waiters", "batch.py", "decided"),
    ("pair rows and waiters", "lane.py", "_first_words|_return|_run_until_told"),
    ("results", "results.py", ".*"),
    ("settle messages", "feed.py", "_settle|_complete|finish"),
    ("receive", "loops.py", "asynloop|synloop"),
    ("lane watch", "lane_watch.py", ".*"),
)
"""Name, module, functions; the first that fits a frame."""
_KNOWN = [(stage, module, re.compile(functions)) for stage, module, functions in _STAGES]
_OTHER = "others"
_START = "_find_and_load"

_ALL_ON = {"PRESEND_TASK_EVENTS": "true"}
_PROFILED = (
    Contestant("singles", PRESEND, 60_000, settings=_ALL_ON, results=True),
    Contestant("many", PRESEND, 150_000, many=True, settings=_ALL_ON, results=True),
)


def run(ground: Ground) -> None:
    """Over RabbitMQ, single-number messages and ``*_many``, one worker."""
    if advice := missing_rivals():
        raise SystemExit(advice)
    figures: dict[str, Any] = {"scale": ground.scale}
    with course(ground.folder) as here:
        for who in _PROFILED:
            samples = ground.folder / f"{who.name}.samples"

            @contextmanager
            def watch(pid: int, samples: Path = samples) -> Iterator[None]:
                with _sampled(pid, samples):
                    yield

            sized = who.but(who.name, items=ground.sized(who.items))
            plain = here.drain(sized)
            here.drain(sized, watch)
            stages = _by_stage(samples.read_text().splitlines(), plain.cpu_microseconds)
            figures[who.name] = {
                "rate": plain.rate,
                "postgres_microseconds": plain.postgres_microseconds,
                "cpu_microseconds": plain.cpu_microseconds,
                "stages": stages,
            }
            print(f"{who.name}: {plain.rate:.0f}/s, {plain.cpu_microseconds} us CPU an item")
            for stage, microseconds in stages.items():
                print(f"{microseconds:8.1f} us  {stage}", flush=True)
        ground.write(figures, here.broker_url, here.redis_url, here.postgres_url)


@contextmanager
def _sampled(pid: int, samples: Path) -> Iterator[None]:
    """Let py-spy look at a process; a thread that waits is no sample."""
    command = [
        _PY_SPY, "record", "--pid", pid, "--rate", _SAMPLES_A_SECOND, "--format", "raw", "--output", samples,
        "--duration", 3600, "--nonblocking",
    ]  # fmt: skip
    spy = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        spy.wait(timeout=30)


def _by_stage(samples: list[str], cpu_microseconds: float) -> dict[str, float]:
    """Microseconds an item by stage, the largest first; what belongs to the start is left out."""
    counts: Counter[str] = Counter()
    for line in samples:
        stack, _, count = line.rpartition(" ")
        if _START not in stack:
            counts[_stage(stack)] += int(count)
    whole = counts.total()
    return {stage: round(count / whole * cpu_microseconds, 1) for stage, count in counts.most_common()}


def _stage(stack: str) -> str:
    for frame in reversed(stack.split(";")):
        found = _FRAME.match(frame)
        if found:
            for stage, module, functions in _KNOWN:
                if found[2] == module and functions.fullmatch(found[1]):
                    return stage
    return _OTHER
