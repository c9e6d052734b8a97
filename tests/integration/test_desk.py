"""The desk, over a real Postgres."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine

from tests.integration.test_accounts import account, database, open_call, opened_account, rows, statement
from worker.serve.desk import Desk
from worker.storage import holds
from worker.storage.statements import run

__all__ = ["database"]

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def test_a_charge_whose_first_run_is_still_under_way_is_found(database: Engine) -> None:
    """The connection broke before COMMIT's answer, and Postgres is still at it when it is tried again."""
    call = open_call(database, opened_account(database), 5)

    async def charged_again() -> bool:
        desk = Desk(database, deadline_seconds=5)
        with database.connect() as first:
            transaction = first.begin()
            run(first, holds.settling({call: 4}))
            again = asyncio.create_task(desk.charge(call, 4))
            async with asyncio.timeout(10):
                while rows(database, _WAITING)[0][0] == 0:
                    await asyncio.sleep(0.01)
            transaction.commit()
        may_be_sent = await again
        await desk.close()
        return may_be_sent

    assert asyncio.run(charged_again())
    assert statement(database) == [("opening", 100, 100), ("charge", -4, 96)]
    assert account(database).held == 0
