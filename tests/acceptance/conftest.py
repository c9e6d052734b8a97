"""A place to run presend in, over each broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Place, place
from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.proxy import Proxy, proxied


@pytest.fixture
def sandbox() -> WatchedSandbox:
    """A provider that answers at once; tests slow it down."""
    return WatchedSandbox()


@pytest.fixture
def here(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Place]:
    """A place on each broker in turn."""
    yield from _place(request, broker_url)


@pytest.fixture
def cuttable(here: Place) -> Iterator[tuple[Place, Proxy]]:
    """A place whose workers reach their broker through a proxy; producer and subscriber do not."""
    with proxied(here.broker_url) as (proxy, through_proxy):
        here.settings["broker_url"] = through_proxy
        yield here, proxy


@pytest.fixture
def on_rabbitmq(request: pytest.FixtureRequest, amqp_url: str) -> Iterator[Place]:
    """A place on RabbitMQ."""
    yield from _place(request, amqp_url)


@pytest.fixture
def on_redis(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Place]:
    """A place on Redis, the broker in the results' database."""
    yield from _place(request, redis_url)


def _place(request: pytest.FixtureRequest, broker_url: str) -> Iterator[Place]:
    redis_url: str = request.getfixturevalue("redis_url")
    database_url: str = request.getfixturevalue("database_url")
    folder: Path = request.getfixturevalue("tmp_path")
    sandbox: WatchedSandbox = request.getfixturevalue("sandbox")
    with place(
        broker_url=broker_url, redis_url=redis_url, database_url=database_url, folder=folder, sandbox=sandbox
    ) as made:
        yield made
