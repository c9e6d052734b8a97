"""``presend doctor``: all is well, then one thing after the other is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kombu import Connection

from tests.commands import APIKEY, environment, presend
from tests.services import run_sql
from worker import config
from worker.config import Settings
from worker.doctor import State, broker, machine, postgres, provider, redis
from worker.doctor.finding import Finding, clock
from worker.queues import dead_queue, lane_queues
from worker.redis_broker.server import Facts as RedisFacts
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Latency, Sandbox
from worker.sandbox.serving import serving
from worker.storage.server import Facts as PostgresFacts


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(latency=Latency(scale=0))


@pytest.fixture
def settings(sandbox: Sandbox, database_url: str, redis_url: str, amqp_url: str) -> Iterator[Settings]:
    with serving(sandbox) as url:
        yield config.load(
            database_url=database_url,
            redis_url=redis_url,
            broker_url=amqp_url,
            provider_url=url,
            provider_apikey=APIKEY,
            metrics_port=0,
        )


def declare(url: str) -> None:
    with Connection(url) as connection, connection.channel() as channel:
        for queue in (*lane_queues(redis=False), dead_queue()):
            queue(channel).declare()
        channel.exchange_declare("presend.events", "topic", durable=True, auto_delete=False)


def told(findings: Iterator[Finding]) -> dict[str, tuple[State, str]]:
    return {each.subject: (each.state, f"{each.seen}; {each.todo}") for each in findings}


def test_all_is_well(settings: Settings) -> None:
    declare(settings.broker_url)
    env = environment(**{name: str(getattr(settings, name)) for name in settings.model_fields_set})
    done = presend("doctor", env=env)
    assert done.returncode == 0, done.stdout
    for words in (
        "ok   settings: 6 given",
        "ok   PostgreSQL, tables: at revision 2026",
        "ok   RabbitMQ, queue sms: as it must be, 0 messages wait",
        "ok   RabbitMQ, exchange presend.events: durable, topic",
        "ok   Redis, results: version",
        "ok   provider: prepaid, balance 1,000,000",
        "ok   provider, clock: within 2 s",
        "0 fail, ",
    ):
        assert words in done.stdout
    assert APIKEY not in done.stdout


def test_what_is_broken_is_told_with_what_to_do_and_the_rest_is_looked_at(
    settings: Settings, empty_database_url: str
) -> None:
    env = environment(
        database_url=empty_database_url,
        broker_url="amqp://guest:a-secret-password@127.0.0.1:9//",
        redis_url="redis://127.0.0.1:9/0",
        provider_url=settings.provider_url,
        provider_apikey=APIKEY,
        sms_slot="9",
    )
    done = presend("doctor", "--json", env=env)
    assert done.returncode == 1
    assert "a-secret-password" not in done.stdout
    found = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
    assert found["settings"]["state"] == "ok"
    tables = found["PostgreSQL, tables"]
    assert (tables["seen"], tables["todo"]) == ("no tables yet", "run presend db upgrade")
    assert found["broker"]["todo"] == "Start it, or mend PRESEND_BROKER_URL"
    assert found["Redis"]["todo"] == "Start it, or mend PRESEND_REDIS_URL"
    assert found["provider"]["state"] == "ok"
    assert "PRESEND_SMS_SLOT is no setting" in json.dumps(json.loads(done.stdout)["findings"])


def test_each_wrong_setting_is_a_line() -> None:
    done = presend("doctor", env=environment(sms_slots="x", broker_url="kafka://"))
    assert done.returncode == 1
    assert "PRESEND_SMS_SLOTS must be a whole number" in done.stdout
    assert "PRESEND_BROKER_URL must start with amqp://" in done.stdout
    assert "2 fail, 0 warn, 0 ok" in done.stdout


def test_a_queue_and_an_exchange_of_another_kind(settings: Settings) -> None:
    with Connection(settings.broker_url) as connection, connection.channel() as channel:
        channel.queue_declare("sms", durable=True, auto_delete=False)  # as Celery does by default
        channel.exchange_declare("presend.events", "fanout", durable=True, auto_delete=False)
    found = told(broker.examine(settings))
    state, words = found["RabbitMQ, queue sms"]
    assert state is State.FAIL
    assert "it has other arguments: PRECONDITION_FAILED" in words
    assert "empty and delete the queue" in words
    assert found["RabbitMQ, exchange presend.events"][0] is State.FAIL
    assert found["RabbitMQ, queue recharge"] == (
        State.WARN,
        "not there; start presend worker, which declares it",
    )


def test_messages_that_nobody_takes(settings: Settings) -> None:
    declare(settings.broker_url)
    options = {"confirm_publish": True}
    with Connection(settings.broker_url, transport_options=options) as connection:
        connection.Producer().publish({}, routing_key="sms", delivery_mode=2)
    state, words = told(broker.examine(settings))["RabbitMQ, queue sms"]
    assert (state, words.startswith("1 messages wait, and nobody takes them; start presend worker")) == (
        State.WARN,
        True,
    )


def test_the_provider(settings: Settings, sandbox: Sandbox) -> None:
    def state() -> tuple[State, str]:
        return told(provider.examine(settings))["provider"]

    sandbox.put_account(Account(DEFAULT_APIKEY, balance=0))
    assert state()[0] is State.FAIL
    sandbox.put_account(Account(DEFAULT_APIKEY, balance=999))
    assert state() == (State.WARN, "prepaid, balance 999; top it up: less than one batch is left")
    sandbox.put_account(Account(DEFAULT_APIKEY, disabled=True))
    assert "it refuses the account" in state()[1]
    away = settings.model_copy(update={"provider_url": "http://127.0.0.1:9"})
    assert told(provider.examine(away))["provider"][0] is State.FAIL
    keyless = settings.model_copy(update={"provider_apikey": ""})
    assert told(provider.examine(keyless))["provider"][0] is State.WARN


def test_commits_that_may_be_undone(settings: Settings, postgres_server: str) -> None:
    name = settings.database_url.rpartition("/")[2].partition("?")[0]
    run_sql(postgres_server, "ALTER DATABASE {} SET synchronous_commit = off", name)
    state, words = told(postgres.examine(settings))["PostgreSQL, commits"]
    assert (state, words.partition(";")[0]) == (State.FAIL, "synchronous_commit off")


POSTGRES = PostgresFacts(
    at=datetime.now(UTC),
    version_num=150004,
    max_connections=100,
    reserved_connections=3,
    connections=1,
    shared_buffers=128 * 1024**2,
    database_size=300 * 1024**2,
    max_wal_size=1024**3,
    checkpoints_timed=100,
    checkpoints_requested=20,
    settings=dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "autovacuum"), "on"),
)
REDIS = RedisFacts(
    at=0,
    version=(9, 0),
    version_words="9.0",
    maxmemory_policy="noeviction",
    appendonly=True,
    appendfsync="always",
)


def test_servers_that_are_set_up_otherwise(settings: Settings) -> None:
    def with_(name: str) -> PostgresFacts:
        return replace(POSTGRES, settings={**POSTGRES.settings, name: "off"})

    assert {each.state for each in postgres.promises(POSTGRES)} == {State.OK}
    assert [each.state for each in postgres.promises(with_("fsync"))] == [State.FAIL, State.OK]
    assert [each.state for each in postgres.promises(with_("autovacuum"))] == [State.OK, State.WARN]
    assert {each.state for each in postgres.size(POSTGRES)} == {State.OK}
    large, busy = replace(POSTGRES, database_size=2 * 1024**3), replace(POSTGRES, checkpoints_requested=101)
    assert [each.state for each in postgres.size(large)] == [State.WARN, State.OK]
    assert [each.state for each in postgres.size(busy)] == [State.OK, State.WARN]
    assert [each.state for each in postgres.size(replace(busy, max_wal_size=8 * 1024**3))] == 2 * [State.OK]
    assert postgres.connections(settings, POSTGRES).state is State.OK
    few = postgres.connections(settings, replace(POSTGRES, max_connections=20))
    assert few.state is State.WARN
    assert "set max_connections = " in few.todo
    assert redis.persistence(REDIS).state is State.OK
    assert redis.persistence(replace(REDIS, appendonly=False)).state is State.FAIL
    assert redis.persistence(replace(REDIS, appendfsync="everysec")).state is State.WARN
    assert clock("x", -1.9).state is State.OK
    assert "5.0 s behind" in clock("x", -5).seen
    assert {each.state for each in machine.examine(settings)} == {State.OK}
