"""Services in Docker, where there is one."""

from __future__ import annotations

import contextlib
import gc
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.services.postgres import postgres_answers
from tests.services.rabbitmq import amqp_answers
from tests.services.redis_databases import redis_answers

CONNECT_SECONDS = 3
CONTAINER_SECONDS = 60


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
        postgres_answers,
    ),
    "redis": Container("valkey/valkey:9", 6379, "redis://{}:{}/0", {}, redis_answers),
    "rabbitmq": Container(
        "rabbitmq:4-management",
        5672,
        "amqp://presend:presend@{}:{}//",
        {"RABBITMQ_DEFAULT_USER": "presend", "RABBITMQ_DEFAULT_PASS": "presend"},
        amqp_answers,
    ),
}


@contextlib.contextmanager
def in_docker(service: str) -> Iterator[str]:
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
