"""Who may ask, and for how much: breaker, budget, balance and the calls of dead processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.waiting import eventually
from tests.integration.bench import HOME, PORTED, Bench, decided, run
from worker.batching import Waiter
from worker.carrier.protocol import Answer
from worker.errors import AnswerLost, RequestRefused
from worker.portability.records import AnsweredFrom, PortRecord, Status
from worker.portability.requests import Lane
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account
from worker.storage.budget import Budget
from worker.storage.calls import ANSWERED, Call, EndedCall
from worker.storage.ids import new_id
from worker.storage.postgres_store import PostgresStore
from worker.storage.store import Settlement

NUMBERS = [f"138{index:08d}" for index in range(40)]


@dataclass
class Failing:
    """A provider whose answers are lost until it is mended."""

    bench: Bench
    failing: bool = True
    asked: int = 0
    most_numbers: int = 0

    def lookup(self, msisdn: str, **_: Any) -> Answer:
        return self._ask([msisdn])[0]

    def lookup_batch(self, msisdns: Sequence[str], **_: Any) -> list[Any]:
        return self._ask(msisdns)

    def _ask(self, msisdns: Sequence[str]) -> list[Any]:
        self.asked += 1
        self.most_numbers = max(self.most_numbers, len(msisdns))
        if self.failing:
            raise AnswerLost("no answer in time")
        account = self.bench.sandbox.account(DEFAULT_APIKEY)
        return [account.lookup(msisdn) for msisdn in msisdns]

    balance: Any = None


def test_all_workers_of_a_lane_stop_for_a_failing_provider_and_one_tries_it_with_one_number(
    bench: Bench,
) -> None:
    provider = Failing(bench)
    workers = [bench.pipeline(provider) for _ in range(4)]  # type: ignore[arg-type]
    waiters = [Waiter(bench.request(Lane.SMS, number)) for number in NUMBERS]
    for worker in workers[:2]:
        eventually(lambda: not bench.paused(Lane.SMS), "the end of the pause")
        assert len(worker.run_batch(waiters).postponed) == len(NUMBERS)
    assert bench.rows("SELECT lost_in_a_row FROM lane_breaker") == [(2,)]
    asked, provider.most_numbers = provider.asked, 0
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda worker: worker.run_batch(waiters), workers))
    assert provider.asked == asked, "the lane pauses for every worker"
    assert all(outcome.pause_seconds > 0 for outcome in outcomes)
    eventually(lambda: not bench.paused(Lane.SMS), "the end of the pause")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda worker: worker.run_batch(waiters), workers))
    assert (provider.asked, provider.most_numbers) == (asked + 1, 1), "one probe, of one number"
    other = bench.request(Lane.RECHARGE, HOME)
    provider.failing = False
    assert run(workers[0], other)[0].decision == "confirmed", "the lanes are independent"
    eventually(lambda: not bench.paused(Lane.SMS), "the end of the pause")
    workers[3].run_batch(waiters)
    assert bench.rows("SELECT count(*) FROM lane_breaker") == [(0,)], "one answer, and all is well"
    rest = [waiter for waiter in waiters if waiter.failures < 3]
    assert workers[1].run_batch(rest).decided


def test_a_recharge_is_told_when_the_provider_goes_on_failing(bench: Bench) -> None:
    provider = Failing(bench)
    pipeline = bench.pipeline(provider)  # type: ignore[arg-type]
    for number in NUMBERS[:3]:
        eventually(lambda: not bench.paused(Lane.RECHARGE), "the end of the pause")
        pipeline.run_batch([Waiter(bench.request(Lane.RECHARGE, number))])
    asked = provider.asked
    (row,) = decided(pipeline.run_batch([Waiter(bench.request(Lane.RECHARGE, NUMBERS[9]))]))
    assert (row.decision, row.reason) == ("unverified", "provider_failing")
    assert provider.asked == asked, "at once, without a call"


def test_the_budget_is_exact_and_keeps_its_reserve_for_recharges(bench: Bench) -> None:
    bench.budget = Budget(daily=30, reserve=0.5)
    numbers = bench.known_numbers(60)

    def buy(lane: Lane, part: list[str]) -> Counter[str]:
        outcome = bench.pipeline().run_batch([Waiter(bench.request(lane, number)) for number in part])
        reasons = Counter(row.reason for _, row in outcome.decided)
        return reasons + Counter({"postponed": len(outcome.postponed)})

    with ThreadPoolExecutor(4) as pool:
        sms = sum(pool.map(lambda at: buy(Lane.SMS, numbers[at : at + 8]), range(0, 32, 8)), Counter())
    assert sms["postponed"] == 32 - 15
    assert bench.sandbox.bill.billed == 15
    with ThreadPoolExecutor(4) as pool:
        recharge = sum(
            pool.map(lambda at: buy(Lane.RECHARGE, numbers[at : at + 7]), range(32, 60, 7)), Counter()
        )
    assert recharge["budget_spent"] == 28 - 15
    assert bench.sandbox.bill.billed == 30
    assert bench.rows("SELECT taken FROM budget_day") == [(30,)]
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]
    assert bench.rows("SELECT count(*) FROM lookup_call WHERE outcome = 'calling'") == [(0,)]


def test_what_was_not_billed_goes_back_to_the_budget_and_what_may_have_been_does_not(bench: Bench) -> None:
    bench.budget = Budget(daily=10)
    invalid = "13800000099"
    bench.sandbox.faults.add(Fault(kind="item_code", mobile=invalid, code=-3, calls=None))
    run(bench.pipeline(), bench.request(Lane.SMS, invalid), bench.request(Lane.SMS, PORTED))
    assert bench.rows("SELECT taken FROM budget_day") == [(1,)]
    bench.pipeline(Failing(bench)).run_batch([Waiter(bench.request(Lane.SMS, HOME))])  # type: ignore[arg-type]
    assert bench.rows("SELECT taken FROM budget_day") == [(2,)]


def test_a_batch_dearer_than_the_balance_is_cut_to_it(bench: Bench) -> None:
    numbers = bench.known_numbers(40)
    bench.sandbox.put_account(Account(DEFAULT_APIKEY, balance=25))
    outcome = bench.pipeline().run_batch([Waiter(bench.request(Lane.SMS, number)) for number in numbers])
    assert len(outcome.decided) == 25
    assert len(outcome.postponed) == 15
    assert bench.sandbox.bill.billed == 25
    assert bench.rows("SELECT count(*) FROM gate") == [(1,)], "and then the account cannot buy"
    assert bench.rows("SELECT sum(billed), count(*) FILTER (WHERE outcome = 'calling') FROM lookup_call") == [
        (25, 0)
    ]


def test_the_numbers_of_a_dead_process_are_free_within_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    class Dying:
        def lookup(self, msisdn: str, **_: Any) -> Answer:
            raise Killed

        lookup_batch = balance = lookup

    dying = bench.pipeline(Dying())  # type: ignore[arg-type]
    with pytest.raises(Killed):
        dying.run_batch([Waiter(bench.request(Lane.SMS, PORTED))])
    upkeep = bench.upkeep()
    monkeypatch.setattr("worker.storage.presence.GONE_SECONDS", 0.5)

    def numbers_in_flight() -> int:
        upkeep.give_up_dead_calls()
        return int(bench.rows("SELECT count(*) FROM in_flight")[0][0])

    upkeep.give_up_dead_calls()
    assert numbers_in_flight() == 1, "its process lives: it may still answer"
    bench.stores[0].close()
    eventually(lambda: numbers_in_flight() == 0, "the number's release", seconds=5)
    assert bench.rows("SELECT outcome, unanswered FROM lookup_call") == [("lost", [int(PORTED)])]


def test_a_half_asks_only_for_what_its_call_still_holds(bench: Bench) -> None:
    requests = [bench.request(Lane.SMS, number) for number in NUMBERS[:4]]
    account = bench.sandbox.account(DEFAULT_APIKEY)
    asked: list[str] = []

    class Refusing:
        balance = account.balance

        def lookup(self, msisdn: str) -> Answer:
            asked.append(msisdn)
            return account.lookup(msisdn)

        def lookup_batch(self, msisdns: Sequence[str]) -> list[Any]:
            if len(msisdns) == 4:  # meanwhile a recharge takes one over
                call = Call(new_id(), new_id(), Lane.RECHARGE, "sandbox", bench.clock(), 1, 20.0)
                bench.stores[0].claim(call, {NUMBERS[0]: [requests[0].key]}, overtaken=[NUMBERS[0]])
                raise RequestRefused("one of these is no number", code=1)
            asked.extend(msisdns)
            return account.lookup_batch(msisdns)

    outcome = bench.pipeline(Refusing()).run_batch([Waiter(request) for request in requests])  # type: ignore[arg-type]
    assert sorted(asked) == NUMBERS[1:4]
    assert [each.waiter.request.msisdn for each in outcome.postponed] == [NUMBERS[0]]
    assert len(outcome.decided) == 3


def test_who_waited_for_a_call_shares_its_answer_though_it_came_after_the_call_was_sent(
    bench: Bench,
) -> None:
    pipeline = bench.pipeline()
    (store,) = bench.stores
    call = Call(new_id(), new_id(), Lane.SMS, "sandbox", bench.clock(), 1, 20.0)
    request = bench.request(Lane.RECHARGE, HOME, attempt=2)  # an answer from before would not do
    assert request.received_at > call.sent_at
    store.claim(call, {HOME: [request.key]}, overtaken=[])
    waiter = Waiter(request)
    assert pipeline.run_batch([waiter]).postponed
    record = PortRecord(HOME, Status.NOT_PORTED, "CMCC", "CMCC", None, call.sent_at)
    ended = EndedCall(call, [HOME], ANSWERED, bench.clock(), 1)
    store.settle(Settlement(call.batch_id, Lane.SMS, bench.clock(), learned=[record], ended=[ended]))
    assert [row.answered_from for row in decided(pipeline.run_batch([waiter]))] == [AnsweredFrom.SHARED]
    assert bench.sandbox.bill.times_billed(HOME) == 0


def _of_another_operator(bench: Bench, count: int) -> list[str]:
    numbers = bench.known_numbers(20)
    return [one for one in numbers if bench.sandbox.truth(one).current_operator != "CUCC"][:count]


def _sms(bench: Bench, numbers: Sequence[str]) -> list[Waiter]:
    """Failed on an operator that these numbers are not with, so their records answer."""
    return [Waiter(bench.request(Lane.SMS, number, operator="CUCC")) for number in numbers]


def test_records_answer_sms_whose_numbers_were_held_before_they_were_read(bench: Bench) -> None:
    numbers = _of_another_operator(bench, 3)
    run(bench.pipeline(), *(waiter.request for waiter in _sms(bench, numbers[:2])))
    outcome = bench.pipeline().run_batch(_sms(bench, numbers))
    assert [row.answered_from for row in decided(outcome)] == [
        AnsweredFrom.STORED,
        AnsweredFrom.STORED,
        AnsweredFrom.LIVE,
    ]
    assert [bench.sandbox.bill.times_billed(number) for number in numbers] == [1, 1, 1]
    assert bench.rows("SELECT numbers, outcome FROM lookup_call ORDER BY id") == [
        (2, ANSWERED),
        (1, ANSWERED),
    ]
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]


def test_records_answer_sms_while_nothing_may_be_asked(bench: Bench) -> None:
    known, unknown = _of_another_operator(bench, 2)
    run(bench.pipeline(), bench.request(Lane.SMS, known, operator="CUCC"))
    bench.stores[0].close_gate("", by="somebody", reason="for a while")
    outcome = bench.pipeline().run_batch(_sms(bench, [known, unknown]))
    assert [row.answered_from for _, row in outcome.decided] == [AnsweredFrom.STORED]
    assert [postponed.waiter.request.msisdn for postponed in outcome.postponed] == [unknown]


def test_a_lane_whose_records_often_answer_reads_them_before_it_holds_numbers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, claims = _of_another_operator(bench, 2), 0
    pipeline = bench.pipeline()
    run(pipeline, *(waiter.request for waiter in _sms(bench, numbers)))
    claim = PostgresStore.claim

    def counted(*values: Any, **named: Any) -> Any:
        nonlocal claims
        claims += 1
        return claim(*values, **named)

    monkeypatch.setattr(PostgresStore, "claim", counted)
    for _ in range(10):
        decided(pipeline.run_batch(_sms(bench, numbers)))
    assert 0 < claims < 4, "held in vain at first"
    assert bench.sandbox.bill.billed == 2
