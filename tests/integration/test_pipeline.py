"""The pipeline over real Postgres and the sandbox's own look-up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, text

from tests.integration.bench import HOME, PORTED, Bench, decided, run
from worker.asking import NEVER_ANSWERED
from worker.batching import Waiter
from worker.buyer import Buyer
from worker.carrier.protocol import Answer, Balance, CarrierLookup, FeeType, Unanswered
from worker.errors import AccountFault, AnswerLost
from worker.portability import letter_ids
from worker.portability.records import AnsweredFrom, Status
from worker.portability.requests import Lane
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Latency
from worker.storage.dead_letters import DeadLetter
from worker.storage.ids import new_id


def test_one_paid_answer_serves_all_who_wait_for_the_number(bench: Bench) -> None:
    requests = [bench.request(Lane.RECHARGE, PORTED) for _ in range(3)]
    rows = run(bench.pipeline(), *requests)
    assert [row.answered_from for row in rows] == [
        AnsweredFrom.LIVE, AnsweredFrom.SHARED, AnsweredFrom.SHARED
    ]  # fmt: skip
    assert {(row.decision, row.target_operator) for row in rows} == {("reroute", "CTCC")}
    assert bench.sandbox.bill.billed == 1
    assert bench.rows("SELECT numbers, billed, outcome FROM lookup_call") == [(1, 1, "answered")]
    assert bench.rows("SELECT count(*) FROM lookup_batch WHERE emitted_at IS NOT NULL") == [(1,)]
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]


def test_the_same_key_again_gets_the_same_event_and_no_second_bill(bench: Bench) -> None:
    request = bench.request(Lane.RECHARGE, PORTED, attempt=2)
    run(bench.pipeline(), request)
    again = replace(request, received_at=bench.clock())
    run(bench.pipeline(), again, again)
    bodies = {event.body for event in bench.publisher.events}
    assert len(bench.publisher.events) == 2
    assert len(bodies) == 1, "byte-equal"
    assert bench.sandbox.bill.billed == 1


@pytest.mark.parametrize("other", [{"msisdn": HOME}, {"operator": "CUCC"}])
@pytest.mark.parametrize("together", [True, False])
def test_the_same_key_with_another_question_is_rejected_beside_the_first(
    bench: Bench, other: dict[str, str], together: bool
) -> None:
    first = bench.request(Lane.RECHARGE, PORTED)
    conflicting = replace(first, **other)
    if together:
        outcome = bench.pipeline().run_batch([Waiter(first), Waiter(conflicting)])
        assert [row.msisdn for _, row in outcome.decided] == [PORTED]
        assert [one.waiter.request for one in outcome.postponed] == [conflicting], (
            "until the first has its row"
        )
    else:
        run(bench.pipeline(), first)
    outcome = bench.pipeline().run_batch([Waiter(conflicting)])
    assert not outcome.decided
    ((waiter, reason),) = outcome.rejected
    assert waiter.request is conflicting
    assert "was used before" in reason
    assert bench.rows("SELECT msisdn::text, asked_operator FROM check_request") == [(PORTED, "CMCC")]


def test_workers_that_race_for_the_same_numbers_buy_each_once(bench: Bench) -> None:
    numbers = [f"138{index:08d}" for index in range(300)]
    bench.sandbox.latency = Latency(single_seconds=0.02, batch_seconds=0.1)

    # all asked before the first call: an sms that failed after it would rightly be bought again
    asked = [
        [Waiter(bench.request(Lane.RECHARGE if order % 2 else Lane.SMS, number)) for number in numbers]
        for order in range(6)
    ]

    def work(order: int) -> set[str]:
        pipeline = bench.pipeline(patience_seconds=60)
        waiters = asked[order][:: -1 if order % 3 else 1]
        events = set()
        while waiters:
            outcome = pipeline.run_batch(waiters[:200])
            assert not outcome.rejected
            events |= {row.event_id for _, row in outcome.decided}
            again = [*outcome.still_asking, *(postponed.waiter for postponed in outcome.postponed)]
            waiters = waiters[200:] + again
        return events

    with ThreadPoolExecutor(6) as pool:
        events = list(pool.map(work, range(6)))
    assert all(len(each) == 300 for each in events)
    known = sum(bench.sandbox.truth(number).code in {0, -4} for number in numbers)
    assert bench.sandbox.bill.billed_again() == {}
    assert bench.sandbox.bill.billed == known
    assert bench.rows("SELECT count(*) FROM check_request") == [(1800,)]


@pytest.mark.parametrize("lane", [Lane.SMS, Lane.DIRECT])
def test_an_answer_serves_who_came_before_it_and_looks_after_it(bench: Bench, lane: Lane) -> None:
    asked = []

    @dataclass
    class Meanwhile:
        inner: CarrierLookup

        def lookup(self, msisdn: str, **_: Any) -> Answer:
            asked.append(bench.request(lane, HOME))
            return self.inner.lookup(msisdn)

    run(bench.pipeline(Meanwhile(bench.sandbox.account(DEFAULT_APIKEY))), bench.request(lane, HOME))  # type: ignore[arg-type]
    (shared,) = run(bench.pipeline(), *asked)
    assert shared.answered_from is AnsweredFrom.SHARED
    assert bench.sandbox.bill.billed == 1
    assert bench.rows("SELECT outcome, count(*) FROM lookup_call GROUP BY outcome") == [("answered", 1)]
    assert bench.rows("SELECT * FROM in_flight") == [], "what it claimed needlessly it let go"
    (bought,) = run(bench.pipeline(), bench.request(lane, HOME))
    assert bought.answered_from is AnsweredFrom.LIVE, "it came after that answer"


def test_a_recharge_overtakes_a_call_that_takes_too_long(bench: Bench) -> None:
    entered, leave = threading.Event(), threading.Event()

    @dataclass
    class Slow:
        inner: CarrierLookup

        def lookup(self, msisdn: str, *, timeout_seconds: float | None = None) -> Answer:
            entered.set()
            assert leave.wait(10)
            return self.inner.lookup(msisdn)

        def lookup_batch(self, msisdns: Sequence[str], **_: Any) -> list[Answer | Unanswered]:
            raise AssertionError

        def balance(self, **_: Any) -> Balance:
            return Balance(FeeType.PREPAID, 1)

    slow = bench.pipeline(Slow(bench.sandbox.account(DEFAULT_APIKEY)))
    with ThreadPoolExecutor(1) as pool:
        sms = pool.submit(run, slow, bench.request(Lane.SMS, PORTED))
        assert entered.wait(10)
        waiter = Waiter(bench.request(Lane.RECHARGE, PORTED))
        quick = bench.pipeline(patience_seconds=0.05)
        outcome = quick.run_batch([waiter])
        assert outcome.postponed, "it waits for the other lane's call first"
        while not outcome.decided:
            outcome = quick.run_batch([waiter])
        leave.set()
        assert sms.result(10)[0].answered_from is AnsweredFrom.LIVE
    assert decided(outcome)[0].answered_from is AnsweredFrom.LIVE
    assert bench.sandbox.bill.times_billed(PORTED) == 2, "overtaken: the one second bill the promises allow"
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]
    overtaking = bench.rows("SELECT overtaken FROM lookup_call WHERE lane = 'recharge'")
    assert overtaking == [([int(PORTED)],)], "and listed"
    assert bench.rows("SELECT overtaken FROM lookup_call WHERE lane = 'sms'") == [(None,)]


def test_an_account_fault_closes_the_gate_for_everyone_until_the_balance_is_well(bench: Bench) -> None:
    bench.sandbox.put_account(Account(DEFAULT_APIKEY, balance=0))
    pipeline = bench.pipeline()
    sms = Waiter(bench.request(Lane.SMS, PORTED))
    outcome = pipeline.run_batch([sms])
    assert outcome.postponed
    assert outcome.pause_seconds
    calls = bench.sandbox.bill.calls
    (row,) = run(bench.pipeline(), bench.request(Lane.RECHARGE, HOME))
    assert (row.decision, row.reason) == ("unverified", "gate_closed")
    assert bench.sandbox.bill.calls == calls, "a closed gate makes no call"
    bench.upkeep().watch_gate()
    assert bench.rows("SELECT closed_by FROM gate") == [("provider",)]
    bench.sandbox.put_account(Account(DEFAULT_APIKEY, balance=10))
    bench.upkeep().watch_gate()
    assert decided(pipeline.run_batch([sms]))[0].decision == "reroute"


def test_a_refused_batch_is_halved_down_to_the_number_at_fault(bench: Bench) -> None:
    numbers = [f"138{index:08d}" for index in range(100)]
    bench.sandbox.faults.add(Fault(kind="poison", mobile=numbers[37], calls=None))
    rows = run(bench.pipeline(), *(bench.request(Lane.SMS, number) for number in numbers))
    poisoned = {row.msisdn: row for row in rows}[numbers[37]]
    assert (poisoned.status, poisoned.decision) == (Status.INVALID, "undeliverable")
    truth = {number: bench.sandbox.truth(number).status for number in numbers if number != numbers[37]}
    assert {row.msisdn: row.status for row in rows if row is not poisoned} == truth
    assert bench.sandbox.bill.billed_again() == {}
    assert bench.rows("SELECT count(*) FROM lookup_call WHERE outcome = 'calling'") == [(0,)]
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]
    assert bench.rows("SELECT sum(billed) FROM lookup_call") == [(bench.sandbox.bill.billed,)]


def test_a_mistyped_key_shuts_nobody_else_out(bench: Bench) -> None:
    class WrongKey:
        def lookup(self, msisdn: str, **_: Any) -> Answer:
            raise AccountFault("the key is unknown", code=-1)

        lookup_batch = balance = lookup

    mistyped = bench.pipeline(WrongKey(), account="mistyped")  # type: ignore[arg-type]
    assert run(mistyped, bench.request(Lane.RECHARGE, HOME))[0].reason == "gate_closed"
    assert run(bench.pipeline(), bench.request(Lane.RECHARGE, HOME))[0].decision == "confirmed"


def test_a_number_the_provider_refuses_by_itself_is_given_up_unbilled(bench: Bench) -> None:
    bench.sandbox.faults.add(Fault(kind="poison", mobile=PORTED, code=-9, calls=None))
    pipeline = bench.pipeline()
    waiter = Waiter(bench.request(Lane.SMS, PORTED))
    for _ in range(2):
        assert pipeline.run_batch([waiter]).postponed
    ((_, reason),) = pipeline.run_batch([waiter]).rejected
    assert "refused this number with code -9 3 times" in reason
    assert bench.sandbox.bill.times_billed(PORTED) == 0


def test_a_call_asks_for_numbers_in_the_order_in_which_they_came(bench: Bench) -> None:
    asked: list[list[str]] = []

    class Noting:
        def lookup_batch(self, msisdns: list[str], **_: Any) -> list[Answer]:
            asked.append(list(msisdns))
            raise AnswerLost("no answer in time")

    numbers = [f"138{index * 7919 % 100_000_000:08d}" for index in range(200)]
    pipeline = bench.pipeline(Noting())  # type: ignore[arg-type]
    pipeline.run_batch([Waiter(bench.request(Lane.SMS, number)) for number in numbers])
    assert asked == [numbers]


def test_two_bad_numbers_close_the_gate_once_and_not_for_ever(bench: Bench) -> None:
    for number in (PORTED, HOME):
        bench.sandbox.faults.add(Fault(kind="poison", mobile=number, calls=None))
    pipeline = bench.pipeline()
    (first,) = decided(pipeline.run_batch([Waiter(bench.request(Lane.SMS, PORTED))]))
    assert first.status is Status.INVALID
    other = Waiter(bench.request(Lane.SMS, HOME))
    assert pipeline.run_batch([other]).postponed
    assert bench.rows("SELECT closed_by FROM gate") == [("provider",)], "it may well be the account's fault"
    bench.upkeep().watch_gate()
    (second,) = decided(pipeline.run_batch([other]))
    assert second.status is Status.INVALID
    assert bench.rows("SELECT count(*) FROM gate") == [(0,)]


def test_copies_of_a_request_count_what_was_bought_together(bench: Bench) -> None:
    class Silent:
        def lookup(self, msisdn: str, **_: Any) -> Answer:
            raise AnswerLost("no answer in time")

        lookup_batch = balance = lookup

    pipeline = bench.pipeline(Silent())  # type: ignore[arg-type]
    request = bench.request(Lane.SMS, PORTED)
    copies = [Waiter(request), Waiter(request)]
    while not (outcome := pipeline.run_batch(copies)).rejected:
        copies.reverse()  # postponed, they come again in any order
    assert len(outcome.rejected) == 2
    assert bench.rows("SELECT count(*) FROM lookup_call") == [(3,)]


def test_a_lost_answer_is_listed_and_a_number_is_bought_three_times_at_most(bench: Bench) -> None:
    class Silent:
        def lookup(self, msisdn: str, **_: Any) -> Answer:
            raise AnswerLost("no answer in time")

        lookup_batch = balance = lookup

    pipeline = bench.pipeline(Silent())  # type: ignore[arg-type]
    waiter = Waiter(bench.request(Lane.SMS, PORTED))
    while not (outcome := pipeline.run_batch([waiter])).rejected:
        assert outcome.postponed
    assert outcome.rejected == [(waiter, NEVER_ANSWERED)]
    listed = bench.rows("SELECT outcome, billed, unanswered FROM lookup_call")
    assert listed == [("lost", None, [int(PORTED)])] * 3
    recharge = Waiter(bench.request(Lane.RECHARGE, PORTED), failures=2)  # its lane's first lost call
    (row,) = decided(pipeline.run_batch([recharge]))
    assert (row.decision, row.reason, row.answered_from) == ("unverified", "provider_failing", None)


def test_what_was_bought_before_a_defect_answers_the_request_once_it_is_mended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = bench.pipeline()

    def defect(*_: Any) -> None:
        raise KeyError("a defect of ours")

    monkeypatch.setattr(pipeline, "_decide", defect)
    waiter = Waiter(bench.request(Lane.SMS, PORTED))
    for _ in range(2):
        with pytest.raises(KeyError):
            pipeline.run_batch([waiter])
    assert bench.rows("SELECT outcome, billed FROM lookup_call") == [("answered", 1)]
    monkeypatch.undo()
    assert [row.status for _, row in pipeline.run_batch([waiter]).decided] == [Status.PORTED]
    assert bench.sandbox.bill.times_billed(PORTED) == 1


def test_a_defect_in_the_call_buys_at_most_three_times(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = bench.pipeline()

    def defect(*_: Any) -> None:
        raise KeyError("a defect of ours")

    monkeypatch.setattr(Buyer, "_answered", defect)
    waiter = Waiter(bench.request(Lane.SMS, PORTED))
    for _ in range(3):
        with pytest.raises(KeyError):
            pipeline.run_batch([waiter])
    assert pipeline.run_batch([waiter]).rejected == [(waiter, NEVER_ANSWERED)]
    assert bench.sandbox.bill.times_billed(PORTED) == 3
    assert set(bench.rows("SELECT outcome FROM lookup_call")) == {("lost",)}


def test_a_port_is_recorded_once_and_told(bench: Bench) -> None:
    pipeline = bench.pipeline()
    run(pipeline, bench.request(Lane.SMS, HOME, operator="CUCC"))
    bench.sandbox.port(HOME, "CUCC")
    (row,) = run(pipeline, bench.request(Lane.SMS, HOME, failure_code="MK:0001"))
    assert (row.decision, row.target_operator) == ("reroute", "CUCC")
    assert bench.rows("SELECT msisdn::text, donor, recipient, doubtful FROM port_change") == [
        (HOME, "CMCC", "CUCC", False)
    ]
    told = [event for event in bench.publisher.events if event.type == "number.ported"]
    assert [msgspec.json.decode(event.body)["data"]["recipient"] for event in told] == ["CUCC"]


def test_a_late_answer_does_not_undo_a_newer_one(bench: Bench) -> None:
    bench.now = datetime.now(UTC)
    bench.sandbox.port(HOME, "CUCC", at=bench.now - timedelta(hours=1))
    run(bench.pipeline(), bench.request(Lane.RECHARGE, HOME))
    bench.now -= timedelta(minutes=30)
    bench.sandbox.port(HOME, "CTCC", at=bench.now)
    run(
        bench.pipeline(),
        bench.request(Lane.RECHARGE, HOME, attempt=2, received_at=bench.now + timedelta(hours=2)),
    )
    assert bench.rows("SELECT current_operator FROM port_record") == [("CUCC",)]
    assert bench.rows("SELECT count(*) FROM port_change") == [(0,)]


def test_a_stored_answer_does_not_wait_for_its_neighbours_call(bench: Bench) -> None:
    run(bench.pipeline(), bench.request(Lane.SMS, HOME, operator="CUCC"))
    stored, asking = Waiter(bench.request(Lane.RECHARGE, HOME)), Waiter(bench.request(Lane.RECHARGE, PORTED))
    pipeline = bench.pipeline()
    outcome = pipeline.run_batch([asking, stored])
    assert [(waiter, row.answered_from) for waiter, row in outcome.decided] == [(stored, AnsweredFrom.STORED)]
    assert outcome.still_asking == [asking]
    assert bench.sandbox.bill.times_billed(PORTED) == 0, "told before the call is made"
    assert decided(pipeline.run_batch(outcome.still_asking))[0].answered_from is AnsweredFrom.LIVE


def test_events_nobody_confirmed_are_relayed_byte_equal(bench: Bench) -> None:
    run(bench.pipeline(), bench.request(Lane.SMS, HOME, operator="CUCC"))
    (first,) = bench.publisher.events
    bench.publisher.refusing = True
    bench.sandbox.port(HOME, "CUCC")
    request = bench.request(Lane.SMS, HOME)
    run(bench.pipeline(), request)
    bench.publisher.refusing = False
    assert bench.upkeep().relay(older_than_seconds=60) == 0, "not before its time"
    assert bench.upkeep().relay(older_than_seconds=0) == 1
    assert bench.upkeep().relay(older_than_seconds=0) == 0
    relayed = bench.publisher.events[1:]
    assert {event.type for event in relayed} == {"sms.reroute", "number.ported"}
    run(bench.pipeline(), request)
    assert bench.publisher.events[-1] in relayed
    assert first not in relayed


def test_a_call_whose_process_died_is_given_up_and_its_numbers_are_free(bench: Bench) -> None:
    run(bench.pipeline(), bench.request(Lane.SMS, PORTED))
    with bench.database.begin() as connection:
        connection.execute(
            text("UPDATE lookup_call SET outcome = 'calling', until = now() - interval '1 second'")
        )
        connection.execute(text("INSERT INTO in_flight SELECT 13972565391, id, until FROM lookup_call"))
    bench.upkeep().give_up_dead_calls()
    assert bench.rows("SELECT outcome, unanswered FROM lookup_call") == [("lost", [int(PORTED)])]
    assert bench.rows("SELECT count(*) FROM in_flight") == [(0,)]


def test_a_transaction_whose_commit_was_answered_by_silence_leaves_one_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.errors import StorageUnavailable
    from worker.storage import engine

    committed = engine._committed
    cuts = iter([True, False])

    def cut(database: Engine, work: Any) -> Any:
        answer = committed(database, work)
        if next(cuts, False):
            raise StorageUnavailable("server closed the connection")
        return answer

    monkeypatch.setattr(engine, "_committed", cut)
    (row,) = run(bench.pipeline(), bench.request(Lane.RECHARGE, PORTED))
    assert bench.rows("SELECT batch_id::text, event_id::text FROM check_request") == [
        (row.batch_id, row.event_id)
    ]
    assert [event.id for event in bench.publisher.events] == [row.event_id]
    assert bench.sandbox.bill.billed == 1


def test_what_was_parked_is_parked_again_when_its_message_comes_again(bench: Bench) -> None:
    letter = DeadLetter(new_id(), "sms.recheck", {}, "given up before", "sms", bench.clock())
    pipeline = bench.pipeline()
    pipeline.park([letter])
    request = bench.request(Lane.SMS, PORTED)
    again = Waiter(request, letter_id=UUID(letter.id).int)
    other = Waiter(bench.request(Lane.SMS, HOME))
    outcome = pipeline.run_batch([again, other])
    assert outcome.rejected == [(again, "given up before")]
    assert [waiter for waiter, _ in outcome.decided] == [other]
    resent = pipeline.run_batch([again, Waiter(request, letter_id=letter_ids.first_of(new_id(), ""))])
    assert (len(resent.rejected), len(resent.decided)) == (1, 1), "another message of its key is another item"
