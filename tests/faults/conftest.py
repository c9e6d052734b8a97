"""Scenes for the quick forms: small, and with the waits of hours and minutes cut short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Place, place
from tests.acceptance.provider import WatchedSandbox
from tests.faults.scene import Scene, opened

_QUICK = {"provider_timeout_seconds": "2,3", "recharge_expiry_seconds": "60"}


@pytest.fixture
def on_rabbitmq(amqp_url: str, redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    """A scene on RabbitMQ."""
    yield from _scene(amqp_url, redis_url, database_url, tmp_path)


@pytest.fixture
def on_redis(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    """A scene on Redis."""
    yield from _scene(redis_url, redis_url, database_url, tmp_path)


@pytest.fixture
def place_on_rabbitmq(amqp_url: str, redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Place]:
    """A place on RabbitMQ, whose provider can be told what to do wrong."""
    yield from _place(amqp_url, redis_url, database_url, tmp_path)


@pytest.fixture
def place_on_redis(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Place]:
    """A place on Redis."""
    yield from _place(redis_url, redis_url, database_url, tmp_path)


def _place(broker_url: str, redis_url: str, database_url: str, folder: Path) -> Iterator[Place]:
    with place(
        broker_url=broker_url,
        redis_url=redis_url,
        database_url=database_url,
        folder=folder,
        sandbox=WatchedSandbox(),
    ) as made:
        yield made


def _scene(broker_url: str, redis_url: str, database_url: str, folder: Path) -> Iterator[Scene]:
    scene = Scene(
        broker_url,
        redis_url,
        database_url,
        folder / "scene",
        seed=1,
        settings=dict(_QUICK),
        latency=0.5,
        hurried=True,
    )
    with opened(scene):
        yield scene
