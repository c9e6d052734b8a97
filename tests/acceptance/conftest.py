"""A place to run presend in, over each broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Place, place
from tests.acceptance.provider import WatchedSandbox


@pytest.fixture
def sandbox() -> WatchedSandbox:
    """A provider that answers at once; tests slow it down."""
    return WatchedSandbox()


@pytest.fixture
def here(
    broker_url: str, redis_url: str, database_url: str, tmp_path: Path, sandbox: WatchedSandbox
) -> Iterator[Place]:
    """A place on each broker in turn."""
    with place(
        broker_url=broker_url,
        redis_url=redis_url,
        database_url=database_url,
        folder=tmp_path,
        sandbox=sandbox,
    ) as made:
        yield made


@pytest.fixture
def on_rabbitmq(
    amqp_url: str, redis_url: str, database_url: str, tmp_path: Path, sandbox: WatchedSandbox
) -> Iterator[Place]:
    """A place on RabbitMQ."""
    with place(
        broker_url=amqp_url,
        redis_url=redis_url,
        database_url=database_url,
        folder=tmp_path,
        sandbox=sandbox,
    ) as made:
        yield made
