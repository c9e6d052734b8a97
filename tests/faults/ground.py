"""Where a part runs: fresh databases and queues on the services the tests find, or engines of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import services
from tests.acceptance.harness import Place, place
from tests.acceptance.provider import WatchedSandbox
from tests.faults.scene import Scene, opened
from tests.services.own_engines import Engines, OwnPostgres, own_engines, own_postgres
from worker.embedded import embedded
from worker.storage.migrations import upgrade


@dataclass
class Ground:
    """A part's folder, its seed, and how large it is to be."""

    folder: Path
    seed: int
    # 1 is the size that counts; less is for trying
    scale: float = 1.0
    _open: ExitStack = field(default_factory=ExitStack)

    def sized(self, whole: float) -> int:
        """A number of this part's, at its scale."""
        return max(1, round(whole * self.scale))

    @contextmanager
    def on_rabbitmq(self, **about: Any) -> Iterator[Scene]:
        """A scene on RabbitMQ, in a virtual host, a database and a Redis database of its own."""
        with self._rabbitmq() as urls:
            yield from self._scene(*urls, about)

    @contextmanager
    def place_on_rabbitmq(self) -> Iterator[Place]:
        """A place there, whose provider can be told what to do wrong."""
        with self._rabbitmq() as urls:
            yield from self._place(*urls)

    @contextmanager
    def place_on_redis(self) -> Iterator[Place]:
        """A place on the embedded engines."""
        with embedded(self.folder / "engines", fresh=True) as engines:
            yield from self._place(engines.redis_url, engines.redis_url, engines.database_url)

    @contextmanager
    def _rabbitmq(self) -> Iterator[tuple[str, str, str]]:
        """URLs of the broker, of Redis and of the database."""
        found = services.Services()
        try:
            server = found.postgres()
            with services.own_database(server, "faults") as name, found.rabbitmq().held() as broker_url:
                yield broker_url, found.redis(), services.database_url(server, name)
        finally:
            found.close()

    def _place(self, broker_url: str, redis_url: str, database_url: str) -> Iterator[Place]:
        upgrade(database_url)
        folder = self.folder / "place"
        folder.mkdir(parents=True, exist_ok=True)
        with place(
            broker_url=broker_url,
            redis_url=redis_url,
            database_url=database_url,
            folder=folder,
            sandbox=WatchedSandbox(),
        ) as here:
            yield here

    @contextmanager
    def on_redis(self, **about: Any) -> Iterator[Scene]:
        """A scene on the embedded engines alone, durable as in earnest."""
        with embedded(self.folder / "engines", fresh=True) as engines:
            yield from self._scene(engines.redis_url, engines.redis_url, engines.database_url, about)

    @contextmanager
    def on_own_engines(self, **about: Any) -> Iterator[tuple[Scene, Engines]]:
        """A scene on services of its own, which may be killed."""
        with own_engines(self.folder / "engines") as engines:
            urls = engines.rabbitmq.url, engines.redis.url, engines.postgres.url
            with contextmanager(self._scene)(*urls, about) as scene:
                yield scene, engines

    @contextmanager
    def on_own_postgres(self) -> Iterator[tuple[OwnPostgres, Path]]:
        """A PostgreSQL that may be killed, migrated, and a folder for logs."""
        with own_postgres(self.folder) as postgres:
            upgrade(postgres.url)
            yield postgres, self.folder

    def _scene(
        self, broker_url: str, redis_url: str, database_url: str, about: dict[str, Any]
    ) -> Iterator[Scene]:
        upgrade(database_url)
        own = {"settings": dict(about.get("settings", {}))}  # a scene changes them
        scene = Scene(
            broker_url, redis_url, database_url, self.folder / "scene", seed=self.seed, **about | own
        )
        shutil.rmtree(scene.folder, ignore_errors=True)
        with opened(scene):
            yield scene
