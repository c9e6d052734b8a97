"""What every store promises the pipeline: one suite over Postgres and the simulation's store in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from uuid import UUID

import pytest
from msgspec import structs
from sqlalchemy.exc import DBAPIError

from tests.integration.stores import InMemory, Stores, in_postgres
from worker.portability import letter_ids
from worker.portability.records import AnsweredFrom, CheckedRequest, PortChange, PortRecord, Status
from worker.portability.requests import Lane, RequestKey
from worker.storage import port_records
from worker.storage.budget import Budget
from worker.storage.calls import ANSWERED, LOST, REFUSED, Call, EarlyClaim, EndedCall
from worker.storage.dead_letters import DeadLetter
from worker.storage.engine import connect
from worker.storage.gate import EVERY_ACCOUNT
from worker.storage.statements import run
from worker.storage.store import Claim, Settled, Settlement, Store

A, B, C, D = "13900000001", "13900000002", "13900000003", "13900000004"
ACCOUNT = "0123456789abcdef"
MESSAGE = letter_ids.first_of("a task's id", "of its body")
SECOND = timedelta(seconds=1)


@pytest.fixture(params=["memory", "postgres"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        yield InMemory()
        return
    with in_postgres(request.getfixturevalue("database_url")) as made:
        yield made


def an_id(number: int) -> str:
    return str(UUID(int=number))


def a_key(reference: str = "o-1", lane: Lane = Lane.SMS) -> RequestKey:
    return RequestKey("", lane, reference, 1)


def a_call(
    stores: Stores, number: int, *, lane: Lane = Lane.SMS, hold_seconds: float = 20.0, numbers: int = 0
) -> Call:
    return Call(an_id(number), an_id(1000 + number), lane, "provider", stores.now(), numbers, hold_seconds)


def claim(store: Store, call: Call, *msisdns: str, overtaken: Sequence[str] = ()) -> Claim:
    return store.claim(call, {msisdn: [a_key(msisdn)] for msisdn in msisdns}, overtaken=overtaken)


def a_record(msisdn: str, at: datetime, operator: str | None = "CMCC") -> PortRecord:
    return PortRecord(msisdn, Status.NOT_PORTED, "CMCC", operator, "湖北-宜昌", at)


def a_row(msisdn: str, batch_id: str, at: datetime, *, reference: str = "o-1") -> CheckedRequest:
    return CheckedRequest(
        source="",
        lane=Lane.SMS,
        reference=reference,
        attempt=1,
        msisdn=msisdn,
        asked_operator="CTCC",
        failure_code=None,
        status=Status.NOT_PORTED,
        range_holder="CMCC",
        current_operator="CMCC",
        target_operator="CMCC",
        area="湖北-宜昌",
        observed_at=at,
        decision="reroute",
        reason="other_operator",
        answered_from=AnsweredFrom.LIVE,
        batch_id=batch_id,
        call_id=None,
        event_id=an_id(abs(hash(reference)) % 2**64),
        received_at=at,
        decided_at=at,
    )


def a_settlement(
    stores: Stores,
    number: int,
    *,
    rows: Sequence[CheckedRequest] = (),
    learned: Sequence[PortRecord] = (),
    ended: Sequence[EndedCall] = (),
    call_id: str | None = None,
    letters: Mapping[int, RequestKey] = MappingProxyType({}),
    without_record: Collection[str] = (),
) -> Settlement:
    batch_id = an_id(1000 + number)
    return Settlement(
        batch_id, Lane.SMS, stores.now(), rows, learned, ended, call_id, letters, without_record
    )


def an_early_claim(stores: Stores, number: int, letter: int | None = None) -> EarlyClaim:
    since = stores.now() - timedelta(seconds=600)
    return EarlyClaim(a_call(stores, number, numbers=1), a_key(), A, since, letter)


def a_letter(stores: Stores, letter: int, reason: str = "no") -> DeadLetter:
    return DeadLetter(letter_ids.written(letter), "sms.recheck", {}, reason, "sms", stores.now())


def records_of(store: Store, *msisdns: str) -> dict[str, PortRecord]:
    return dict(store.look_up(ACCOUNT, Lane.SMS, [a_key()], msisdns).records)


# -- looking up -------------------------------------------------------------------------------


def test_what_was_stored_is_known_and_what_was_not_is_absent(stores: Stores) -> None:
    store = stores.process()
    row, record = a_row(A, an_id(1001), stores.now()), a_record(A, stores.now())
    assert store.settle(a_settlement(stores, 1, rows=[row], learned=[record])) == Settled({}, [])
    known = stores.process().look_up(ACCOUNT, Lane.SMS, [row.key, a_key("o-2")], [A, B])
    assert known.rows == {row.key: row}
    assert known.records == {A: record}
    assert known.closed_gate is None
    assert known.breaker is None


@pytest.mark.parametrize("pattern", ["alike", "none", "some", "different"])
def test_rows_are_stored_as_they_are_whatever_they_have_in_common(stores: Stores, pattern: str) -> None:
    at, texts = stores.now(), ['x"', "y\\", "NULL"]
    values = {"alike": texts[:1] * 3, "none": [None] * 3, "some": [None, "x", None], "different": texts}
    moments = [None if value is None else at + index * SECOND for index, value in enumerate(values[pattern])]
    if pattern == "alike":
        moments = [at] * 3
    optional = (
        "asked_operator",
        "failure_code",
        "range_holder",
        "current_operator",
        "target_operator",
        "area",
    )
    rows = [
        structs.replace(
            a_row(msisdn, an_id(1001), at, reference=f"o-{msisdn}"),
            **dict.fromkeys(optional, value),
            observed_at=moment,
            call_id=None if value is None else an_id(len(value)),
        )
        for msisdn, value, moment in zip((A, B, C), values[pattern], moments, strict=True)
    ]
    learned = [
        structs.replace(a_record(msisdn, at), area=value, changed_at=moment, answered_at=moment)
        for msisdn, value, moment in zip((A, B, C), values[pattern], moments, strict=True)
    ]
    store = stores.process()
    store.settle(a_settlement(stores, 1, rows=rows, learned=learned))
    known = store.look_up(ACCOUNT, Lane.SMS, [row.key for row in rows], [A, B, C])
    assert known.rows == {row.key: row for row in rows}
    assert known.records == {record.msisdn: record for record in learned}


def test_nothing_is_known_of_nothing(stores: Stores) -> None:
    known = stores.process().look_up(ACCOUNT, Lane.SMS, [], [])
    assert (known.rows, known.records) == ({}, {})


def test_one_request_may_be_claimed_along_with_the_look(stores: Stores) -> None:
    store = stores.process()
    early = an_early_claim(stores, 1)
    known = store.look_up(ACCOUNT, Lane.SMS, [early.key], [A], early=early)
    assert known.claimed == early
    assert (known.rows, known.records, known.closed_gate, known.breaker) == ({}, {}, None, None)
    assert stores.in_flight() == {A: an_id(1)}
    assert stores.calls() == {an_id(1): ("calling", None, 1, None, None, None, None)}


@pytest.mark.parametrize(
    "what",
    ["closed gate", "failing lane", "row", "dead letter", "young record", "another call", "daily budget"],
)
def test_nothing_is_claimed_with_the_look_where_something_speaks_against_it(
    stores: Stores, what: str
) -> None:
    budget = Budget(10, 0.0) if what == "daily budget" else Budget()
    store, early = stores.process(budget), an_early_claim(stores, 1, MESSAGE)
    if what == "closed gate":
        store.close_gate(EVERY_ACCOUNT, by="ops", reason="invoice")
    elif what == "failing lane":
        store.call_ended(ACCOUNT, Lane.SMS, lost=True)
    elif what == "row":
        store.settle(a_settlement(stores, 2, rows=[a_row(B, an_id(1002), stores.now())]))
    elif what == "dead letter":
        store.park([a_letter(stores, MESSAGE)])
    elif what == "young record":
        young = a_record(A, early.unless_observed_since + timedelta(microseconds=1))
        store.settle(a_settlement(stores, 2, learned=[young]))
    elif what == "another call":
        claim(stores.process(), a_call(stores, 3), A)
    before = stores.calls(), stores.in_flight()
    known = store.look_up(ACCOUNT, Lane.SMS, [early.key], [A], early=early)
    assert known.claimed is None
    assert (stores.calls(), stores.in_flight()) == before


def test_what_speaks_against_another_does_not_keep_a_request_from_being_claimed(stores: Stores) -> None:
    store, early = stores.process(), an_early_claim(stores, 1, MESSAGE)
    store.park([a_letter(stores, letter_ids.of_item(MESSAGE, 1))])
    store.close_gate("another", by="provider", reason="code -5")
    store.call_ended("another", Lane.SMS, lost=True)
    store.call_ended(ACCOUNT, Lane.RECHARGE, lost=True)
    rows = [a_row(A, an_id(1002), stores.now(), reference="o-2")]
    learned = [a_record(A, early.unless_observed_since), a_record(B, stores.now())]
    store.settle(a_settlement(stores, 2, rows=rows, learned=learned))
    claim(stores.process(), a_call(stores, 3), B)
    assert store.look_up(ACCOUNT, Lane.SMS, [early.key], [A], early=early).claimed == early


# -- claims -----------------------------------------------------------------------------------


def test_free_numbers_are_held_and_a_call_is_named_for_them(stores: Stores) -> None:
    store = stores.process()
    assert claim(store, a_call(stores, 1), A, B) == Claim({A, B}, set(), {}, {}, {})
    assert stores.in_flight() == {A: an_id(1), B: an_id(1)}
    assert stores.calls() == {an_id(1): ("calling", None, 2, None, None, None, None)}


def test_numbers_that_another_call_holds_are_not_held_and_its_time_is_told(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    call = a_call(stores, 1)
    claim(one, call, A)
    stores.pass_time(1)
    found = claim(other, a_call(stores, 2), A, B)
    assert (found.held, found.holders) == ({B}, {A: call.sent_at})
    assert claim(one, a_call(stores, 3), A, B).held == set()
    assert stores.calls().keys() == {an_id(1), an_id(2)}, "no call is named for numbers others hold"


def test_overtaken_numbers_are_held_whoever_has_them_and_are_listed(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    claim(one, a_call(stores, 1), A, B)
    found = claim(other, a_call(stores, 2, lane=Lane.RECHARGE), A, C, overtaken=[A, C])
    assert (found.held, found.holders) == ({A, C}, {})
    assert stores.in_flight() == {A: an_id(2), B: an_id(1), C: an_id(2)}
    assert stores.calls()[an_id(2)][5] == [A], "a number that was free was not overtaken"


def test_a_claim_reads_records_and_decided_keys_after_it(stores: Stores) -> None:
    store = stores.process()
    row, record = a_row(A, an_id(1001), stores.now(), reference=A), a_record(A, stores.now())
    store.settle(a_settlement(stores, 1, rows=[row], learned=[record]))
    without_record = a_row(B, an_id(1001), stores.now(), reference=B)
    store.settle(a_settlement(stores, 1, rows=[without_record]))
    found = claim(store, a_call(stores, 2), A, B)
    assert found == Claim({A, B}, set(), {A: record}, {}, {row.key: row})


def test_the_budget_grants_what_it_has_room_for_in_order(stores: Stores) -> None:
    store = stores.process(Budget(3))
    assert claim(store, a_call(stores, 1), B, A).held == {A, B}
    found = claim(store, a_call(stores, 2), D, C)
    assert (found.held, found.unaffordable) == ({D}, {C})
    assert stores.in_flight().keys() == {A, B, D}
    assert stores.calls()[an_id(2)][6] == 1
    spent = claim(store, a_call(stores, 3), C)
    assert (spent.held, spent.unaffordable, spent.holders) == (set(), {C}, {})
    assert an_id(3) not in stores.calls(), "a call that may buy nothing is not named"


def test_a_number_that_no_budget_is_left_to_take_over_stays_with_its_call(stores: Stores) -> None:
    store = stores.process(Budget(3))
    claim(store, a_call(stores, 1), A, B)
    found = claim(store, a_call(stores, 2, lane=Lane.RECHARGE), C, A, B, overtaken=[A, B])
    assert (found.held, found.unaffordable) == ({C}, {A, B})
    assert stores.in_flight() == {A: an_id(1), B: an_id(1), C: an_id(2)}
    assert claim(store, a_call(stores, 3), A).holders.keys() == {A}


def test_an_sms_leaves_the_reserve_to_recharges(stores: Stores) -> None:
    store = stores.process(Budget(2, reserve=0.5))
    assert claim(store, a_call(stores, 1), A, B).unaffordable == {B}
    assert claim(store, a_call(stores, 2, lane=Lane.RECHARGE), B, C).unaffordable == {C}


def test_a_day_s_budget_ends_at_its_midnight_and_a_call_gives_back_to_its_own_day(stores: Stores) -> None:
    store = stores.process(Budget(1))
    call = a_call(stores, 1, hold_seconds=1e6)
    claim(store, call, A)
    stores.pass_time(12 * 3600)  # it was noon in Shanghai
    assert claim(store, a_call(stores, 2), B).held == {B}
    store.let_go(call.id, [A], forget_call=True)
    assert stores.rest()["taken"] == {date(2026, 11, 24): 0, date(2026, 11, 25): 1}


# -- letting go -------------------------------------------------------------------------------


def test_numbers_let_go_are_free_and_their_call_stays(stores: Stores) -> None:
    store = stores.process(Budget(9))
    claim(store, a_call(stores, 1), A, B)
    store.let_go(an_id(1), [A], forget_call=False)
    store.let_go(an_id(1), [A], forget_call=False)
    assert stores.in_flight() == {B: an_id(1)}
    assert stores.calls()[an_id(1)][6] == 2
    assert claim(store, a_call(stores, 2), A).held == {A}
    store.let_go(an_id(1), [A, B], forget_call=False)
    assert stores.in_flight() == {A: an_id(2)}, "a number that another call holds by now stays with it"


def test_an_overtaken_number_that_is_let_go_is_its_first_call_s_again(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    first = a_call(stores, 1)
    claim(one, first, A, B)
    claim(other, a_call(stores, 2, lane=Lane.RECHARGE), A, C, overtaken=[A])
    other.let_go(an_id(2), [A, C], forget_call=True)
    assert stores.in_flight() == {A: an_id(1), B: an_id(1)}
    claim(other, a_call(stores, 3, lane=Lane.RECHARGE), A, C, overtaken=[A])
    one.settle(a_settlement(stores, 1, ended=[EndedCall(first, [A, B], ANSWERED, stores.now(), 2)]))
    other.let_go(an_id(3), [A], forget_call=False)
    assert stores.in_flight() == {C: an_id(3)}, "its first call has ended"


def test_a_dead_call_names_a_number_once_that_was_taken_over_and_given_back(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    claim(one, a_call(stores, 1), A, B)
    claim(other, a_call(stores, 2, lane=Lane.RECHARGE), A, C, overtaken=[A])
    other.let_go(an_id(2), [A], forget_call=False)
    stores.pass_time(21)
    other.give_up_dead_calls()
    assert stores.calls()[an_id(1)][4] == [A, B]


def test_a_call_that_is_forgotten_gives_its_budget_back_once(stores: Stores) -> None:
    store = stores.process(Budget(9))
    claim(store, a_call(stores, 1), A, B)
    store.let_go(an_id(1), [A, B], forget_call=True)
    store.let_go(an_id(1), [A, B], forget_call=True)
    assert (stores.in_flight(), stores.calls()) == ({}, {})
    assert list(stores.rest()["taken"].values()) == [0]


# -- halves -----------------------------------------------------------------------------------


def test_a_half_takes_over_what_its_call_still_holds(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    claim(one, a_call(stores, 1), A, B, C)
    claim(other, a_call(stores, 2, lane=Lane.RECHARGE), A, overtaken=[A])
    one.let_go(an_id(1), [B], forget_call=False)
    assert one.split(a_call(stores, 3), [A, B, C], from_id=an_id(1)) == {C}
    assert stores.in_flight() == {A: an_id(2), C: an_id(3)}
    assert stores.calls()[an_id(3)][:3] == ("calling", None, 1)
    assert one.split(a_call(stores, 4), [A, B], from_id=an_id(1)) == set()
    assert an_id(4) not in stores.calls()


def test_a_half_has_the_time_of_a_call_of_its_own(stores: Stores) -> None:
    store = stores.process()
    claim(store, a_call(stores, 1, hold_seconds=20), A, B)
    stores.pass_time(15)
    store.split(a_call(stores, 2, hold_seconds=20), [A], from_id=an_id(1))
    stores.pass_time(10)
    assert store.give_up_dead_calls() == 1
    assert stores.in_flight() == {A: an_id(2)}


# -- calls that are given up ------------------------------------------------------------------


def test_a_call_whose_time_is_up_is_lost_with_its_numbers_listed(stores: Stores) -> None:
    store = stores.process()
    claim(store, a_call(stores, 1, hold_seconds=20), B, A)
    stores.pass_time(20)
    assert store.give_up_dead_calls() == 0, "until its time it may be answered"
    stores.pass_time(0.1)
    assert store.give_up_dead_calls() == 2
    assert store.give_up_dead_calls() == 0
    assert stores.in_flight() == {}
    assert stores.calls()[an_id(1)] == (LOST, None, 2, None, [A, B], None, None)


def test_a_call_of_a_process_that_is_gone_is_given_up_within_seconds(stores: Stores) -> None:
    gone, alive = stores.process(), stores.process()
    claim(gone, a_call(stores, 1), A)
    claim(alive, a_call(stores, 2), B)
    stores.die(gone)
    assert alive.give_up_dead_calls() == 0
    stores.pass_time(3)
    assert alive.give_up_dead_calls() == 0, "it may have lost its connection only"
    stores.pass_time(1)
    assert alive.give_up_dead_calls() == 1
    assert stores.in_flight() == {B: an_id(2)}


def test_a_dead_call_names_also_the_numbers_that_were_taken_over_from_it(stores: Stores) -> None:
    """The provider may have billed them, and the calls that took them over have long ended."""
    gone, alive = stores.process(), stores.process()
    claim(gone, a_call(stores, 1), A, B, C)
    claim(gone, a_call(stores, 2, lane=Lane.RECHARGE), D, A, overtaken=[A])
    second = a_call(stores, 3, lane=Lane.RECHARGE, hold_seconds=60)
    claim(alive, second, A, B, overtaken=[A, B])
    alive.settle(a_settlement(stores, 3, ended=[EndedCall(second, [A, B], ANSWERED, stores.now(), 2)]))
    stores.pass_time(21)
    assert alive.give_up_dead_calls() == 2
    assert {call_id: row[4] for call_id, row in stores.calls().items()} == {
        an_id(1): [A, B, C],
        an_id(2): [A, D],
        an_id(3): None,
    }


def test_looks_far_apart_say_nothing_about_the_time_between(stores: Stores) -> None:
    gone, alive = stores.process(), stores.process()
    claim(gone, a_call(stores, 1), A)
    stores.die(gone)
    assert alive.give_up_dead_calls() == 0
    stores.pass_time(10)
    assert alive.give_up_dead_calls() == 0


def test_numbers_left_by_a_call_that_has_ended_are_free_once_their_time_is_up(stores: Stores) -> None:
    store = stores.process()
    call = a_call(stores, 1, hold_seconds=20)
    claim(store, call, A)
    store.settle(a_settlement(stores, 1, ended=[EndedCall(call, [], ANSWERED, stores.now(), 1)]))
    assert store.give_up_dead_calls() == 0
    stores.pass_time(21)
    assert store.give_up_dead_calls() == 1
    assert stores.calls()[an_id(1)][0] == ANSWERED


# -- the gate ---------------------------------------------------------------------------------


def test_a_gate_is_closed_once_and_its_first_reason_stands(stores: Stores) -> None:
    store = stores.process()
    assert store.close_gate(ACCOUNT, by="provider", reason="code -5")
    closed_at = stores.now()
    stores.pass_time(1)
    assert not store.close_gate(ACCOUNT, by="provider", reason="code -6")
    gate = stores.process().look_up(ACCOUNT, Lane.RECHARGE, [a_key()], [A]).closed_gate
    assert gate is not None
    assert (gate.closed_at, gate.closed_by, gate.reason) == (closed_at, "provider", "code -5")
    assert store.look_up("another", Lane.RECHARGE, [a_key()], [A]).closed_gate is None


def test_a_gate_closed_by_hand_is_closed_for_every_account_and_speaks_first(stores: Stores) -> None:
    store = stores.process()
    assert store.close_gate(ACCOUNT, by="provider", reason="code -5")
    assert store.close_gate(EVERY_ACCOUNT, by="ops", reason="invoice")
    for account in (ACCOUNT, "another"):
        gate = store.look_up(account, Lane.SMS, [a_key()], [A]).closed_gate
        assert gate is not None
        assert (gate.account, gate.reason, gate.by_hand) == (EVERY_ACCOUNT, "invoice", True)


# -- the breaker ------------------------------------------------------------------------------


def test_each_lost_call_after_a_pause_doubles_the_pause_and_an_answer_ends_it(stores: Stores) -> None:
    store = stores.process()
    pauses = []
    for _ in range(9):
        store.call_ended(ACCOUNT, Lane.SMS, lost=True)
        breaker = store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A]).breaker
        assert breaker is not None
        pauses.append(breaker.pause_seconds)
        stores.pass_time(breaker.pause_seconds)
    assert pauses == pytest.approx([0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 19.2, 22.5])
    assert store.look_up(ACCOUNT, Lane.RECHARGE, [a_key()], [A]).breaker is None
    assert store.look_up("another", Lane.SMS, [a_key()], [A]).breaker is None
    store.call_ended(ACCOUNT, Lane.SMS, lost=False)
    store.call_ended(ACCOUNT, Lane.SMS, lost=False)
    assert store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A]).breaker is None


def test_calls_that_fail_together_make_one_pause(stores: Stores) -> None:
    store = stores.process()
    for _ in range(3):
        store.call_ended(ACCOUNT, Lane.SMS, lost=True)
    breaker = store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A]).breaker
    assert breaker is not None
    assert (breaker.lost_in_a_row, breaker.pauses) == (3, 1)
    assert breaker.pause_seconds == pytest.approx(0.15)


def test_one_probes_after_the_pause_until_its_call_ends_or_its_time_is_up(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    assert not one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8), "nothing to try: the provider is well"
    one.call_ended(ACCOUNT, Lane.SMS, lost=True)
    assert not one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8), "the lane pauses"
    stores.pass_time(0.2)
    probe = one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8)
    assert probe == stores.now() + 8 * SECOND
    assert not other.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8)
    breaker = other.look_up(ACCOUNT, Lane.SMS, [a_key()], [A]).breaker
    assert breaker is not None
    assert breaker.pause_seconds == pytest.approx(8)
    stores.pass_time(8)
    second = other.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8)
    one.call_ended(ACCOUNT, Lane.SMS, lost=True, probe=probe)
    one.call_ended(ACCOUNT, Lane.SMS, lost=True)
    stores.pass_time(0.4)
    assert not one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8), "older calls do not end the other's probe"
    other.call_ended(ACCOUNT, Lane.SMS, lost=True, probe=second)
    assert not one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8), "the lane pauses again"
    stores.pass_time(0.6)
    assert one.may_probe(ACCOUNT, Lane.SMS, hold_seconds=8)


# -- settling ---------------------------------------------------------------------------------


def test_the_first_row_of_a_key_stands(stores: Stores) -> None:
    store = stores.process()
    first = a_row(A, an_id(1001), stores.now())
    store.settle(a_settlement(stores, 1, rows=[first]))
    second = structs.replace(first, batch_id=an_id(1002), decision="resend")
    more = a_row(B, an_id(1002), stores.now(), reference="o-2")
    settled = store.settle(a_settlement(stores, 2, rows=[second, more]))
    assert settled.decided_before == {first.key: first}
    assert store.look_up(ACCOUNT, Lane.SMS, [first.key, more.key], [A]).rows == {
        first.key: first,
        more.key: more,
    }


def test_a_settlement_that_runs_twice_is_stored_once(stores: Stores) -> None:
    store = stores.process(Budget(9))
    store.settle(a_settlement(stores, 1, learned=[a_record(A, stores.now())]))
    stores.pass_time(1)
    call = a_call(stores, 2, numbers=2)
    claim(store, call, A, B)
    row = a_row(A, an_id(1002), stores.now())
    settlement = a_settlement(
        stores,
        2,
        rows=[row],
        learned=[a_record(A, stores.now(), "CUCC")],
        ended=[EndedCall(call, [A, B], ANSWERED, stores.now(), 1)],
        call_id=call.id,
    )
    first = store.settle(settlement)
    assert [change.recipient for change in first.changes] == ["CUCC"]
    stored = stores.calls(), stores.rest()
    second = store.settle(settlement)
    assert second == Settled({row.key: row}, [])
    assert (stores.calls(), stores.rest()) == stored
    assert stores.in_flight() == {}
    assert list(stores.rest()["taken"].values()) == [1]


def test_a_batch_that_decided_nothing_new_has_no_events_to_send(stores: Stores) -> None:
    store = stores.process()
    row = a_row(A, an_id(1001), stores.now())
    store.settle(a_settlement(stores, 1, rows=[row]))
    again = structs.replace(row, batch_id=an_id(1002))
    store.settle(a_settlement(stores, 2, rows=[again], learned=[a_record(B, row.decided_at)]))
    assert stores.rest()["batches"].keys() == {an_id(1001)}


def test_only_a_later_observation_replaces_a_record(stores: Stores) -> None:
    store = stores.process()
    at = stores.now()
    newer = a_record(A, at, "CUCC")
    store.settle(a_settlement(stores, 1, learned=[newer]))
    for stale in (a_record(A, at - SECOND), a_record(A, at)):
        assert store.settle(a_settlement(stores, 2, learned=[stale])).changes == []
        assert records_of(store, A) == {A: newer}


def test_an_unknown_number_keeps_its_operator(stores: Stores) -> None:
    store = stores.process()
    known = a_record(A, stores.now())
    store.settle(a_settlement(stores, 1, learned=[known]))
    unknown = PortRecord(A, Status.UNKNOWN, None, None, None, stores.now() + SECOND)
    assert store.settle(a_settlement(stores, 2, learned=[unknown])).changes == []
    assert records_of(store, A) == {
        A: structs.replace(known, status=Status.UNKNOWN, observed_at=unknown.observed_at)
    }


def test_a_change_of_operator_is_told_once_and_doubted_where_it_is_too_soon(stores: Stores) -> None:
    store = stores.process()
    at = stores.now()
    store.settle(a_settlement(stores, 1, learned=[a_record(A, at)]))
    changes = []
    for number, operator in enumerate(("CUCC", "CUCC", "CTCC"), 2):
        record = a_record(A, at + (number - 1) * SECOND, operator)
        changes += store.settle(a_settlement(stores, number, learned=[record])).changes
    assert [(each.donor, each.recipient, each.observed_after, each.doubtful) for each in changes] == [
        ("CMCC", "CUCC", at, False),
        ("CUCC", "CTCC", at + 2 * SECOND, True),
    ]
    assert records_of(store, A)[A].changed_at == at + 3 * SECOND
    assert stores.rest()["batches"].keys() == {an_id(1002), an_id(1004)}


def test_a_record_stored_since_its_number_was_seen_without_one_counts_all_the_same(stores: Stores) -> None:
    store = stores.process()
    at = stores.now()
    earlier, later, new = a_record(A, at), a_record(A, at + SECOND, "CUCC"), a_record(B, at + SECOND)
    row = a_row(A, an_id(1002), at)
    store.settle(a_settlement(stores, 1, learned=[earlier]))
    second = a_settlement(stores, 2, rows=[row], learned=[later, new], without_record={A, B})
    (change,) = store.settle(second).changes
    assert (change.donor, change.recipient, change.observed_after) == ("CMCC", "CUCC", at)
    assert store.settle(a_settlement(stores, 3, learned=[earlier], without_record={A})).changes == []
    known = store.look_up(ACCOUNT, Lane.SMS, [row.key], [A, B])
    assert known.rows == {row.key: row}
    assert (known.records[A].current_operator, known.records[B]) == ("CUCC", new)


def test_a_record_that_is_there_all_the_same_is_told_without_its_number(database_url: str) -> None:
    """Postgres logs what it raises."""
    database = connect(database_url)
    record = a_record(A, datetime.now(UTC))
    with database.connect() as connection:
        run(connection, port_records.adding_new([record]))
        with pytest.raises(DBAPIError) as raised:
            run(connection, port_records.adding_new([record, structs.replace(record, msisdn=B)]))
    told = raised.value.orig.diag  # type: ignore[union-attr]
    assert port_records.STORED_SINCE in told.message_primary
    assert told.message_detail is None
    database.dispose()


def test_a_call_that_was_given_up_stays_lost_and_lists_its_numbers_though_its_answer_comes(
    stores: Stores,
) -> None:
    store, other = stores.process(Budget(9)), stores.process(Budget(9))
    call = a_call(stores, 1, numbers=2)
    claim(store, call, A, B)
    stores.pass_time(21)
    store.give_up_dead_calls()
    claim(other, a_call(stores, 2), A)
    answered = stores.now()
    ended = EndedCall(call, [A, B], ANSWERED, answered, 2)
    store.settle(a_settlement(stores, 1, learned=[a_record(A, call.sent_at)], ended=[ended], call_id=call.id))
    assert stores.calls()[call.id] == (LOST, answered, 2, 2, [A, B], None, None)
    assert stores.in_flight() == {A: an_id(2)}, "what another call holds by now stays with it"
    assert list(stores.rest()["taken"].values()) == [3]


def test_a_lost_call_lists_what_may_have_been_billed_and_keeps_its_budget(stores: Stores) -> None:
    store = stores.process(Budget(9))
    call = a_call(stores, 1, numbers=2)
    claim(store, call, A, B)
    ended = EndedCall(call, [A, B], LOST, None, None, [B, A])
    store.settle(a_settlement(stores, 1, ended=[ended], call_id=call.id))
    assert stores.calls()[call.id] == (LOST, None, 2, None, [A, B], None, None)
    assert list(stores.rest()["taken"].values()) == [2]
    assert stores.in_flight() == {}


def test_what_was_not_billed_goes_back_to_the_budget(stores: Stores) -> None:
    store = stores.process(Budget(9))
    call = a_call(stores, 1, numbers=3)
    claim(store, call, A, B, C)
    half = replace(a_call(stores, 2, numbers=1), batch_id=call.batch_id)
    store.split(half, [C], from_id=call.id)
    ended = [
        EndedCall(call, [A, B], REFUSED, stores.now(), 0),
        EndedCall(half, [C], ANSWERED, stores.now(), 1),
    ]
    store.settle(a_settlement(stores, 1, ended=ended, call_id=call.id))
    assert list(stores.rest()["taken"].values()) == [1]
    assert stores.in_flight() == {}


# -- events -----------------------------------------------------------------------------------


class Sent(list[tuple[Sequence[CheckedRequest], Sequence[PortChange]]]):
    """What a relay handed over."""

    def __call__(self, rows: Sequence[CheckedRequest], changes: Sequence[PortChange]) -> None:
        self.append((rows, changes))


def relay(stores: Stores, store: Store, send: Sent | None = None, *, most: int = 10) -> Sent:
    sent = Sent() if send is None else send
    store.relay(sent, older_than_seconds=30, most=most, now=stores.now)
    return sent


def a_batch(stores: Stores, store: Store, number: int) -> Settlement:
    row = a_row(A, an_id(1000 + number), stores.now(), reference=f"o-{number}")
    settlement = a_settlement(stores, number, rows=[row])
    store.settle(settlement)
    stores.pass_time(1)
    return settlement


def test_the_relay_sends_unconfirmed_batches_past_their_age_oldest_first_and_marks_them(
    stores: Stores,
) -> None:
    store = stores.process()
    one, two, three = (a_batch(stores, store, number) for number in (1, 2, 3))
    assert relay(stores, store) == []
    store.mark_emitted(two.batch_id, stores.now())
    stores.pass_time(30)
    assert relay(stores, store, most=1) == [(list(one.rows), [])]
    assert relay(stores, store) == [(list(three.rows), [])]
    assert relay(stores, store) == []


def test_the_relay_sends_changes_with_their_batch(stores: Stores) -> None:
    store = stores.process()
    store.settle(a_settlement(stores, 1, learned=[a_record(B, stores.now()), a_record(A, stores.now())]))
    stores.pass_time(1)
    learned = [a_record(B, stores.now(), "CUCC"), a_record(A, stores.now(), "CUCC")]
    changes = store.settle(a_settlement(stores, 2, learned=learned)).changes
    stores.pass_time(31)
    assert relay(stores, store) == [([], sorted(changes, key=lambda change: change.msisdn))]


def test_a_batch_whose_sending_fails_is_sent_again(stores: Stores) -> None:
    store = stores.process()
    one, two = (a_batch(stores, store, number) for number in (1, 2))
    stores.pass_time(30)

    class Fails(Sent):
        def __call__(self, rows: Sequence[CheckedRequest], changes: Sequence[PortChange]) -> None:
            super().__call__(rows, changes)
            if rows[0].batch_id == two.batch_id:
                raise OSError("the broker is away")

    with pytest.raises(OSError, match="away"):
        relay(stores, store, Fails())
    assert relay(stores, store) == [(list(one.rows), []), (list(two.rows), [])]


def test_two_relays_do_not_send_the_same_batch(stores: Stores) -> None:
    one, other = stores.process(), stores.process()
    a_batch(stores, one, 1)
    stores.pass_time(30)
    meanwhile = Sent()

    class Interrupted(Sent):
        def __call__(self, rows: Sequence[CheckedRequest], changes: Sequence[PortChange]) -> None:
            super().__call__(rows, changes)
            relay(stores, other, meanwhile)

    assert len(relay(stores, one, Interrupted())) == 1
    assert meanwhile == []


def test_the_first_mark_of_a_batch_stands(stores: Stores) -> None:
    store = stores.process()
    batch = a_batch(stores, store, 1)
    store.mark_emitted(batch.batch_id, stores.now())
    store.mark_emitted(batch.batch_id, stores.now() + SECOND)
    store.mark_emitted(an_id(1999), stores.now())
    assert stores.rest()["batches"] == {batch.batch_id: (batch.decided_at, stores.now())}


def test_a_dead_letter_parked_twice_stays_as_it_was(stores: Stores) -> None:
    store = stores.process()
    letter = DeadLetter(an_id(1), "sms.recheck", {"mobile": "13900000001"}, "no", "sms", stores.now())
    more = replace(letter, id=an_id(2), payload={"base64": "AAE="}, reason="neither")
    store.park([letter])
    store.park([replace(letter, reason="another"), more])
    store.park([])
    assert stores.rest()["letters"] == {
        an_id(1): ("no", letter.payload),
        an_id(2): ("neither", more.payload),
    }


def test_why_the_items_of_a_message_were_parked_is_known_by_any_of_them(stores: Stores) -> None:
    store = stores.process()
    first, last, other = MESSAGE, letter_ids.of_whole(MESSAGE), letter_ids.first_of("another", "")
    store.park([a_letter(stores, first), a_letter(stores, last, "neither"), a_letter(stores, last + 1)])
    known = store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A], [letter_ids.of_item(first, 7), other])
    assert known.parked == {first: "no", last: "neither"}
    assert store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A], [other]).parked == {}
    assert store.look_up(ACCOUNT, Lane.SMS, [a_key()], [A]).parked == {}


def test_who_was_given_up_elsewhere_and_is_decided_after_all_leaves_no_letter(stores: Stores) -> None:
    store = stores.process()
    ids = [letter_ids.of_item(MESSAGE, place) for place in range(5)]
    store.park([a_letter(stores, each) for each in ids])
    decided = [ids[0], ids[1], ids[3]]
    references = {each: f"o-{each}" for each in decided}
    rows = [a_row(A, an_id(1001), stores.now(), reference=each) for each in references.values()]
    letters = {each: a_key(reference) for each, reference in references.items()}
    store.settle(a_settlement(stores, 1, rows=rows, letters=letters))
    assert stores.rest()["letters"].keys() == {letter_ids.written(ids[2]), letter_ids.written(ids[4])}


def test_who_was_given_up_and_decided_elsewhere_keeps_the_letter(stores: Stores) -> None:
    store = stores.process()
    decided, before, parked = (letter_ids.of_item(MESSAGE, place) for place in range(3))
    store.settle(a_settlement(stores, 1, rows=[a_row(A, an_id(1001), stores.now(), reference="before")]))
    store.park([a_letter(stores, each) for each in (decided, before, parked)])
    rows = [a_row(B, an_id(1002), stores.now(), reference=each) for each in ("decided", "before")]
    letters = {decided: a_key("decided"), before: a_key("before")}
    learned = [a_record(B, stores.now())]
    settled = store.settle(a_settlement(stores, 2, rows=rows, learned=learned, letters=letters))
    assert settled.decided_before.keys() == {a_key("before")}
    assert stores.rest()["letters"].keys() == {letter_ids.written(before), letter_ids.written(parked)}
    assert store.look_up(ACCOUNT, Lane.SMS, [a_key("decided")], [B]).records.keys() == {B}
