"""Jobs: every row answered once and charged once, whatever stops them on the way."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import Engine, text

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.commands import environment, presend
from tests.front_door import Front
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account
from worker.serve.jobs import lists, results
from worker.storage import accounts, engine, holds, job_work, jobs
from worker.storage.engine import connect
from worker.storage.job_work import Work
from worker.storage.jobs import Job

ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = connect(database_url, connections=2)
    yield made
    made.dispose()


def submit(database: Engine, account_id: str, rows: Sequence[str]) -> str:
    given = lists.NumberList(io.BytesIO("\n".join(["mobile", *rows]).encode()))
    return engine.transact(
        database, lambda to: jobs.create(to, account_id, "list.csv", given.column, given.pieces())
    )


def job_of(database: Engine, account_id: str, job_id: str) -> Job:
    found = engine.read(database, partial(jobs.one, account_id=account_id, job_id=job_id))
    assert found is not None
    return found


def result(database: Engine, job_id: str) -> list[dict[str, str]]:
    content = "".join(results.csv_of(database, job_id, lambda key: key.rpartition(".")[2], ZONE))
    assert content.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(content.removeprefix("\ufeff"))))


def test_a_list_with_repeats_and_bad_rows_is_answered_row_by_row(
    front: Front, sandbox: WatchedSandbox
) -> None:
    front.account(balance=5000)
    account_id = front.stands().id
    numbers = [f"1397256{n:04d}" for n in range(1500)]
    rows = [*numbers, "+86 139-7256-0003", "1397256", "=1+1", numbers[1400], numbers[0]]
    job_id = submit(front.database, account_id, rows)
    eventually(lambda: job_of(front.database, account_id, job_id).state == "finished", "the job to finish")

    job, found = job_of(front.database, account_id, job_id), result(front.database, job_id)
    assert (job.rows, job.bad_rows, job.numbers, job.done) == (len(rows), 2, 1500, 1500)
    assert [int(row["line"]) for row in found] == [*range(2, len(rows) + 2)]
    truth = [sandbox.truth(number) for number in numbers]
    assert [(row["mobile"], row["code"]) for row in found[:1500]] == [
        (number, str(each.code)) for number, each in zip(numbers, truth, strict=True)
    ]
    assert [row["area"] for row in found[:1500]] == [each.area or "" for each in truth]
    repeated = [found[1500], found[1503], found[1504]]
    assert [row | {"line": ""} for row in repeated] == [found[at] | {"line": ""} for at in (3, 1400, 0)]
    assert [(row["mobile"], row["status"], row["explanation"]) for row in found[1501:1503]] == [
        ("1397256", "bad_row", "length"),
        ("'=1+1", "bad_row", "characters"),
    ]
    # once for each number, however often it stands there; what was not found is free
    assert sandbox.bill.calls == 2
    assert not sandbox.bill.billed_again()
    assert job.charged == front.charged() == sum(each.code == 0 for each in truth)
    stands = front.stands()
    assert (stands.balance, stands.held) == (5000 - job.charged, 0)
    assert not front.rows("SELECT FROM account_hold")


def test_a_job_that_costs_more_than_is_left_pauses_and_goes_on_after_a_top_up(front: Front) -> None:
    front.account(balance=1500)
    account_id = front.stands().id
    job_id = submit(front.database, account_id, [f"1397256{n:04d}" for n in range(2000)])
    eventually(lambda: job_of(front.database, account_id, job_id).state == "paused", "the job to pause")
    eventually(lambda: not front.stands().held, "its other part")
    job = job_of(front.database, account_id, job_id)
    assert (job.reason, job.done) == ("low_balance", 1000)
    resume = partial(jobs.resume, job_id=job_id)
    assert not engine.transact(front.database, partial(resume, account_id=str(uuid.uuid4())))
    engine.transact(front.database, lambda to: accounts.top_up(to, "shop", 1000, by="mei"))
    assert engine.transact(front.database, partial(resume, account_id=account_id))
    eventually(lambda: job_of(front.database, account_id, job_id).state == "finished", "the rest")
    assert job_of(front.database, account_id, job_id).charged == front.charged()


def test_single_callers_are_answered_while_a_job_waits_for_the_provider(
    front: Front, sandbox: WatchedSandbox
) -> None:
    """Its calls are in slots of its own; it ends cancelled, with what was asked by then."""
    key = front.account(balance=9000)
    account_id = front.stands().id
    sandbox.faults.add(Fault(kind="slow", seconds=2, calls=2, on="carrier_batch"))
    job_id = submit(front.database, account_id, [f"1397256{n:04d}" for n in range(4000)])
    eventually(lambda: front.stands().held == 2000, "its two calls")
    asked = httpx.post(f"{front.url}/carrier", data={"apikey": key, "mobile": "13798361236"})
    assert asked.json()["code"] == 0
    assert asked.elapsed < timedelta(seconds=1)
    assert job_of(front.database, account_id, job_id).done == 0
    assert engine.transact(front.database, partial(jobs.cancel, account_id=account_id, job_id=job_id))
    eventually(lambda: job_of(front.database, account_id, job_id).done == 2000, "its calls to end")
    codes = Counter(row["status"] for row in result(front.database, job_id))
    assert codes["not_asked"] == 2000


def test_a_provider_that_cannot_be_asked_is_waited_for(front: Front, sandbox: WatchedSandbox) -> None:
    front.account(balance=10)
    account_id = front.stands().id
    sandbox.put_account(Account(DEFAULT_APIKEY, balance=0))
    job_id = submit(front.database, account_id, ["13798361236", "13352918995"])
    eventually(lambda: job_of(front.database, account_id, job_id).reason == "gate_closed", "the closed gate")
    assert job_of(front.database, account_id, job_id).state == "running"
    sandbox.put_account(Account(DEFAULT_APIKEY))
    eventually(lambda: job_of(front.database, account_id, job_id).state == "finished", "it to go on")
    job = job_of(front.database, account_id, job_id)
    assert (job.charged, job.reason, front.charged()) == (2, None, 2)


def test_a_part_of_a_process_that_is_gone_is_taken_over_with_its_hold(database: Engine) -> None:
    account, _ = engine.transact(database, lambda to: accounts.create(to, "shop", balance=3, **_PREPAID))
    job_id = submit(database, account.id, ["13798361236", "13352918995", "13163320753"])
    take = partial(job_work.take, hold_seconds=60.0)

    def taken(owner: int) -> Work | None:
        return engine.transact(database, lambda to: take(to, owner=owner))

    first, again = taken(1), taken(2)  # nobody holds these owners' locks
    assert first is not None
    assert again == first, "the same request id, so that what it bought is not bought again"
    assert _account(database).held == 3, "reserved once"
    with database.connect() as alive:
        alive.execute(text("SELECT pg_advisory_lock(1886545774, 2)"))
        assert taken(3) is None
    # upkeep has released the hold meanwhile: the answer is neither stored nor charged until it is held again
    engine.transact(database, lambda to: to.execute(text("UPDATE account_hold SET until = now()")))
    assert engine.transact(database, holds.recover) == 1
    answered = {place: _row(place, mobile) for place, mobile in first.mobiles.items()}
    store = partial(job_work.store, work=first, rows=answered)
    assert engine.transact(database, store)
    assert job_of(database, account.id, job_id).done == 0
    assert taken(4) == first
    assert engine.transact(database, store)
    assert not engine.transact(database, store), "a second one, by whoever was slower, changes nothing"
    job = job_of(database, account.id, job_id)
    assert (job.state, job.done, job.charged) == ("finished", 3, 3)
    assert (_account(database).balance, _account(database).held) == (0, 0)


def test_a_number_nobody_answers_is_given_up_and_its_neighbours_are_not(database: Engine) -> None:
    account, _ = engine.transact(database, lambda to: accounts.create(to, "shop", balance=9, **_PREPAID))
    job_id = submit(database, account.id, ["13798361236", "13352918995"])

    def ask(answer: bool) -> None:
        work = engine.transact(database, lambda to: job_work.take(to, owner=1, hold_seconds=60.0))
        assert work is not None
        rows = {
            place: _row(place, mobile, status="not_ported" if answer and not place else None)
            for place, mobile in work.mobiles.items()
        }
        engine.transact(database, lambda to: job_work.store(to, work, rows))
        engine.transact(database, lambda to: to.execute(text("UPDATE job SET waits_until = NULL")))

    ask(False)
    job = job_of(database, account.id, job_id)
    assert (job.state, job.reason, job.done) == ("running", "provider_failing", 0)
    ask(True)
    assert job_of(database, account.id, job_id).reason is None
    ask(False)
    job = job_of(database, account.id, job_id)
    assert (job.state, job.not_ported, job.unanswered, job.charged) == ("finished", 1, 1, 1)


def test_an_erased_number_leaves_its_row_empty(database: Engine, database_url: str, redis_url: str) -> None:
    account, _ = engine.transact(database, lambda to: accounts.create(to, "shop", balance=9, **_PREPAID))
    gone, kept, other = "13967452318", "13981726354", "13352918995"
    done = submit(database, account.id, [gone, kept, f"x{gone}"])
    work = engine.transact(database, lambda to: job_work.take(to, owner=1, hold_seconds=60.0))
    assert work is not None
    rows = {place: _row(place, mobile) for place, mobile in work.mobiles.items()}
    engine.transact(database, lambda to: job_work.store(to, work, rows))
    waiting = submit(database, account.id, [other, gone])
    env = environment(database_url=database_url, redis_url=redis_url, broker_url=redis_url)
    erased = presend("erase", gone, "--yes", "--json", env=env)
    assert erased.returncode == 0, erased.stderr
    assert json.loads(erased.stdout)["tables"] == {"job_part": 2, "job_error": 1}
    assert [(row["mobile"], row["status"], row["area"]) for row in result(database, done)] == [
        ("", "erased", ""),
        (kept, "not_ported", "广东-深圳"),
        ("xerased", "bad_row", ""),
    ]
    work = engine.transact(database, lambda to: job_work.take(to, owner=1, hold_seconds=60.0))
    assert work is not None
    assert (work.job_id, list(work.mobiles.values())) == (waiting, [other])


_PREPAID: Any = {"fee_type": accounts.FeeType.PREPAID, "by": "mei"}


def _account(database: Engine) -> accounts.Account:
    return engine.read(database, accounts.every)[0]


def _row(place: int, mobile: str, status: str | None = "not_ported") -> Any:
    from worker.portability.records import CheckedRequest, Status
    from worker.portability.requests import Lane

    now = datetime.now(UTC)
    found = Status(status) if status else None
    return CheckedRequest(
        source="", lane=Lane.DIRECT, reference=str(place), attempt=1, msisdn=mobile, asked_operator=None,
        failure_code=None, status=found, range_holder="CMCC", current_operator="CMCC", target_operator=None,
        area="广东-深圳", observed_at=now, decision="confirmed", reason="provider_failing",
        answered_from=None, batch_id=str(uuid.uuid4()), call_id=None, event_id=str(uuid.uuid4()),
        received_at=now, decided_at=now,
    )  # fmt: skip
