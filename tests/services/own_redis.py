"""A Redis of a test's own, which it may kill, fill and empty: the Valkey from the wheels, on a free port."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.services.redis_databases import redis_answers
from worker.embedded.programs import installed_programs

START_SECONDS = 10


class OwnRedis:
    """A server that keeps what it acknowledges, and that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it on what it kept."""
        options = {
            "port": self._port, "bind": "127.0.0.1", "dir": self._folder, "save": "",
            "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
        }  # fmt: skip
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "server.log").open("ab") as log:
            self._running = subprocess.Popen(
                [installed_programs().valkey, *arguments], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not redis_answers(self.url):
            assert time.monotonic() < deadline, (self._folder / "server.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """``kill -9``."""
        self._running.send_signal(signal.SIGKILL)
        self._running.wait()

    def client(self) -> redis.Redis:
        """A client of it."""
        return redis.Redis.from_url(self.url)


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[OwnRedis]:
    """Run one until the block ends."""
    server = OwnRedis(folder)
    try:
        yield server
    finally:
        server.kill()
