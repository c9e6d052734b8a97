"""Statements that go to Postgres together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from worker.errors import StorageUnavailable
from worker.portability.requests import Lane
from worker.storage import breaker, engine, gate
from worker.storage.statements import COMMIT, Statement, nothing, together

_ADD = "INSERT INTO lane_pause (lane, paused_at, paused_by, reason) VALUES (:lane, now(), 'mei', 'test')"
_END = Statement(text("SELECT pg_terminate_backend(pg_backend_pid())"), {}, nothing)


def adding(lane: str) -> Statement[None]:
    return Statement(text(_ADD), {"lane": lane}, nothing)


COUNTING = Statement(text("SELECT count(*) FROM lane_pause"), {}, lambda rows: rows[0][0])


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    opened = engine.connect(database_url)
    yield opened
    opened.dispose()


def test_each_sees_what_those_before_it_did(database: Engine) -> None:
    def work(to: Connection) -> object:
        return together(to, COUNTING, adding("sms"), COUNTING, gate.reading("none"))

    assert engine.read(database, work) == (0, None, 1, None)
    assert engine.read(database, lambda to: together(to, COUNTING)) == (1,)


@pytest.mark.parametrize("run", [engine.read, engine.transact])
def test_one_that_fails_leaves_nothing_of_the_others(database: Engine, run: object) -> None:
    with pytest.raises(DBAPIError, match="lane_pause_pkey") as failed:
        run(database, lambda to: together(to, adding("sms"), adding("sms"), COUNTING))  # type: ignore[operator]
    assert "mei" not in str(failed.value)
    assert engine.read(database, lambda to: together(to, COUNTING)) == (0,)


@pytest.mark.parametrize("run", [engine.read, engine.transact])
def test_a_connection_that_ends_half_way_is_replaced(
    database: Engine, run: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StorageUnavailable):
        run(database, lambda to: together(to, adding("sms"), _END, COUNTING))  # type: ignore[operator]
    breaker_of = breaker.reading("none", Lane.SMS)
    assert engine.read(database, lambda to: together(to, COUNTING, breaker_of)) == (0, None)
    assert not caplog.records, "the pool does not complain"


def test_a_commit_that_goes_along_ends_the_transaction(database: Engine) -> None:
    seen: list[int] = []

    def work(to: Connection) -> None:
        together(to, adding("sms"), COMMIT)
        seen.append(engine.read(database, lambda other: together(other, COUNTING))[0])
        together(to, adding("recharge"))

    engine.transact(database, work)
    assert seen == [1], "another connection sees it before this one is given back"
    assert engine.read(database, lambda to: together(to, COUNTING)) == (2,)
    with pytest.raises(DBAPIError, match="lane_pause_pkey"):
        engine.transact(database, lambda to: together(to, adding("direct"), adding("sms"), COMMIT))
    assert engine.read(database, lambda to: together(to, COUNTING)) == (2,)
