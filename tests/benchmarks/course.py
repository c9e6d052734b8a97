"""Where contestants run: one virtual host, a database for each run, and the checks at its end."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
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

_TAP, _EXCHANGE = "bench.tap", "presend.events"
_QUEUES = (filling.QUEUE, "presend.dead")
_LOOK_SECONDS = 0.25
_STALLED_SECONDS = 20.0
_EVENT_ID = re.compile(rb'"id":"([0-9a-f-]{36})"')
_RATE = """
    SELECT 0.8 * count(*) / extract(epoch FROM
        percentile_disc(0.9) WITHIN GROUP (ORDER BY decided_at)
        - percentile_disc(0.1) WITHIN GROUP (ORDER BY decided_at))
    FROM check_request
"""
_BACKENDS = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def _unwatched(_pid: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Drained:
    """What one run came to."""

    # decided rows a second between the first and the last tenth
    rate: float
    # for one item, in that time: of all its processes, and of the Postgres backends that serve them; 0 where
    # the run was too short to tell
    cpu_microseconds: float = 0.0
    postgres_microseconds: float = 0.0
    # what was lost or done twice; nothing where all was as it should be
    faults: dict[str, int] = field(default_factory=dict)


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
        self, who: Contestant, watch: Callable[[int], AbstractContextManager[None]] = _unwatched
    ) -> Drained:
        """Fill the queue, let the contestant drain it, check what came of every item.

        ``watch`` is given the process id of one of its workers while it drains.
        """
        self._runs += 1
        broker_url = self.redis_url if who.on_redis else self.broker_url
        with ExitStack() as open_here:
            database_url = open_here.enter_context(self._database())
            self._clear(who)
            filling.fill(broker_url, who.items, many=who.many, results=who.results)
            provider = self._process(
                open_here, "provider", [sys.executable, "-m", "tests.benchmarks.provider", str(who.latency)]
            )
            provider.wait_for(" ready")
            url = provider.log.split()[1]
            running = [
                self._process(
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
            if who.kind == RAW:
                assert running[0].ended(seconds=300) == 0, running[0].shown()
                return Drained(float(running[0].log.split()[1]), faults=self._left(broker_url))
            with watch(running[-1].pid):
                cpu = self._wait(broker_url, database_url, who.items, [each.pid for each in running])
            for process in running:
                assert process.stop(seconds=60) == 0 or who.kind != PRESEND, process.shown()
            return self._judged(who, broker_url, database_url, url, cpu)

    def _judged(
        self, who: Contestant, broker_url: str, database_url: str, provider_url: str, cpu: Sequence[float]
    ) -> Drained:
        with psycopg.connect(database_url) as database:
            rows = database.execute("SELECT event_id::text FROM check_request").fetchall()
            rate = database.execute(_RATE).fetchone()
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
        return Drained(
            round(float(rate[0] if rate and rate[0] else 0)),
            *(round(each, 1) for each in cpu),
            faults={name: number for name, number in faults.items() if number},
        )

    def _wait(
        self, broker_url: str, database_url: str, items: int, pids: Sequence[int]
    ) -> tuple[float, float]:
        """Until as many events came as there are items, or none for a while.

        Returns the CPU of the processes and of their Postgres backends for an item, in microseconds, between
        the first and the last tenth.
        """
        seen, seen_at = 0, time.monotonic()
        spent: list[tuple[int, float, float]] = []
        with psycopg.connect(database_url, autocommit=True) as database:
            while seen < items and time.monotonic() - seen_at < _STALLED_SECONDS:
                time.sleep(_LOOK_SECONDS)
                came = self._events_waiting(broker_url)
                if came > seen:
                    seen, seen_at = came, time.monotonic()
                if items // 10 <= seen <= items - items // 10:
                    backends = [pid for (pid,) in database.execute(_BACKENDS)]
                    spent.append((seen, sum(map(_cpu_seconds, pids)), sum(map(_cpu_seconds, backends))))
        if len(spent) < 2 or spent[0][0] == spent[-1][0]:
            return 0.0, 0.0
        done, ours, postgres = (last - first for first, last in zip(spent[0], spent[-1], strict=True))
        return ours / done * 1e6, postgres / done * 1e6

    def _process(self, open_here: ExitStack, name: str, command: list[str], **environment: str) -> Process:
        process = Process(f"{self._runs:03}-{name}", command, environment, self.folder)
        open_here.callback(lambda: process.alive and process.kill())
        return process

    @contextmanager
    def _database(self) -> Iterator[str]:
        name = services.unique_name("bench")
        services.run_sql(self.postgres_url, "CREATE DATABASE {} TEMPLATE {}", name, self.template)
        try:
            yield services.database_url(self.postgres_url, name)
        finally:
            services.drop_database(self.postgres_url, name)

    def _clear(self, who: Contestant) -> None:
        """Empty queues, and a subscriber that is bound and never reads: its queue keeps what it is sent."""
        for url in (self.redis_url, self.results_url):
            services.flush(url)
        if who.on_redis:
            return
        filling.declare(self.broker_url, queue_type=who.queue)
        with closing(connect_amqp(self.broker_url)) as connection:
            channel = connection.channel()
            channel.exchange_declare(_EXCHANGE, "topic", durable=True, auto_delete=False)
            channel.queue_delete(_TAP)
            channel.queue_declare(
                _TAP, durable=True, auto_delete=False, arguments={"x-queue-type": who.events}
            )
            channel.queue_bind(_TAP, _EXCHANGE, "#")
            if who.kind == PRESEND and who.settings.get("PRESEND_TASK_EVENTS") == "true":
                # Flower's queue, as Flower declares it; Flower itself is on another machine
                channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
                channel.queue_declare("bench.flower", durable=False, arguments={"x-message-ttl": 5000})
                channel.queue_bind("bench.flower", "celeryev", "#")

    def _events_waiting(self, broker_url: str) -> int:
        if broker_url.startswith("redis"):
            with redis.Redis.from_url(broker_url) as client:
                return int(client.xlen(_EXCHANGE))
        with closing(connect_amqp(broker_url)) as connection:
            return int(connection.channel().queue_declare(_TAP, passive=True).message_count)

    def _events(self, broker_url: str) -> list[bytes]:
        """The ids of all events the subscriber was sent."""
        if broker_url.startswith("redis"):
            with redis.Redis.from_url(broker_url) as client:
                entries: Any = client.xrange(_EXCHANGE)
            return [_id(fields[b"event"]) for _, fields in entries]
        found: list[bytes] = []
        with closing(connect_amqp(broker_url)) as connection:
            channel = connection.channel()
            waiting = channel.queue_declare(_TAP, passive=True).message_count
            channel.basic_consume(_TAP, no_ack=True, callback=lambda message: found.append(_id(message.body)))
            while len(found) < waiting:
                connection.drain_events(timeout=30)
        return found

    def _left(self, broker_url: str) -> dict[str, int]:
        """Messages that are still queued though everybody has stopped."""
        if broker_url.startswith("redis"):
            return {f"left in {name}": left for name, left in messages_left(broker_url, _QUEUES).items()}
        with closing(connect_amqp(broker_url)) as connection:
            left = connection.channel().queue_declare(filling.QUEUE, passive=True).message_count
        return {f"left in {filling.QUEUE}": int(left)} if left else {}


@contextmanager
def course(folder: Path) -> Iterator[Course]:
    """Lay one out on the services the tests find."""
    found = services.Services()
    try:
        server = found.postgres()
        template = services.unique_name("bench")
        services.run_sql(server, "CREATE DATABASE {}", template)
        try:
            upgrade(services.database_url(server, template))
            with found.rabbitmq().held() as broker_url:
                yield Course(broker_url, found.redis(), found.redis(), server, template, folder)
        finally:
            services.drop_database(server, template)
    finally:
        found.close()


def _id(body: Any) -> bytes:
    found = _EVENT_ID.search(body if isinstance(body, bytes) else bytes(memoryview(body)))
    assert found is not None, "an event without id"
    return found[1]


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children; a backend may have ended meanwhile."""
    try:
        process = psutil.Process(pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(one.user + one.system for one in times)
