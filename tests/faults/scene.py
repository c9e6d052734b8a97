"""A scene: presend's processes, and a provider, a producer and a subscriber that outlive what is killed."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import amqp
import psycopg

from tests.acceptance.processes import Process
from tests.acceptance.traffic import Key
from tests.acceptance.waiting import eventually
from tests.faults import collector, evidence
from tests.faults.evidence import Evidence
from tests.faults.leaks import leaks
from tests.faults.tracing import Kill
from tests.faults.traffic import SETTINGS, Plan
from tests.services import connect_amqp, messages_left
from worker.sandbox.provider import DEFAULT_APIKEY

QUEUES = ("recharge", "sms", "presend.dead")
LANES = "sms,recharge"
_HURRIED_SECONDS = 2.0
_REST_SECONDS = 5.0
_MARGIN_SECONDS = 2.0
"""A call may be lost to a fault that ended so long before it was named: a successor's first steps."""


@dataclass
class Scene:
    """Everything a fault test needs, and the processes it started."""

    broker_url: str
    redis_url: str
    database_url: str
    folder: Path
    seed: int
    settings: dict[str, str] = field(default_factory=dict)
    latency: float = 1.0
    # cuts the relay's half minute short
    hurried: bool = False
    kills: list[Kill] = field(default_factory=list)
    # POSIX seconds from and to of whatever else was done, such as a service being down
    faults: list[tuple[float, float]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    sender: Process | None = None
    _provider_url: str = ""
    _numbers: Any = field(default_factory=lambda: count(1))

    @property
    def on_redis(self) -> bool:
        return self.broker_url.startswith("redis")

    @property
    def chance(self) -> random.Random:
        return random.Random(self.seed)

    # -- processes ----------------------------------------------------------------------------

    def open(self) -> None:
        """Start the provider and the subscriber."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "traces").mkdir()
        provider = self._python("provider", self.folder / "bill.log", self.latency)
        provider.wait_for(" ready")
        self._provider_url = provider.log.split()[1]
        self._python("collector", self.broker_url, self.folder / "events.log").wait_for(" ready")

    def send(self, messages: int, *, per_second: float = 0.0, first: int = 0) -> None:
        """Start to send messages of the seed's stream, from the first on; 0 is without end."""
        log = self.folder / "confirmed.log"
        self.sender = self._python("sender", self.broker_url, self.seed, first, messages, per_second, log)

    def worker(self, *options: object, lanes: str = LANES, ready: bool = True) -> Process:
        """A worker, under the launcher with these options."""
        number = next(self._numbers)
        trace = ["--trace", self.folder / "traces"]
        command = ["worker", "-Q", lanes, "-n", "faults-PID@%h", "-l", "INFO"]
        worker = self._python("launcher", *trace, *options, "--", *command, name=f"worker-{number}")
        if ready:
            worker.wait_for(" ready.", seconds=40)
        return worker

    def upkeep(self, *options: object) -> Process:
        """The process that sends what was left unsent."""
        hurry = ["--relay-after", _HURRIED_SECONDS] if self.hurried else []
        upkeep = self._python(
            "launcher", *hurry, *options, "--", "upkeep", name=f"upkeep-{next(self._numbers)}"
        )
        upkeep.wait_for("upkeep_started", seconds=40)
        return upkeep

    def kill(self, worker: Process, where: str = "at random") -> None:
        """``kill -9``, noted."""
        self.kills.append(Kill(worker.pid, time.time(), where))
        worker.kill()

    def _python(self, module: str, *arguments: object, name: str = "") -> Process:
        command = [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]
        process = Process(name or module, command, self._environment(), self.folder)
        self.processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        settings = SETTINGS | {
            "broker_url": self.broker_url,
            "redis_url": self.redis_url,
            "database_url": self.database_url,
            "provider_url": self._provider_url,
            "provider_apikey": DEFAULT_APIKEY,
        }
        return {f"PRESEND_{name.upper()}": value for name, value in (settings | self.settings).items()}

    # -- the end ------------------------------------------------------------------------------

    def confirmed(self) -> list[int]:
        """Indices of the messages the broker has confirmed."""
        log = self.folder / "confirmed.log"
        return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []

    def sent(self, *, seconds: float) -> None:
        """Wait until all is sent."""
        assert self.sender
        assert self.sender.ended(seconds=seconds) == 0, "the sender failed"

    def stop_sending(self) -> None:
        """Send nothing more."""
        assert self.sender
        self.sender.kill()

    def settled(self, *, patience_seconds: float = 60.0) -> None:
        """Wait until every confirmed item is settled, or nothing has been for ``patience_seconds``.

        Then for what is unfinished, which the checker would object to as well, only less patiently.
        """
        plan = Plan.of(self.seed, max(self.confirmed()) + 1)
        items = {item.key or item.tag for index in self.confirmed() for item in plan.messages[index].items}
        left, seen_at = len(items), time.monotonic()
        while left and time.monotonic() - seen_at < patience_seconds:
            time.sleep(0.2)
            now = self._unsettled(items, plan)
            if now != left:
                left, seen_at = now, time.monotonic()
            # Redis shows all it holds; RabbitMQ does not show what is unacknowledged
            if self.on_redis and time.monotonic() - seen_at > _REST_SECONDS and not self._unfinished():
                break
        with suppress(AssertionError):
            eventually(
                lambda: not self._unfinished(),
                "the end of everything",
                seconds=patience_seconds,
                each_seconds=0.2,
            )

    def stop(self) -> None:
        """Ask presend's processes to stop; what they held goes back to the queues, so nothing hides there."""
        ours = [process for process in self.processes if process.name.startswith(("worker", "upkeep"))]
        for process in ours:
            if process.alive:
                assert process.stop(seconds=60) == 0, f"{process.name} did not end well: {process.shown()}"
        with suppress(AssertionError):
            eventually(lambda: not self.queued(), "empty queues", seconds=5)

    def evidence(self) -> Evidence:
        """All that is left to see; also what each life of a launcher wrote about its end."""
        confirmed = self.confirmed()
        # the sender may have sent one more than it could log
        plan = Plan.of(self.seed, max(confirmed, default=-1) + 2)
        faults = [*self.faults, *((kill.at, kill.at + _MARGIN_SECONDS) for kill in self.all_kills())]
        logs = [one.log_path for one in self.processes if one.name.startswith(("worker", "upkeep"))]
        return Evidence(
            **evidence.of_plan(plan, confirmed),
            **evidence.of_postgres(self.database_url),
            bills=evidence.bills(self.folder / "bill.log"),
            events=evidence.events(self.folder / "events.log"),
            queued=self.queued(),
            faults=faults,
            leaks=leaks(logs, plan.numbers.values(), DEFAULT_APIKEY),
        )

    def all_kills(self) -> list[Kill]:
        """Kills from here, and those that crash points did."""
        return [*self.kills, *(Kill(**line) for line in evidence.lines(self.folder / "kills.log"))]

    def queued(self) -> dict[str, int]:
        """Messages in the queues, by queue; on Redis also the unacknowledged ones."""
        if self.on_redis:
            return messages_left(self.broker_url, QUEUES)
        found = {}
        with connect_amqp(self.broker_url) as connection:
            for name in (*QUEUES, collector.QUEUE):
                with suppress(amqp.NotFound):
                    found[name] = connection.channel().queue_declare(name, passive=True).message_count
        return {name: left for name, left in found.items() if left}

    def _unfinished(self) -> int:
        """Calls open, numbers in flight, batches unmarked, messages in queues."""
        return self._count(
            "SELECT (SELECT count(*) FROM lookup_call WHERE outcome = 'calling')"
            " + (SELECT count(*) FROM in_flight)"
            " + (SELECT count(*) FROM lookup_batch WHERE emitted_at IS NULL)"
        ) + sum(self.queued().values())

    def _unsettled(self, items: set[Key | str], plan: Plan) -> int:
        """Items with neither a row nor a dead letter; while there are many, how many there are at least."""
        with psycopg.connect(self.database_url) as connection:
            tags = connection.execute("SELECT payload->>'x_tag' FROM dead_letter").fetchall()
            parked = {plan.tags.get(tag) or tag for (tag,) in tags}
            (rows,) = connection.execute("SELECT count(*) FROM check_request").fetchone() or (0,)
            if rows + len(parked) < len(items):
                return len(items) - rows - len(parked)
            keys = connection.execute("SELECT lane, source, reference, attempt FROM check_request")
            return len(items - parked - {Key(*key) for key in keys})

    def _count(self, query: str) -> int:
        with psycopg.connect(self.database_url) as connection:
            return int(connection.execute(query).fetchone()[0])  # type: ignore[index,arg-type]

    def close(self) -> None:
        """Kill every process."""
        for process in self.processes:
            if process.alive:
                process.kill()


@contextmanager
def opened(scene: Scene) -> Iterator[Scene]:
    """Open a scene; at its end every process is killed."""
    try:
        scene.open()
        (scene.folder / "scene.json").write_text(json.dumps({"seed": scene.seed, "settings": scene.settings}))
        yield scene
    finally:
        scene.close()
