"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.bench import Bench
from worker.sandbox.provider import Latency, Sandbox
from worker.storage.engine import connect


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    database = connect(database_url, by_key=True)
    made = Bench(database, Sandbox(latency=Latency(scale=0)))
    yield made
    for store in made.stores:
        store.close()
    database.dispose()
