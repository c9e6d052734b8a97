"""``presend erase``: what it asks, when it refuses, and what it says it cannot reach."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.commands import environment, presend
from worker.producing.producer import Producer

NUMBER = "13967452318"


@pytest.fixture
def env(database_url: str, redis_url: str, broker_url: str) -> dict[str, str]:
    return environment(database_url=database_url, broker_url=broker_url, redis_url=redis_url)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as made:
        made.execute(
            "INSERT INTO port_record (msisdn, status, observed_at, source) VALUES (%s, 'ported', now(), 'x')",
            (int(NUMBER),),
        )
        yield made


def records(connection: psycopg.Connection[Any]) -> int:
    return int(connection.execute("SELECT count(*) FROM port_record").fetchone()[0])  # type: ignore[index]


def test_the_number_is_typed_again(connection: psycopg.Connection[Any], env: dict[str, str]) -> None:
    another = presend("erase", NUMBER, env=env, stdin=b"13967452319\n")
    assert another.returncode == 1
    assert "another number: nothing was erased" in another.stderr
    assert presend("erase", NUMBER, env=env).returncode == 1  # nobody there to type
    assert records(connection) == 1

    done = presend("erase", NUMBER, "--reason", "for 139 6745 2318", env=env, stdin=b"139-6745-2318\n")
    assert done.returncode == 0
    assert "  1 row of port_record\nerased in 1 place\n" in done.stdout
    assert records(connection) == 0
    audit = connection.execute("SELECT action, subject, reason FROM operator_action").fetchall()
    assert audit == [("erase", "a mobile number", "for (number)")]


def test_a_number_in_an_open_call_is_refused(
    connection: psycopg.Connection[Any], env: dict[str, str]
) -> None:
    call = uuid.uuid4()
    connection.execute(
        "INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, outcome, until, owner)"
        " VALUES (%s, %s, 'sms', 'p', now(), 1, 'calling', now() + interval '1 minute', 1)",
        (call, uuid.uuid4()),
    )
    connection.execute(
        "INSERT INTO in_flight VALUES (%s, %s, now() + interval '1 minute')", (int(NUMBER), call)
    )
    refused = presend("erase", NUMBER, "--yes", "--wait", "0", env=env)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: nothing was erased: the number is still in 1 open call")
    assert records(connection) == 1

    connection.execute("UPDATE lookup_call SET until = now() - interval '1 second'")
    connection.execute("UPDATE in_flight SET until = now() - interval '1 second'")
    assert presend("erase", NUMBER, "--yes", "--wait", "0", env=env).returncode == 0, "its process has died"
    assert records(connection) == 0
    assert connection.execute("SELECT unanswered FROM lookup_call").fetchall() == [([None],)]


def test_an_unsent_event_is_waited_for(connection: psycopg.Connection[Any], env: dict[str, str]) -> None:
    batch = uuid.uuid4()
    connection.execute("INSERT INTO lookup_batch VALUES (%s, 'sms', now(), 1, NULL)", (batch,))
    connection.execute(
        "INSERT INTO port_change VALUES (%s, 'CMCC', 'CUCC', now(), now(), false, %s, %s)",
        (int(NUMBER), batch, uuid.uuid4()),
    )
    refused = presend("erase", NUMBER, "--yes", "--wait", "0.1", env=env)
    assert "1 batch with an unsent event" in refused.stderr
    assert records(connection) == 1


def test_messages_in_queues_are_told(
    connection: psycopg.Connection[Any], env: dict[str, str], broker_url: str
) -> None:
    with Producer(broker_url) as producer:
        for number in (NUMBER, "13800138000"):
            producer.send("sms.recheck", {"message_id": number, "mobile": number, "operator": "CMCC"})
    told = presend("erase", NUMBER, "--dry-run", env=env).stdout
    says = (
        "1 message in sms, with the number"
        if broker_url.startswith("redis")
        else "2 messages in sms, whatever they hold"
    )
    assert says in told
    assert records(connection) == 1


@pytest.mark.parametrize("mobile", ["12345", "abc", ""])
def test_what_is_no_number_is_refused(mobile: str) -> None:
    done = presend("erase", mobile, "--yes", env=environment())
    assert done.returncode == 2
    assert "MSISDN" in done.stderr
