"""PostgreSQL, Redis and RabbitMQ for the tests: found on this machine, in Docker, or embedded.

Nothing of anybody else's is touched: databases have names of our own, a Redis database is taken only while
nobody else's tests hold it and nothing else is in it, RabbitMQ gets a virtual host of its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.services.containers import docker_runs, in_docker
from tests.services.names import is_stale, missing
from tests.services.postgres import (
    database_url,
    drop_stale_databases,
    own_database,
    postgres_answers,
    run_sql,
)
from tests.services.rabbitmq import VirtualHost, amqp_answers, connect_amqp, delete_queues, virtual_host
from tests.services.redis_databases import flush, messages_left, redis_answers, redis_database
from worker.embedded import Engines, embedded
from worker.errors import SettingsError

__all__ = [
    "Services",
    "VirtualHost",
    "connect_amqp",
    "database_url",
    "delete_queues",
    "drop_stale_databases",
    "flush",
    "is_stale",
    "messages_left",
    "missing",
    "own_database",
    "run_sql",
]

POSTGRES_HERE = "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS_HERE = "redis://127.0.0.1:6379/0"
RABBITMQ_HERE = "amqp://guest:guest@127.0.0.1:5672//"


class Services:
    """The services of one test process, each looked for once, all let go of by `close`."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._engines: Engines | None = None

    def close(self) -> None:
        """Stop what was started, drop what was made."""
        self._open.close()

    def postgres(self) -> str:
        """URL of a maintenance database whose user may create databases."""
        url = os.environ.get("PRESEND_TEST_DATABASE_URL")
        if url or postgres_answers(POSTGRES_HERE):
            return url or POSTGRES_HERE
        if docker_runs():
            return self._open.enter_context(in_docker("postgres"))
        return self._embedded().database_url

    def redis(self) -> str:
        """URL of an empty Redis database, held for this process and flushed at the end."""
        url = os.environ.get("PRESEND_TEST_REDIS_URL")
        if not url and redis_answers(REDIS_HERE):
            url = REDIS_HERE
        if not url and docker_runs():
            url = self._open.enter_context(in_docker("redis"))
        url = url or self._embedded().redis_url
        return self._open.enter_context(redis_database(url))

    def rabbitmq(self) -> VirtualHost:
        """A virtual host of our own, or where none can be made of the given one, shared."""
        url = os.environ.get("PRESEND_TEST_AMQP_URL")
        if not url and amqp_answers(RABBITMQ_HERE):
            url = RABBITMQ_HERE
        if url:
            return self._open.enter_context(virtual_host(url))
        if not docker_runs():
            missing(
                "RabbitMQ", "none on 127.0.0.1:5672, no PRESEND_TEST_AMQP_URL, no Docker; none is embeddable"
            )
        return VirtualHost(self._open.enter_context(in_docker("rabbitmq")), shared=False)

    def _embedded(self) -> Engines:
        if self._engines is None:
            self._engines = self._open.enter_context(_embedded_engines())
        return self._engines


@contextlib.contextmanager
def _embedded_engines() -> Iterator[Engines]:
    """Engines for this process, in a folder a later session finds again, should this one be killed."""
    with contextlib.ExitStack() as running:
        for number in range(16):
            folder = Path(tempfile.gettempdir()) / f"presend-tests-{os.geteuid()}" / str(number)
            try:
                engines = running.enter_context(embedded(folder, durable=False))
            except SettingsError as error:
                if "in use" not in str(error):
                    missing("PostgreSQL", f"nor Valkey: {error}")
            else:
                yield engines
                return
        missing("PostgreSQL", "16 embedded ones run already")
