"""PostgreSQL, Redis and RabbitMQ for the tests: found on this machine, in Docker, or embedded.

Nothing of anybody else's is touched: databases have names of our own, a Redis database is taken only while
nobody else's tests hold it and nothing else is in it, RabbitMQ gets a virtual host of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import amqp
import httpx
import psycopg
import pytest
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.embedded import Engines, embedded
from worker.errors import SettingsError

CONNECT_SECONDS = 3
CONTAINER_SECONDS = 60
STALE_SECONDS = 6 * 3600
"""What a killed session left is removed by a session this much later."""
REDIS_DATABASES = range(8, 16)
"""Redis databases tests may take and flush; 0 to 7 are never touched."""
ALL_PERMISSIONS = {"configure": ".*", "write": ".*", "read": ".*"}
QUEUES = ("recharge", "sms", "presend.dead")
EXCHANGE = "presend.events"

POSTGRES_HERE = "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS_HERE = "redis://127.0.0.1:6379/0"
RABBITMQ_HERE = "amqp://guest:guest@127.0.0.1:5672//"


_numbers = itertools.count(1)


def unique_name(kind: str) -> str:
    """A name no other session uses, whose age can be read from it."""
    return f"presend_test_{int(time.time())}_{os.getpid()}_{next(_numbers)}_{kind}"


def is_stale(name: str) -> bool:
    """Whether `name` is a test's, left by a session long gone."""
    made = re.match(r"presend_test_(\d+)_", name)
    return made is not None and time.time() - int(made[1]) > STALE_SECONDS


def missing(service: str, why: str) -> None:
    """A service that is nowhere to be had: a skip at home, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no {service}: {why}")
    pytest.skip(f"no {service}: {why}")


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
        if url or _postgres_answers(POSTGRES_HERE):
            return url or POSTGRES_HERE
        if docker_runs():
            return self._open.enter_context(_container("postgres"))
        return self._embedded().database_url

    def redis(self) -> str:
        """URL of an empty Redis database, held for this process and flushed at the end."""
        url = os.environ.get("PRESEND_TEST_REDIS_URL") or REDIS_HERE
        if "PRESEND_TEST_REDIS_URL" not in os.environ and not _redis_answers(url):
            url = (
                self._open.enter_context(_container("redis")) if docker_runs() else self._embedded().redis_url
            )
        return self._open.enter_context(_redis_database(url))

    def rabbitmq(self) -> VirtualHost:
        """A virtual host of our own, or where none can be made of the given one, shared."""
        url = os.environ.get("PRESEND_TEST_AMQP_URL")
        if not url and _amqp_answers(RABBITMQ_HERE):
            url = RABBITMQ_HERE
        if url:
            return self._open.enter_context(_virtual_host(url))
        if not docker_runs():
            missing(
                "RabbitMQ", "none on 127.0.0.1:5672, no PRESEND_TEST_AMQP_URL, no Docker; none is embeddable"
            )
        return VirtualHost(self._open.enter_context(_container("rabbitmq")), shared=False)

    def _embedded(self) -> Engines:
        if self._engines is None:
            self._engines = self._open.enter_context(_embedded_engines())
        return self._engines


# PostgreSQL


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
            row = connection.execute(
                "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            return row == (True,)
    except psycopg.Error:
        return False


def database_url(server: str, name: str) -> str:
    """The server's URL with another database."""
    server, _, query = server.partition("?")
    base = server.rpartition("/")[0]
    return f"{base}/{name}" + (f"?{query}" if query else "")


def run_sql(server: str, statement: str, *names: str) -> None:
    """One statement outside any transaction, `{}` filled with quoted names."""
    composed = sql.SQL(statement).format(*map(sql.Identifier, names))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(composed)


def drop_database(server: str, name: str) -> None:
    """Drop it although connections linger."""
    run_sql(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def drop_stale_databases(server: str) -> None:
    """Drop what killed sessions left."""
    with psycopg.connect(server, autocommit=True) as connection:
        names = [name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()]
    for name in filter(is_stale, names):
        drop_database(server, name)


# Redis


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_SECONDS, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextlib.contextmanager
def _redis_database(server: str) -> Iterator[str]:
    """Hold a database that no other test session holds, and that is empty or was left by a killed one."""
    where = urlsplit(server)
    for number in REDIS_DATABASES:
        url = urlunsplit(where._replace(path=f"/{number}"))
        name = f"redis-{where.hostname}-{where.port}-{number}"
        with try_lock(name) as locked:
            if not locked or not (_empty(url) or lock_path(name).stat().st_size):
                continue
            with contextlib.suppress(PermissionError):  # another user's file: then a killed session stays
                lock_path(name).write_text("in use by tests; if nobody holds the lock, left by them\n")
            yield url
            flush(url)
            with contextlib.suppress(PermissionError):
                os.truncate(lock_path(name), 0)
            return
    pytest.fail(f"no free Redis database among 8 to 15 on {where.hostname}: each is held or has keys in it")


def _empty(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return client.dbsize() == 0


def flush(url: str) -> None:
    """Empty this one database."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()


# RabbitMQ


def connect_amqp(url: str) -> amqp.Connection:
    """A plain AMQP connection."""
    where = urlsplit(url)
    connection = amqp.Connection(
        host=f"{where.hostname}:{where.port or 5672}",
        userid=where.username or "guest",
        password=where.password or "guest",
        virtual_host=where.path[1:] or "/",
        connect_timeout=CONNECT_SECONDS,
    )
    connection.connect()
    return connection


def _amqp_answers(url: str) -> bool:
    try:
        connect_amqp(url).close()
    except (OSError, amqp.AMQPError):
        return False
    return True


@dataclass(frozen=True)
class VirtualHost:
    """Where the tests' queues live."""

    url: str
    # with other test processes: one test at a time
    shared: bool

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """The URL, for one test alone, without presend's queues and exchange before and after."""
        with (
            lock(f"rabbitmq-{quote(self.url.rpartition('@')[2], safe='')}") if self.shared else nullcontext()
        ):
            if self.shared:
                _refuse_queues_in_use(self.url)
            delete_queues(self.url)
            try:
                yield self.url
            finally:
                delete_queues(self.url)


@contextlib.contextmanager
def _virtual_host(url: str) -> Iterator[VirtualHost]:
    """A virtual host of this process, made by whichever way the broker offers, or else the given one."""
    name, where = unique_name("vhost"), urlsplit(url)
    for administer in (_by_http, _by_rabbitmqctl):
        admin = administer(url)
        if not admin("add", name):
            continue
        try:
            for stale in filter(is_stale, admin("list", "").split()):
                admin("delete", stale)
            yield VirtualHost(urlunsplit(where._replace(path=f"/{quote(name)}")), shared=False)
        finally:
            admin("delete", name)
        return
    yield VirtualHost(url, shared=True)


def _by_http(url: str) -> Callable[[str, str], str]:
    """Add (for the URL's user), list or delete virtual hosts by the management plugin on port 15672."""
    where = urlsplit(url)
    user = where.username or "guest"
    root = f"http://{where.hostname}:15672/api"
    calls: dict[str, list[tuple[str, str, Any]]] = {
        "add": [("PUT", "/vhosts/{}", {}), ("PUT", f"/permissions/{{}}/{user}", ALL_PERMISSIONS)],
        "list": [("GET", "/vhosts", None)],
        "delete": [("DELETE", "/vhosts/{}", None)],
    }

    def administer(verb: str, name: str) -> str:
        names: list[str] = []
        for method, path, body in calls[verb]:
            try:
                answer = httpx.request(
                    method,
                    root + path.format(name),
                    json=body,
                    auth=(user, where.password or "guest"),
                    timeout=CONNECT_SECONDS,
                ).raise_for_status()
                names = [each["name"] for each in answer.json()] if verb == "list" else [name]
            except httpx.HTTPError:
                return ""
        return " ".join(names)

    return administer


def _by_rabbitmqctl(url: str) -> Callable[[str, str], str]:
    """The same by rabbitmqctl, which only root and the broker's user may run, on its machine."""
    where = urlsplit(url)
    command = shutil.which("rabbitmqctl", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") or ""
    here = command != "" and where.hostname in {"127.0.0.1", "localhost"}
    grant = ["-p", "{}", where.username or "guest", ".*", ".*", ".*"]
    calls = {
        "add": [["add_vhost", "{}"], ["set_permissions", *grant]],
        "list": [["list_vhosts", "--silent"]],
        "delete": [["delete_vhost", "{}"]],
    }

    def administer(verb: str, name: str) -> str:
        said = ""
        for call in calls[verb] if here else []:
            arguments = [command, *(word.format(name) for word in call)]
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                return ""
            said = done.stdout or name
        return said

    return administer


def _refuse_queues_in_use(url: str) -> None:
    """Queues of these names that somebody works with are not a test's to delete."""
    for queue in QUEUES:
        with contextlib.closing(connect_amqp(url)) as connection:
            try:
                _, messages, consumers = connection.channel().queue_declare(queue, passive=True)
            except amqp.NotFound:
                continue
        if messages or consumers:
            pytest.fail(
                f"{url} has a queue {queue} with {messages} messages and {consumers} consumers: "
                "point PRESEND_TEST_AMQP_URL elsewhere, or delete it"
            )


def delete_queues(url: str) -> None:
    """Delete presend's queues and exchange, whatever they hold."""
    with contextlib.closing(connect_amqp(url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue)
        channel.exchange_delete(EXCHANGE)


# Locks between test processes, let go of by the kernel when one dies


def lock_path(name: str) -> Path:
    """The file of a lock; all users of the machine share it."""
    return Path(tempfile.gettempdir()) / f"presend-tests-{name}.lock"


def _lock_file(name: str) -> int:
    """Open a lock file anybody may use: read-only is enough for a lock, and works on another user's file."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(lock_path(name), os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return os.open(lock_path(name), os.O_RDONLY | os.O_NOFOLLOW)


@contextlib.contextmanager
def try_lock(name: str) -> Iterator[bool]:
    """Whether the lock is ours for this block."""
    file = _lock_file(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Wait for the lock, hold it for this block."""
    file = _lock_file(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


# Docker and the embedded engines


@cache
def docker_runs() -> bool:
    """Whether a Docker daemon answers."""
    import docker

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # where none answers docker leaves its socket open
        try:
            with contextlib.closing(docker.from_env(timeout=CONNECT_SECONDS)) as client:
                return bool(client.ping())
        except Exception:  # noqa: BLE001  # whatever the reason, it is not there
            return False
        finally:
            gc.collect()


@dataclass(frozen=True)
class Container:
    """How a service runs in Docker, in the versions docker-compose.yml names."""

    image: str
    port: int
    url: str
    environment: dict[str, str]
    answers: Callable[[str], bool]


CONTAINERS = {
    "postgres": Container(
        "postgres:18",
        5432,
        "postgresql://postgres:postgres@{}:{}/postgres",
        {"POSTGRES_PASSWORD": "postgres"},
        _postgres_answers,
    ),
    "redis": Container("valkey/valkey:9", 6379, "redis://{}:{}/0", {}, _redis_answers),
    "rabbitmq": Container(
        "rabbitmq:4-management",
        5672,
        "amqp://presend:presend@{}:{}//",
        {"RABBITMQ_DEFAULT_USER": "presend", "RABBITMQ_DEFAULT_PASS": "presend"},
        _amqp_answers,
    ),
}


@contextlib.contextmanager
def _container(service: str) -> Iterator[str]:
    """Run one service in Docker; yields its URL once it answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers deprecates its own parts on import
        from testcontainers.core.container import DockerContainer

        wanted = CONTAINERS[service]
        container = (
            DockerContainer(wanted.image).with_exposed_ports(wanted.port).with_envs(**wanted.environment)
        )
        container.start()
    try:
        url = wanted.url.format(container.get_container_host_ip(), container.get_exposed_port(wanted.port))
        deadline = time.monotonic() + CONTAINER_SECONDS
        while not wanted.answers(url):
            if time.monotonic() > deadline:
                pytest.fail(f"{wanted.image} does not answer after {CONTAINER_SECONDS} s")
            time.sleep(0.2)
        yield url
    finally:
        container.stop()


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
