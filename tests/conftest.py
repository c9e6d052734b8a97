"""Fixtures all tests share; tests/services finds the services, tests/README.md tells how."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import nursery, services


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    """Processes are forked from one that has imported everything."""
    with nursery.enabled():
        yield


@pytest.fixture(scope="session")
def all_services() -> Iterator[services.Services]:
    found = services.Services()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def postgres_server(all_services: services.Services) -> str:
    """URL of a maintenance database; for tests that make their own databases."""
    url = all_services.postgres()
    services.drop_stale_databases(url)
    return url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> Iterator[str]:
    """Name of a database with all migrations run, which nobody can connect to."""
    from worker.storage.migrations import upgrade

    with services.own_database(postgres_server, "template") as name:
        upgrade(services.database_url(postgres_server, name))
        # a copy fails while anyone is connected
        services.run_sql(postgres_server, "ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", name)
        yield name


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """A fresh database without tables."""
    with services.own_database(postgres_server, "empty") as name:
        yield services.database_url(postgres_server, name)


@pytest.fixture
def database_url(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """A fresh database with all migrations run."""
    with services.own_database(postgres_server, "test", template=migrated_template) as name:
        yield services.database_url(postgres_server, name)


@pytest.fixture(scope="session")
def redis_database(all_services: services.Services) -> str:
    return all_services.redis()


@pytest.fixture
def redis_url(redis_database: str) -> Iterator[str]:
    """A Redis database that nobody else uses, empty."""
    services.flush(redis_database)
    yield redis_database
    services.flush(redis_database)


@pytest.fixture(scope="session")
def rabbitmq_host(all_services: services.Services) -> services.VirtualHost:
    return all_services.rabbitmq()


@pytest.fixture
def amqp_url(rabbitmq_host: services.VirtualHost) -> Iterator[str]:
    """A RabbitMQ virtual host that nobody else uses, without presend's queues and exchange."""
    with rabbitmq_host.held() as url:
        yield url


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn, empty."""
    name = "amqp_url" if request.param == "rabbitmq" else "redis_url"
    url: str = request.getfixturevalue(name)
    return url
