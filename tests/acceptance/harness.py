"""A place where presend runs for one test: real processes, real engines, and the simulated provider."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery
from kombu import pools
from psycopg.rows import dict_row

from tests.acceptance.events import EventTap
from tests.acceptance.processes import Process, celery
from tests.acceptance.producer import producer
from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.services import connect_amqp, messages_left
from worker.sandbox.provider import DEFAULT_APIKEY
from worker.sandbox.serving import serving

RELAYED_SECONDS = 45.0
QUEUES = ("recharge", "sms", "presend.dead")


@dataclass
class Place:
    """Everything a test needs, and the processes it started."""

    broker_url: str
    redis_url: str
    database_url: str
    provider_url: str
    sandbox: WatchedSandbox
    folder: Path
    events: EventTap
    producer: Celery
    # PRESEND_* of every process, to which each may add
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def on_redis(self) -> bool:
        return self.broker_url.startswith("redis")

    # -- processes ----------------------------------------------------------------------------

    def worker(self, *lanes: str, ready: bool = True, **settings: str) -> Process:
        """``celery -A worker.app worker -Q <lanes>``, waiting for it to consume."""
        number = next(self._numbers)
        command = celery("worker", "-Q", ",".join(lanes), "-n", f"acceptance{number}@%h", "-l", "INFO")
        process = self.run(f"{'-'.join(lanes)}-{number}", command, **settings)
        if ready:
            process.wait_for(" ready.")
        return process

    def upkeep(self, **settings: str) -> Process:
        """The process that sends what was left unsent and sweeps up."""
        command = [sys.executable, "-m", "worker.cli", "worker", "--lane", "upkeep"]
        process = self.run(f"upkeep-{next(self._numbers)}", command, **settings)
        process.wait_for("upkeep_started")
        return process

    def run(self, name: str, command: list[str], **settings: str) -> Process:
        """Any command, in presend's environment."""
        process = Process(name, command, {**self.environment(), **_named(settings)}, self.folder)
        self.processes.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """The settings as a process of presend reads them."""
        return {
            "PRESEND_BROKER_URL": self.broker_url,
            "PRESEND_REDIS_URL": self.redis_url,
            "PRESEND_DATABASE_URL": self.database_url,
            "PRESEND_PROVIDER_URL": self.provider_url,
            "PRESEND_PROVIDER_APIKEY": DEFAULT_APIKEY,
            **_named(self.settings),
        }

    # -- what a producer does -----------------------------------------------------------------

    def send(self, task: str, **arguments: Any) -> Any:
        """Send one message; its ``AsyncResult``."""
        return self.producer.send_task(task, kwargs=arguments)

    # -- what is left to see ------------------------------------------------------------------

    def send_many(self, lane: str, numbers: Sequence[str], **arguments: Any) -> None:
        """Send a single message for each number, results unwanted; its reference is ``prefix`` + number.

        ``tagged`` gives it the reference as its tag, too.
        """
        task, reference = (
            ("sms.recheck", "message_id") if lane == "sms" else ("recharge.precheck", "order_id")
        )
        arguments = {"operator": "CMCC"} | arguments
        prefix, tagged = arguments.pop("prefix", "R"), arguments.pop("tagged", False)
        with self.producer.connection_for_write() as connection, connection.channel() as channel:
            publisher = self.producer.amqp.Producer(channel)
            for number in numbers:
                name = f"{prefix}{number}"
                tag = {"x_tag": name} if tagged else {}
                self.producer.send_task(
                    task,
                    kwargs={reference: name, "mobile": number, **tag, **arguments},
                    producer=publisher,
                    ignore_result=True,
                )

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What a query of Postgres gives."""
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(query, values).fetchall()

    def count(self, table: str) -> int:
        """Rows of a table."""
        return int(self.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    def ledger(self) -> list[dict[str, Any]]:
        """All requests with their decisions, in the order of their keys."""
        return self.rows("SELECT * FROM check_request ORDER BY lane, source, reference, attempt")

    def decided(self, count: int, *, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait for so many decided requests; the ledger."""
        deadline = time.monotonic() + seconds
        while self.count("check_request") < count and time.monotonic() < deadline:
            time.sleep(0.05)
        rows = self.ledger()
        assert len(rows) == count, f"{len(rows)} of {count} requests decided within {seconds} s"
        return rows

    def check_settled(self, count: int, *, seconds: float = 30.0) -> list[dict[str, Any]]:
        """Wait for so many decided requests and the end of everything else that goes on; the ledger."""
        rows = self.decided(count, seconds=seconds)
        # what was committed by a process that died before it published is relayed after 30 s
        self.check_events(seconds=RELAYED_SECONDS)
        eventually(lambda: not self.unfinished(), "the end of everything", seconds=RELAYED_SECONDS)
        return rows

    def messages_left(self) -> dict[str, int]:
        """Messages in the queues, by queue; on Redis also those delivered and not acknowledged (`held`)."""
        if self.on_redis:
            return messages_left(self.broker_url, QUEUES)
        connection = connect_amqp(self.broker_url)
        left = {}
        for name in QUEUES:
            channel = connection.channel()
            try:
                left[name] = channel.queue_declare(name, passive=True).message_count
            except Exception:  # noqa: BLE001 - no such queue, so nothing in it
                continue
        connection.close()
        return {name: number for name, number in left.items() if number}

    def stop(self) -> None:
        """Ask every process to stop; each must do so in order. Then nothing may be left."""
        for process in self.processes:
            if process.alive:
                assert process.stop() == 0, f"{process.name} did not end well"
        # a broker takes back what a stopped worker held
        eventually(lambda: not self.messages_left(), f"empty queues, not {self.messages_left()}", seconds=5)

    # -- what must hold after any test --------------------------------------------------------

    def check_events(self, *, seconds: float = 20.0) -> None:
        """Every decided key has its event, and every event its key (or its change)."""
        wanted = {str(row["event_id"]) for row in self.ledger()}
        wanted |= {str(row["event_id"]) for row in self.rows("SELECT event_id FROM port_change")}
        eventually(
            lambda: wanted <= self.events.by_id().keys(), "an event for every decided key", seconds=seconds
        )
        assert self.events.by_id().keys() == wanted

    def unfinished(self) -> dict[str, list[dict[str, Any]]]:
        """Calls that are open, numbers in flight, batches unsent."""
        left = {
            "calls": self.rows("SELECT * FROM lookup_call WHERE outcome = 'calling'"),
            "numbers": self.rows("SELECT * FROM in_flight"),
            "batches": self.rows("SELECT * FROM lookup_batch WHERE emitted_at IS NULL"),
        }
        return {name: rows for name, rows in left.items() if rows}


@contextmanager
def place(
    *,
    broker_url: str,
    redis_url: str,
    database_url: str,
    folder: Path,
    sandbox: WatchedSandbox,
) -> Iterator[Place]:
    """Lay out a place; at the end every process is killed and its log's end printed (pytest shows it)."""
    tap = EventTap(broker_url)
    with serving(sandbox) as provider_url:
        here = Place(
            broker_url,
            redis_url,
            database_url,
            provider_url,
            sandbox,
            folder,
            tap,
            producer(broker_url, redis_url),
        )
        try:
            yield here
        finally:
            for process in here.processes:
                if process.alive:
                    process.kill()
                print(process.shown())  # noqa: T201
            _forget(here.producer)
            tap.close()


def _forget(app: Celery) -> None:
    """Close a producer's connections; a pooled one would take the next test's queues for declared."""
    app.backend.result_consumer.stop()
    # results still referred to would open it once more to unsubscribe
    app.backend.result_consumer._pubsub = None
    app.backend.client.connection_pool.disconnect()
    app.close()
    pools.reset()


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PRESEND_{name.upper()}": value for name, value in settings.items()}
