"""Services of a test's own, which it may kill, fill and empty: RabbitMQ, PostgreSQL and Redis.

Each writes to the disk before it says so: quorum queues, fsync, ``appendfsync always``. Nobody else's
services are touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from tests.acceptance.waiting import eventually
from tests.services.postgres import postgres_answers
from tests.services.rabbitmq import amqp_answers
from tests.services.redis_databases import redis_answers
from worker.embedded.programs import installed_programs

_START_SECONDS = 60.0
_POSTGRES_USER = "postgres"
"""Whom PostgreSQL runs as where this process is root, which it refuses to be."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Engine(ABC):
    """One service, with its data in one folder whatever happens to its process."""

    name: str
    folder: Path
    port: int = field(default_factory=_free_port)
    _running: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is reached."""

    def start(self) -> float:
        """Start it and wait until it answers; the moment (POSIX seconds) it did."""
        self._spawn()
        eventually(self.answers, f"{self.name} to answer", seconds=_START_SECONDS)
        return time.time()

    def kill(self) -> None:
        """``kill -9`` of all its processes at once."""
        assert self._running
        head = psutil.Process(self._running.pid)
        family = [head, *head.children(recursive=True)]
        for each in family:  # stopped first: nobody tidies up after another's death
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGSTOP)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=10)
        self._running.wait(timeout=10)
        self._running = None

    def close(self) -> None:
        """Kill it if it runs."""
        if self._running is not None:
            self.kill()

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes commands."""

    @abstractmethod
    def _spawn(self) -> None:
        """Start its process on what its folder keeps."""

    def _run(self, command: Sequence[str | Path], *, user: str | None = None, **environment: str) -> None:
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self._running = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **environment}, user=user
            )


@dataclass
class OwnRedis(Engine):
    """Redis as broker or for results, the Valkey from the wheels: what it acknowledged is on the disk."""

    program: Path = field(default_factory=lambda: installed_programs().valkey)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        return redis_answers(self.url)

    def _spawn(self) -> None:
        self.folder.mkdir(exist_ok=True)
        options = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self._run([self.program, *where, *options])

    def client(self) -> redis.Redis:
        """A client of it."""
        return redis.Redis.from_url(self.url)


class OwnPostgres(Engine):
    """PostgreSQL with its own defaults: fsync and synchronous_commit are on."""

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def answers(self) -> bool:
        return postgres_answers(self.url)

    def _spawn(self) -> None:
        user = _POSTGRES_USER if os.geteuid() == 0 else None
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            if user:
                shutil.chown(self.folder, user, user)
            subprocess.run(
                [_program("initdb"), "-D", self.folder, "-U", "postgres", "-A", "trust", "-E", "UTF8"],
                user=user,
                cwd="/",
                check=True,
                capture_output=True,
            )
        options = ["-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        self._run([_program("postgres"), "-D", self.folder, *options], user=user)


class OwnRabbitMQ(Engine):
    """A RabbitMQ node by itself."""

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def answers(self) -> bool:
        return amqp_answers(self.url)

    def _spawn(self) -> None:
        self.folder.mkdir(exist_ok=True)
        configuration = self.folder / "rabbitmq.conf"
        configuration.write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        self._run(
            [_program("rabbitmq-server")],
            HOME=str(self.folder),  # the node's cookie
            RABBITMQ_NODENAME=f"presend{self.port}@localhost",
            RABBITMQ_CONFIG_FILE=str(configuration),
            RABBITMQ_DIST_PORT=str(_free_port()),
            RABBITMQ_MNESIA_BASE=str(self.folder),
            RABBITMQ_LOG_BASE=str(self.folder),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.folder / "plugins"),
            RABBITMQ_CONF_ENV_FILE=str(self.folder / "none"),
        )


@dataclass(frozen=True)
class Engines:
    """All three."""

    rabbitmq: OwnRabbitMQ
    postgres: OwnPostgres
    redis: OwnRedis

    def all(self) -> list[Engine]:
        return [self.rabbitmq, self.postgres, self.redis]


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[OwnRedis]:
    """Run a Redis until the block ends."""
    server = OwnRedis("Redis", folder / "redis")
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """Run a PostgreSQL until the block ends."""
    server = OwnPostgres("PostgreSQL", folder / "postgres")
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def own_engines(folder: Path) -> Iterator[Engines]:
    """Run the three programs of this machine in a folder; at the end they are killed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Engines(
        OwnRabbitMQ("RabbitMQ", folder / "rabbitmq"),
        OwnPostgres("PostgreSQL", folder / "postgres"),
        OwnRedis("Redis", folder / "redis", program=_program("redis-server")),
    )
    try:
        for engine in found.all():
            engine.start()
        yield found
    finally:
        for engine in found.all():
            engine.close()


def _program(name: str) -> Path:
    """A program of this machine, also where Debian keeps those that are not on the path."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), Path("/usr/lib/rabbitmq/bin")]
    # Debian's wrapper in /usr/sbin lets only its own node run
    path = os.pathsep.join([*map(str, reversed(places)), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    assert found, f"this part needs {name}: install it, or run the part where it is"
    return Path(found)
