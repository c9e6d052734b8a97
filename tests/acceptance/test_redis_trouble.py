"""Redis as the broker is cut, killed, emptied or slow while messages flow: the worker goes on by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.acceptance.harness import Place, place
from tests.acceptance.provider import WatchedSandbox, plain_numbers
from tests.acceptance.proxy import Proxy, proxied
from tests.acceptance.waiting import eventually
from tests.services.own_engines import OwnRedis, own_redis
from worker.sandbox.provider import Latency

RECOVERY_SECONDS = 15
SEED = 20261124


@pytest.fixture
def trouble(
    database_url: str, redis_url: str, tmp_path: Path, sandbox: WatchedSandbox
) -> Iterator[tuple[Place, OwnRedis, Proxy]]:
    """A place on a Redis of its own; workers reach it through a proxy."""
    (tmp_path / "redis").mkdir()
    with (
        own_redis(tmp_path / "redis") as server,
        place(
            broker_url=server.url,
            redis_url=redis_url,
            database_url=database_url,
            folder=tmp_path,
            sandbox=sandbox,
        ) as here,
        proxied(server.url) as (proxy, through_proxy),
    ):
        here.settings["broker_url"] = through_proxy
        yield here, server, proxy


@pytest.mark.timeout(240)
def test_killed_workers_and_replies_cut_anywhere(trouble: tuple[Place, OwnRedis, Proxy]) -> None:
    """Five times a worker is killed, while connections end after any number of bytes of Redis' answers."""
    here, _, proxy = trouble
    chance = random.Random(SEED)
    here.sandbox.latency = Latency(0.05, 0.2)
    here.settings |= {"recharge_expiry_seconds": "120", "recharge_share_wait_seconds": "60"}
    numbers = plain_numbers(1500)
    upkeep = here.upkeep()
    workers = [here.worker("sms", "recharge") for _ in range(2)]
    for first in range(0, 1500, 300):
        here.send_many("sms", numbers[first : first + 200])
        here.send_many("recharge", numbers[first + 200 : first + 300], attempt=2)
        for _ in range(4):
            proxy.cut_after(chance.randrange(60_000))
            time.sleep(chance.uniform(0.05, 0.4))
        victim = chance.randrange(2)
        assert all(worker.alive for worker in workers)
        workers[victim].kill()
        workers[victim] = here.worker("sms", "recharge", ready=False)
    proxy.cut_after(None)
    for worker in workers:
        worker.wait_for(" ready.")
    here.check_settled(1500, seconds=60)
    eventually(lambda: not here.messages_left(), "all acknowledged", seconds=RECOVERY_SECONDS)
    here.stop()
    assert upkeep.ended() == 0
    assert here.sandbox.bills().keys() == set(numbers)


@pytest.mark.timeout(240)
def test_redis_itself_is_killed_and_comes_back(trouble: tuple[Place, OwnRedis, Proxy]) -> None:
    here, server, _ = trouble
    here.sandbox.latency = Latency(0.3, 0.3)
    numbers = plain_numbers(900)
    worker = here.worker("sms")
    for first in (0, 300, 600):
        here.send_many("sms", numbers[first : first + 300])
        here.sandbox.wait_for_call(1)
        server.kill()
        time.sleep(first / 100)  # away for a moment, for three seconds, for six
        server.start()
        here.decided(first + 300, seconds=RECOVERY_SECONDS)
        eventually(lambda: not here.messages_left(), "all acknowledged", seconds=RECOVERY_SECONDS)
    assert worker.alive
    assert worker.stop() == 0
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)


@pytest.mark.timeout(240)
def test_redis_is_emptied_slow_or_drops_its_clients(trouble: tuple[Place, OwnRedis, Proxy]) -> None:
    """What was flushed is gone; whatever comes later is taken within seconds."""
    here, server, _ = trouble
    numbers = plain_numbers(600)
    worker = here.worker("sms", "recharge")
    here.send_many("sms", numbers[:100])
    here.decided(100)
    with server.client() as client:
        for round_, trouble_ in enumerate(
            (client.flushall, lambda: client.execute_command("DEBUG", "SLEEP", "5")), start=1
        ):
            with suppress(redis.RedisError):
                trouble_()
            here.send_many("sms", numbers[100 * round_ : 100 * (round_ + 1)])
            here.decided(100 * (round_ + 1), seconds=RECOVERY_SECONDS)
    for round_ in range(3, 6):
        here.send_many("recharge", numbers[100 * round_ : 100 * (round_ + 1)], attempt=2)
        with server.client() as client, suppress(redis.ConnectionError):
            client.client_kill_filter(_type="normal", skipme=False)
        here.decided(100 * (round_ + 1), seconds=RECOVERY_SECONDS)
    eventually(lambda: not here.messages_left(), "all acknowledged", seconds=RECOVERY_SECONDS)
    assert worker.alive
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)
