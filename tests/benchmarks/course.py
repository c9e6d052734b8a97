"""Where contestants run: one virtual host, a database for each run, and the checks at its end."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import psutil
import psycopg
import redis

from tests import services
from tests.acceptance.processes import Process
from tests.benchmarks import filling
from tests.benchmarks.contestants import PRESEND, RAW, Contestant
from tests.services import connect_amqp, messages_left
from worker.sandbox.provider import DEFAULT_APIKEY
from worker.storage.migrations import upgrade

TAP, _EXCHANGE = "bench.tap", "presend.events"
_QUEUES = (filling.QUEUE, "presend.dead")
_LOOK_SECONDS = 0.25
_STALLED_SECONDS = 40.0
_TOLD = "SELECT COALESCE(sum(numbers), 0) FROM lookup_batch WHERE emitted_at > now() - interval '1 hour'"
_EVENT_ID = re.compile(rb'"id":"([0-9a-f-]{36})"')
_DECIDED = "SELECT event_id::text FROM check_request WHERE decided_at > now() - interval '1 hour'"
_BACKENDS = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _unwatched(_pid: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Drained:
    """What one run came to."""

    # decided items a second whose events the subscriber has, between the first and the last tenth
    rate: float
    # for one item, in that time: of all its processes, and of the Postgres backends that serve them
    cpu_microseconds: float = 0.0
    postgres_microseconds: float = 0.0
    # what was lost or done twice; nothing where all was as it should be
    faults: dict[str, int] = field(default_factory=dict)


class _Look(NamedTuple):
    """What was seen at a moment of a run."""

    events: float
    # monotonic seconds
    at: float
    # seconds since their starts, of the contestant's processes and of the Postgres backends
    cpu: float = 0.0
    postgres_cpu: float = 0.0


@dataclass
class Course:
    """The services, and a folder for logs."""

    broker_url: str
    redis_url: str
    results_url: str
    postgres_url: str
    template: str
    folder: Path
    _runs: int = 0

    def drain(
        self,
        who: Contestant,
        watch: Callable[[int], AbstractContextManager[None]] = _unwatched,
        *,
        kept_database: str | None = None,
    ) -> Drained:
        """Fill the queue, let the contestant drain it, check what came of every item.

        ``watch`` is given the process id of one of its workers while it drains. ``kept_database`` is the URL
        of a database to use in place of a new one; rows that are not of this hour are none of the run's.
        """
        broker_url = self.redis_url if who.on_redis else self.broker_url
        with ExitStack() as open_here:
            database_url = kept_database or open_here.enter_context(self.database())
            self.clear(who)
            filling.fill(broker_url, who.items, many=who.many, results=who.results)
            url, running = self.start(open_here, who, database_url)
            if who.kind == RAW:
                assert running[0].ended(seconds=300) == 0, running[0].shown()
                return Drained(float(running[0].log.split()[1]), faults=self._left(broker_url))
            with watch(running[-1].pid):
                looks = self._wait(broker_url, database_url, who, [each.pid for each in running])
            for process in running:
                assert process.stop(seconds=60) == 0 or who.kind != PRESEND, process.shown()
            return self._judged(who, broker_url, database_url, url, looks)

    def start(
        self, open_here: ExitStack, who: Contestant, database_url: str, *, provider_url: str | None = None
    ) -> tuple[str, list[Process]]:
        """Start the contestant's processes, and a provider unless there is one; its URL, and these."""
        self._runs += 1
        broker_url = self.redis_url if who.on_redis else self.broker_url
        url = provider_url or self._provider(open_here, who.latency)
        return url, [
            self.process(
                open_here,
                f"{who.name.replace(' ', '-')}-{number}",
                command,
                PRESEND_BROKER_URL=broker_url,
                PRESEND_REDIS_URL=self.results_url,
                PRESEND_DATABASE_URL=database_url,
                PRESEND_PROVIDER_URL=url,
                PRESEND_PROVIDER_APIKEY=DEFAULT_APIKEY,
                **who.environment(),
            )
            for number, command in enumerate(who.commands(broker_url))
        ]

    def _judged(
        self, who: Contestant, broker_url: str, database_url: str, provider_url: str, looks: Sequence[_Look]
    ) -> Drained:
        with psycopg.connect(database_url) as database:
            rows = database.execute(_DECIDED).fetchall()
        events = self._events(broker_url)
        with urlopen(f"{provider_url}/bill", timeout=10) as answer:
            bill = json.loads(answer.read())
        wanted = {row[0].encode() for row in rows}
        faults = {
            "undecided": who.items - len(rows),
            "rows without event": len(wanted - set(events)),
            "events twice": len(events) - len(set(events)),
            "bought twice": bill["again"],
            "not bought": max(0, len(rows) - bill["billed"]),
            **self._left(broker_url),
        }
        begin, end = (_at(looks, share * who.items) for share in (0.1, 0.9))
        events_between = max(1.0, end.events - begin.events)
        return Drained(
            round(events_between / (end.at - begin.at)) if end.at > begin.at else 0,
            round((end.cpu - begin.cpu) / events_between * 1e6, 1),
            round((end.postgres_cpu - begin.postgres_cpu) / events_between * 1e6, 1),
            faults={name: number for name, number in faults.items() if number},
        )

    def _wait(self, broker_url: str, database_url: str, who: Contestant, pids: Sequence[int]) -> list[_Look]:
        """Look until as many events came as there are items, or none for a while."""
        looks, family = [_Look(0, time.monotonic())], []
        with (
            psycopg.connect(database_url, autocommit=True) as database,
            self._events_waiting(broker_url) as messages,
        ):
            # a batch in the subscriber's queue is not counted without taking it out: its confirm is
            waiting = partial(_told, database) if "PRESEND_EVENT_BATCH" in who.settings else messages
            while looks[-1].events < who.items and time.monotonic() - looks[-1].at < _STALLED_SECONDS:
                time.sleep(_LOOK_SECONDS)
                came = waiting()
                if came > looks[-1].events:
                    family = family or _family(pids)  # by then every pool has its processes
                    backends = [pid for (pid,) in database.execute(_BACKENDS)]
                    cpu = (sum(map(_cpu_seconds, family)), sum(map(_cpu_seconds, backends)))
                    looks.append(_Look(came, time.monotonic(), *cpu))
        return looks

    def waiting(self) -> int:
        """Messages that wait in the drained queue over RabbitMQ; those a worker holds are not among them."""
        with closing(connect_amqp(self.broker_url)) as connection:
            return int(connection.channel().queue_declare(filling.QUEUE, passive=True).message_count)

    def _provider(self, open_here: ExitStack, latency: float) -> str:
        provider = self.process(
            open_here, "provider", [sys.executable, "-m", "tests.benchmarks.provider", str(latency)]
        )
        provider.wait_for(" ready")
        return provider.log.split()[1]

    def process(self, open_here: ExitStack, name: str, command: list[str], **environment: str) -> Process:
        """Start a process that ends with the run."""
        process = Process(f"{self._runs:03}-{name}", command, environment, self.folder)
        open_here.callback(lambda: process.alive and process.kill())
        return process

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database with presend's tables."""
        with services.own_database(self.postgres_url, "bench", template=self.template) as name:
            yield services.database_url(self.postgres_url, name)

    def clear(self, who: Contestant) -> None:
        """Empty queues, and a subscriber that is bound and never reads: its queue keeps what it is sent."""
        for url in (self.redis_url, self.results_url):
            services.flush(url)
        if who.on_redis:
            return
        filling.declare(self.broker_url, queue_type=who.queue)
        with closing(connect_amqp(self.broker_url)) as connection:
            channel = connection.channel()
            channel.exchange_declare(_EXCHANGE, "topic", durable=True, auto_delete=False)
            channel.queue_delete(TAP)
            channel.queue_declare(
                TAP, durable=True, auto_delete=False, arguments={"x-queue-type": who.events}
            )
            channel.queue_bind(TAP, _EXCHANGE, "#")
            if who.kind == PRESEND and who.settings.get("PRESEND_TASK_EVENTS") == "true":
                # Flower's queue, as Flower declares it; Flower itself is on another machine
                channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
                channel.queue_declare("bench.flower", durable=False, arguments={"x-message-ttl": 5000})
                channel.queue_bind("bench.flower", "celeryev", "#")

    @contextmanager
    def _events_waiting(self, broker_url: str) -> Iterator[Callable[[], int]]:
        """How many events the subscriber has been sent."""
        if broker_url.startswith("redis"):
            with redis.Redis.from_url(broker_url) as client:
                yield lambda: int(client.xlen(_EXCHANGE))
        else:
            with closing(connect_amqp(broker_url)) as connection:
                channel = connection.channel()
                yield lambda: int(channel.queue_declare(TAP, passive=True).message_count)

    def _events(self, broker_url: str) -> list[bytes]:
        """The ids of all events the subscriber was sent."""
        if broker_url.startswith("redis"):
            with redis.Redis.from_url(broker_url) as client:
                entries: Any = client.xrange(_EXCHANGE)
            return [each for _, fields in entries for each in _ids(next(iter(fields.values())))]
        bodies: list[Any] = []
        with closing(connect_amqp(broker_url)) as connection:
            channel = connection.channel()
            waiting = channel.queue_declare(TAP, passive=True).message_count
            channel.basic_consume(TAP, no_ack=True, callback=lambda message: bodies.append(message.body))
            while len(bodies) < waiting:
                connection.drain_events(timeout=30)
        return [each for body in bodies for each in _ids(body)]

    def _left(self, broker_url: str) -> dict[str, int]:
        """Messages that are still queued though everybody has stopped."""
        if broker_url.startswith("redis"):
            return {f"left in {name}": left for name, left in messages_left(broker_url, _QUEUES).items()}
        left = self.waiting()
        return {f"left in {filling.QUEUE}": left} if left else {}


@contextmanager
def course(folder: Path) -> Iterator[Course]:
    """Lay one out on the services the tests find."""
    found = services.Services()
    try:
        server = found.postgres()
        with services.own_database(server, "bench") as template:
            upgrade(services.database_url(server, template))
            with found.rabbitmq().held() as broker_url:
                yield Course(broker_url, found.redis(), found.redis(), server, template, folder)
    finally:
        found.close()


def _at(looks: Sequence[_Look], events: float) -> _Look:
    """What would have been seen when just so many events had come, straight between two looks."""
    for before, after in pairwise(looks):
        if after.events >= events:
            share = (events - before.events) / (after.events - before.events)
            return _Look(*(one + share * (other - one) for one, other in zip(before, after, strict=True)))
    return looks[-1]


def _told(database: psycopg.Connection) -> int:
    """Items whose events the broker has confirmed."""
    return int(database.execute(_TOLD).fetchall()[0][0])


def _ids(body: Any) -> list[bytes]:
    """The ids of the events in a message."""
    found = _EVENT_ID.findall(body if isinstance(body, bytes) else bytes(memoryview(body)))
    assert found, "an event without id"
    return found


def _family(pids: Sequence[int]) -> list[int]:
    """These processes and their children, which are found by reading every process there is."""
    children = (child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))
    return [*pids, *children]


def _cpu_seconds(pid: int) -> float:
    """Of a process; a backend may have ended meanwhile."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system
