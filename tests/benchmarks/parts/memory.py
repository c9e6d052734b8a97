"""Resident memory of one worker while a million messages go through it.

The queue is filled in portions while the worker drains it. Warm-up is the first fifth; growth is the median
of the last twentieth's samples over the median of those in the twentieth after warm-up. Default settings,
task events included.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from contextlib import ExitStack, closing
from typing import Any
from urllib.request import urlopen

import psutil
import psycopg

from tests.benchmarks import filling
from tests.benchmarks.contestants import PRESEND, Contestant
from tests.benchmarks.course import TAP, course
from tests.benchmarks.ground import Ground
from tests.services import connect_amqp

MESSAGES, _PORTION, _MOST_WAITING = 1_000_000, 20_000, 60_000
_LOOK_SECONDS = 0.5
_STALLED_SECONDS = 60.0
_DECIDED = "SELECT COALESCE(sum(numbers), 0) FROM lookup_batch WHERE emitted_at IS NOT NULL"


def run(ground: Ground) -> None:
    """Over RabbitMQ, single-number messages, the provider answers at once."""
    messages = max(2 * _PORTION, ground.sized(MESSAGES))
    who = Contestant("memory", PRESEND, messages, settings={"PRESEND_TASK_EVENTS": "true"})
    with course(ground.folder) as here, ExitStack() as open_here:
        database_url = open_here.enter_context(here.database())
        here.clear(who)
        provider_url, running = here.start(open_here, who, database_url)
        samples, peak = _watch(here.broker_url, database_url, messages, running[-1].pid)
        for process in running:
            assert process.stop(seconds=60) == 0, process.shown()
        with urlopen(f"{provider_url}/bill", timeout=10) as answer:
            bill = json.loads(answer.read())
        with psycopg.connect(database_url) as database:
            ((rows,),) = database.execute("SELECT count(*) FROM check_request").fetchall()
        early = [megabytes for done, megabytes in samples if 0.2 <= done / messages < 0.25]
        late = [megabytes for done, megabytes in samples if done / messages >= 0.95]
        figures: dict[str, Any] = {
            "messages": messages,
            "undecided": messages - rows,
            "bought_twice": bill["again"],
            "after_warm_up_mb": round(statistics.median(early), 1),
            "end_mb": round(statistics.median(late), 1),
            "growth_mb": round(statistics.median(late) - statistics.median(early), 1),
            "peak_mb": round(peak, 1),
            "course_mb": _course(samples, messages),
        }
        print(f"memory: {figures}   [9: growth 5 (20), peak 150 (250)]", flush=True)
        ground.write(figures, here.broker_url, here.postgres_url)


def _watch(
    broker_url: str, database_url: str, messages: int, pid: int
) -> tuple[list[tuple[int, float]], float]:
    """Feed the worker; what was decided and its megabytes at each look, and the peak."""
    done = [0]
    feeder = threading.Thread(target=_feed, args=(broker_url, messages, done), daemon=True)
    worker = psutil.Process(pid)
    samples: list[tuple[int, float]] = []
    peak, moved = 0.0, time.monotonic()
    with (
        psycopg.connect(database_url, autocommit=True) as database,
        closing(connect_amqp(broker_url)) as connection,
    ):
        channel = connection.channel()
        feeder.start()
        while done[0] < messages:
            time.sleep(_LOOK_SECONDS)
            ((decided,),) = database.execute(_DECIDED).fetchall()
            if decided > done[0]:
                done[0], moved = int(decided), time.monotonic()
            assert time.monotonic() - moved < _STALLED_SECONDS, f"nothing is decided after {done[0]}"
            megabytes = worker.memory_info().rss / 1e6
            peak = max(peak, megabytes)
            samples.append((done[0], megabytes))
            channel.queue_purge(TAP)  # a subscriber that reads
    feeder.join(timeout=30)
    return samples, peak


def _feed(broker_url: str, messages: int, done: list[int]) -> None:
    for first in range(0, messages, _PORTION):
        while first - done[0] > _MOST_WAITING:
            time.sleep(_LOOK_SECONDS)
        filling.fill(broker_url, min(_PORTION, messages - first), many=False, first=first)


def _course(samples: list[tuple[int, float]], messages: int) -> list[float]:
    """The median of each twentieth."""
    parts: list[list[float]] = [[] for _ in range(20)]
    for done, megabytes in samples:
        parts[min(19, done * 20 // messages)].append(megabytes)
    return [round(statistics.median(part), 1) for part in parts if part]
