"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.provider import WatchedSandbox
from tests.front_door import Front, front_door
from tests.integration.bench import Bench
from worker.sandbox.provider import Latency, Sandbox
from worker.sandbox.serving import serving
from worker.storage.engine import connect


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    database = connect(database_url, by_key=True)
    made = Bench(database, Sandbox(latency=Latency(scale=0)))
    yield made
    for store in made.stores:
        store.close()
    database.dispose()


@pytest.fixture
def sandbox() -> WatchedSandbox:
    return WatchedSandbox()


@pytest.fixture
def provider_url(sandbox: WatchedSandbox) -> Iterator[str]:
    with serving(sandbox) as url:
        yield url


@pytest.fixture
def front(database_url: str, provider_url: str) -> Iterator[Front]:
    with front_door(database_url, provider_url) as opened:
        yield opened
