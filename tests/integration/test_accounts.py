"""Accounts and their holds: no account answers more than its balance, whoever asks at once and dies when."""

from __future__ import annotations

import csv
import io
import json
import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from worker.carrier.protocol import FeeType
from worker.cli import main
from worker.errors import AccountError
from worker.storage import accounts, engine, holds
from worker.storage.engine import connect
from worker.storage.holds import Opened, Opening, RateLimited, Refused
from worker.storage.ids import new_id
from worker.storage.statements import run


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    yield made
    made.dispose()


def opened_account(database: Engine, name: str = "shop", **options: Any) -> str:
    options = {"fee_type": FeeType.PREPAID, "balance": 100, "by": "mei"} | options
    _, key = engine.transact(database, lambda to: accounts.create(to, name, **options))
    return key


def open_call(database: Engine, key: str, numbers: int, *, seconds: float = 60.0) -> Any:
    """The call's request id, or why it was refused."""
    call = Opening(new_id(), accounts.key_hash(key), numbers)
    (result,) = engine.transact(database, lambda to: holds.open_calls(to, [call], hold_seconds=seconds))
    return call.request_id if isinstance(result, Opened) else result


def settle(database: Engine, charges: Mapping[str, int]) -> set[str]:
    return engine.transact(database, lambda to: run(to, holds.settling(charges)))


def account(database: Engine, name: str = "shop") -> accounts.Account:
    return next(one for one in engine.read(database, accounts.every) if one.name == name)


def statement(database: Engine, name: str = "shop") -> list[tuple[str, int, int]]:
    moved = engine.transact(database, lambda to: list(accounts.statement(to, name)))
    return [(one.kind.value, one.amount, one.balance) for one in moved]


def test_many_at_once_never_answer_more_than_the_balance(database: Engine) -> None:
    """A third of the calls die before they settle, some settle too late; upkeep sweeps all the while."""
    key, balance = opened_account(database, balance=600), 600
    lock, answered, asked = threading.Lock(), 0, 0
    done = threading.Event()

    def caller(seed: int) -> None:
        nonlocal answered, asked
        drawn = random.Random(seed)
        for _ in range(15):
            numbers = drawn.randint(1, 12)
            seconds = 0.0 if drawn.random() < 0.3 else 60.0  # a hold that is past its time at once
            request_id = open_call(database, key, numbers, seconds=seconds)
            if isinstance(request_id, Refused):
                assert request_id is Refused.LOW_BALANCE
                continue
            if drawn.random() < 0.3:
                continue  # killed
            if not seconds:
                engine.transact(database, holds.recover)  # so it settles too late
            charge = drawn.randint(0, numbers)
            may_be_sent = request_id in settle(database, {request_id: charge})
            with lock:
                asked += charge
                answered += charge if may_be_sent else 0
            if may_be_sent and charge:
                engine.transact(database, lambda to, each=request_id: run(to, holds.sent([each])))

    def sweeper() -> None:
        while not done.wait(0.02):
            engine.transact(database, holds.recover)

    sweeping = threading.Thread(target=sweeper)
    sweeping.start()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(caller, range(32)))
    done.set()
    sweeping.join()
    stands = account(database)
    assert 0 < answered < asked
    assert answered <= balance
    assert stands.balance == balance - answered
    moved = statement(database)
    assert sum(amount for _, amount, _ in moved) == stands.balance
    running = 0
    for _, amount, after in moved:
        running += amount
        assert after == running
    (reserved,) = rows(database, "SELECT coalesce(sum(numbers), 0) FROM account_hold WHERE charged IS NULL")
    assert stands.held == reserved[0]


def test_a_hold_left_behind_is_released_and_written_down(database: Engine) -> None:
    key = opened_account(database, balance=10)
    left = open_call(database, key, 10, seconds=0)
    assert open_call(database, key, 1) is Refused.LOW_BALANCE
    assert engine.transact(database, holds.recover) == 1
    assert account(database).held == 0
    assert settle(database, {left: 10}) == set(), "its time was up: it may not be sent any more"
    charged = open_call(database, key, 3, seconds=0)
    assert settle(database, {charged: 3}) == {charged}
    assert engine.transact(database, holds.recover) == 1
    assert [each[:2] for each in statement(database)] == [
        ("opening", 10), ("released", 0), ("charge", -3), ("unsent", 0)
    ]  # fmt: skip


def test_settling_again_changes_nothing(database: Engine) -> None:
    """The reply to COMMIT may be lost, and the transaction run again."""
    key = opened_account(database)
    paid, free = open_call(database, key, 5), open_call(database, key, 5)
    for _ in range(2):
        assert settle(database, {paid: 4, free: 0}) == {paid, free}
    assert account(database).balance == 96
    for _ in range(2):
        engine.transact(database, lambda to: run(to, holds.refunding([paid, free])))
    assert account(database).balance == 100
    assert account(database).held == 0


def test_calls_of_several_accounts_settle_together_each_line_with_the_balance_after_it(
    database: Engine,
) -> None:
    shop, other = opened_account(database), opened_account(database, "other", balance=10)
    calls = [open_call(database, key, 5) for key in (shop, other, shop, shop)]
    may_be_sent = settle(database, dict(zip(calls, (3, 5, 0, 4), strict=True)) | {new_id(): 1})
    assert may_be_sent == set(calls), "one that never was held may not be sent"
    assert statement(database) == [("opening", 100, 100), ("charge", -3, 97), ("charge", -4, 93)]
    assert statement(database, "other") == [("opening", 10, 10), ("charge", -5, 5)]
    assert (account(database).held, account(database, "other").held) == (0, 0)
    assert (account(database).balance, account(database, "other").balance) == (93, 5)


def test_a_postpaid_balance_falls_as_far_as_its_credit_goes(database: Engine) -> None:
    endless = opened_account(database, "endless", fee_type=FeeType.POSTPAID, balance=0)
    assert settle(database, {open_call(database, endless, 1000): 1000})
    assert account(database, "endless").balance == -1000
    limited = opened_account(database, "limited", fee_type=FeeType.POSTPAID, balance=0, credit_limit=5)
    held = open_call(database, limited, 3)
    assert open_call(database, limited, 3) is Refused.LOW_BALANCE
    settle(database, {held: 0})
    assert isinstance(open_call(database, limited, 5), str)


def test_a_rate_limit_lets_a_minutes_calls_through_and_says_when_the_next_may_come(database: Engine) -> None:
    key = opened_account(database, calls_a_minute=3)
    for _ in range(3):
        assert isinstance(open_call(database, key, 1), str)
    limited = open_call(database, key, 1)
    assert isinstance(limited, RateLimited)
    assert limited.calls_a_minute == 3
    assert 19 < limited.retry_after_seconds <= 20
    assert account(database).held == 3


def test_a_rotated_key_is_good_through_its_grace_and_no_longer(database: Engine) -> None:
    first = opened_account(database)
    _, second = engine.transact(
        database, lambda to: accounts.rotate(to, "shop", grace=timedelta(hours=1), by="mei")
    )
    assert all(isinstance(open_call(database, key, 0), str) for key in (first, second))
    again = partial(accounts.rotate, name="shop", grace=timedelta(hours=1), by="mei")
    with pytest.raises(AccountError, match="--drop-older-key"):
        engine.transact(database, again)
    assert isinstance(open_call(database, first, 0), str), "it was promised an hour"
    _, second = engine.transact(database, lambda to: again(to, drop_older=True))
    assert open_call(database, first, 0) is Refused.UNKNOWN_KEY
    _, third = engine.transact(database, lambda to: accounts.rotate(to, "shop", grace=timedelta(0), by="mei"))
    assert open_call(database, first, 0) is Refused.UNKNOWN_KEY
    assert open_call(database, second, 0) is Refused.UNKNOWN_KEY
    assert isinstance(open_call(database, third, 0), str)


def test_the_command_tells_a_key_once_and_keeps_only_its_hash(database: Engine, database_url: str) -> None:
    def presend(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["account", *arguments], env={"PRESEND_DATABASE_URL": database_url})
        assert done.exit_code == 0, done.output
        return done.stdout

    shown = json.loads(presend("create", "shop", "--balance", "100", "--by", "mei", "--json"))
    key = shown["apikey"]
    assert (len(key), shown["balance"], shown["fee_type"]) == (32, 100, "prepaid")
    stored = rows(database, "SELECT * FROM account")[0]
    assert sha256(key.encode()).hexdigest() in stored
    assert key not in str(stored)

    charged = open_call(database, key, 7)
    settle(database, {charged: 7})
    assert json.loads(presend("topup", "shop", "10", "--json", "--by", "li"))["balance"] == 103
    assert json.loads(presend("topup", "shop", "-3", "--json", "--by", "li"))["balance"] == 100
    assert "presend account enable" in presend("disable", "shop", "--reason", "unpaid", "--by", "li")
    assert open_call(database, key, 1) is Refused.DISABLED
    assert key not in presend("list")
    lines = list(csv.DictReader(io.StringIO(presend("statement", "shop"))))
    assert [(line["kind"], line["amount"], line["balance"]) for line in lines] == [
        ("opening", "100", "100"), ("charge", "-7", "93"), ("topup", "10", "103"),
        ("taken_back", "-3", "100"),
    ]  # fmt: skip
    assert lines[1]["request_id"] == charged
    nobody = CliRunner().invoke(
        main, ["account", "statement", "nobody"], env={"PRESEND_DATABASE_URL": database_url}
    )
    assert (nobody.exit_code != 0, nobody.stdout) == (True, "")
    history = rows(database, "SELECT who, action, subject FROM operator_action ORDER BY at")
    assert [tuple(row) for row in history] == [
        ("mei", "create", "account shop"), ("li", "topup", "account shop"),
        ("li", "topup", "account shop"), ("li", "disable", "account shop")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda to: accounts.top_up(to, "nobody", 1, by="mei"), "presend account list"),
        (lambda to: accounts.top_up(to, "shop", -101, by="mei"), "take at most 100"),
        (lambda to: accounts.top_up(to, "shop", 10**20, by="mei"), "holds 1,000,000,000,000,000 at most"),
        (lambda to: accounts.top_up(to, "shop", 10**15, by="mei"), "holds 1,000,000,000,000,000 at most"),
        (
            lambda to: accounts.create(to, "shop", fee_type=FeeType.PREPAID, balance=1, by="mei"),
            "choose another name",
        ),
        (
            lambda to: accounts.create(to, "13972565391", fee_type=FeeType.PREPAID, balance=1, by="mei"),
            "no mobile number",
        ),
        (
            lambda to: accounts.create(to, "x", fee_type=FeeType.PREPAID, balance=-1, by="mei"),
            "say --fee-type postpaid",
        ),
    ],
)
def test_what_cannot_be_done_is_told_with_what_to_do(database: Engine, act: Any, says: str) -> None:
    opened_account(database)
    with pytest.raises(accounts.AccountError, match=says) as refused:
        engine.transact(database, act)
    assert "13972565391" not in str(refused.value)


def rows(database: Engine, query: str) -> list[Any]:
    with database.connect() as connection:
        return list(connection.execute(text(query)))
