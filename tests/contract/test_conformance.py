"""What every ``CarrierLookup`` must do, whoever implements it."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from tests.contract.conftest import FAULTS_ARE_SEEN, Subject
from worker.carrier.protocol import Answer, Balance, CarrierLookup, FeeType, Unanswered
from worker.errors import (
    AccountFault,
    AnswerLost,
    CarrierError,
    ContractBreach,
    RequestRefused,
    TransientFault,
)
from worker.portability.records import Status
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account

PORTED = Answer("13972565391", 0, Status.PORTED, "CMCC", "CTCC", "湖北-宜昌")
AT_HOME = [
    Answer("13798361236", 0, Status.NOT_PORTED, "CMCC", "CMCC", "广东-深圳"),
    Answer("13352918995", 0, Status.NOT_PORTED, "CTCC", "CTCC", "广东-深圳"),
    Answer("13163320753", 0, Status.NOT_PORTED, "CUCC", "CUCC", "湖北-武汉"),
]


def some_numbers(count: int, seed: int = 7) -> list[str]:
    drawn = random.Random(seed)
    numbers = (f"1{drawn.choice('3456789')}{drawn.randrange(10**9):09d}" for _ in range(count * 2))
    return list(dict.fromkeys(numbers))[:count]


def account_with(subject: Subject, **changes: object) -> None:
    account = subject.accounts.read_account(DEFAULT_APIKEY)
    assert account is not None
    subject.accounts.put_account(replace(account, **changes))  # type: ignore[arg-type]


def test_the_documents_own_numbers_answer_as_it_prints_them(carrier: CarrierLookup) -> None:
    assert carrier.lookup("13972565391") == PORTED
    assert carrier.lookup_batch([answer.msisdn for answer in AT_HOME]) == AT_HOME


def test_a_thousand_numbers_each_get_their_own_answer_in_the_order_asked(
    carrier: CarrierLookup, subject: Subject
) -> None:
    asked = some_numbers(1000)
    entries = carrier.lookup_batch(asked)
    assert entries == [subject.sandbox.truth(msisdn) for msisdn in asked]
    statuses = {entry.status for entry in entries if isinstance(entry, Answer)}
    assert statuses == set(Status)


@pytest.mark.parametrize("status", list(Status))
def test_single_and_batch_say_the_same(carrier: CarrierLookup, subject: Subject, status: Status) -> None:
    numbers = (number for number in some_numbers(5000) if subject.sandbox.truth(number).status is status)
    number = next(numbers)
    assert [carrier.lookup(number)] == carrier.lookup_batch([number]) == [subject.sandbox.truth(number)]


@pytest.mark.parametrize(
    ("mobile", "code"), [("1397256539", -2), ("139725653911", -2), ("12972565391", -3), ("1397256539x", -3)]
)
def test_a_malformed_number_is_invalid_and_harms_no_other(
    carrier: CarrierLookup, mobile: str, code: int
) -> None:
    invalid = Answer(mobile, code, Status.INVALID)
    assert carrier.lookup(mobile) == invalid
    assert carrier.lookup_batch([AT_HOME[0].msisdn, mobile, PORTED.msisdn]) == [AT_HOME[0], invalid, PORTED]


def test_the_balance_falls_by_what_is_billed(carrier: CarrierLookup, subject: Subject) -> None:
    account_with(subject, balance=1500)
    asked = some_numbers(1000)
    entries = carrier.lookup_batch(asked)
    billed = sum(entry.code in {0, -4} for entry in entries)
    charged = sum(entry.code in subject.charged_codes for entry in entries)
    assert 0 < charged <= billed < 1000
    carrier.lookup(PORTED.msisdn)
    assert carrier.balance() == Balance(FeeType.PREPAID, 1500 - charged - 1)
    assert subject.sandbox.bill.billed == billed + 1


def test_a_batch_dearer_than_the_balance_is_refused_whole_and_costs_nothing(
    carrier: CarrierLookup, subject: Subject
) -> None:
    account_with(subject, balance=2)
    with pytest.raises(AccountFault) as refused:
        carrier.lookup_batch([answer.msisdn for answer in AT_HOME])
    assert refused.value.code == -5
    assert carrier.balance() == Balance(FeeType.PREPAID, 2)
    assert carrier.lookup_batch([answer.msisdn for answer in AT_HOME[:2]]) == AT_HOME[:2]
    with pytest.raises(AccountFault):
        carrier.lookup(PORTED.msisdn)


def test_a_postpaid_balance_falls_below_zero(carrier: CarrierLookup, subject: Subject) -> None:
    account_with(subject, balance=0, fee_type=FeeType.POSTPAID)
    carrier.lookup_batch([answer.msisdn for answer in AT_HOME])
    assert carrier.balance() == Balance(FeeType.POSTPAID, -3)


def test_an_account_disabled_while_it_asks(carrier: CarrierLookup, subject: Subject) -> None:
    account_with(subject, disabled=True)
    for call in (
        carrier.balance,
        lambda: carrier.lookup(PORTED.msisdn),
        lambda: carrier.lookup_batch([PORTED.msisdn]),
    ):
        with pytest.raises(AccountFault) as fault:
            call()
        assert fault.value.code == -6


def test_an_unknown_key(subject: Subject) -> None:
    with pytest.raises(AccountFault) as fault, subject.open("0" * 32) as carrier:
        carrier.balance()
    assert fault.value.code == -1


def test_accounts_pay_for_themselves(subject: Subject) -> None:
    other = "0123456789abcdef0123456789abcdef"
    subject.accounts.put_account(Account(other, FeeType.PREPAID, 5))
    with subject.open(other) as carrier:
        carrier.lookup(PORTED.msisdn)
        assert carrier.balance() == Balance(FeeType.PREPAID, 4)
    mine = subject.accounts.read_account(DEFAULT_APIKEY)
    assert mine is not None
    assert mine.balance == 1_000_000


@FAULTS_ARE_SEEN
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, RequestRefused),
        (-1, AccountFault),
        (-5, AccountFault),
        (-6, AccountFault),
        (-7, ContractBreach),
        (-8, TransientFault),
        (-9, RequestRefused),
        (-10, ContractBreach),
    ],
)
def test_a_refusal_is_the_same_error_for_every_call(
    carrier: CarrierLookup, subject: Subject, code: int, error: type[CarrierError]
) -> None:
    subject.sandbox.faults.add(Fault(kind="code", code=code, calls=2))
    for call in (
        lambda: carrier.lookup(PORTED.msisdn),
        lambda: carrier.lookup_batch([answer.msisdn for answer in AT_HOME]),
    ):
        with pytest.raises(CarrierError) as refused:
            call()
        assert type(refused.value) is error
        assert refused.value.code == code
        assert PORTED.msisdn not in str(refused.value)
    assert carrier.lookup(PORTED.msisdn) == PORTED
    assert subject.sandbox.bill.billed == 1


@FAULTS_ARE_SEEN
@pytest.mark.parametrize("code", [1, -9])
def test_a_poison_number_refuses_its_whole_batch_and_nothing_else(
    carrier: CarrierLookup, subject: Subject, code: int
) -> None:
    subject.sandbox.faults.add(Fault(kind="poison", mobile=AT_HOME[1].msisdn, code=code))
    for numbers in ([answer.msisdn for answer in AT_HOME], [AT_HOME[1].msisdn]):
        with pytest.raises(RequestRefused) as refused:
            carrier.lookup_batch(numbers)
        assert refused.value.code == code
    assert carrier.lookup_batch([AT_HOME[0].msisdn, AT_HOME[2].msisdn]) == [AT_HOME[0], AT_HOME[2]]
    assert subject.sandbox.bill.billed == 2


@FAULTS_ARE_SEEN
@pytest.mark.parametrize("code", [1, -1, -5, -8, -9])
def test_a_refused_item_is_unanswered_and_harms_no_other(
    carrier: CarrierLookup, subject: Subject, code: int
) -> None:
    refused = AT_HOME[1].msisdn
    subject.sandbox.faults.add(Fault(kind="item_code", mobile=refused, code=code))
    entries = carrier.lookup_batch([answer.msisdn for answer in AT_HOME])
    assert entries[::2] == AT_HOME[::2]
    assert isinstance(entries[1], Unanswered)
    assert (entries[1].msisdn, entries[1].code) == (refused, code)
    with pytest.raises(CarrierError) as alone:
        carrier.lookup(refused)
    assert alone.value.code == code


def test_the_callers_time_out_caps_the_call(carrier: CarrierLookup, subject: Subject) -> None:
    subject.sandbox.faults.add(Fault(kind="slow", seconds=3.0, on="carrier"))
    start = time.monotonic()
    with pytest.raises(AnswerLost):
        carrier.lookup(PORTED.msisdn, timeout_seconds=0.6)
    assert 0.59 < time.monotonic() - start < 2.5


def test_a_number_ports_at_its_time(carrier: CarrierLookup, subject: Subject) -> None:
    number, now = AT_HOME[0].msisdn, datetime.now(UTC)
    subject.sandbox.port(number, "CUCC", now + timedelta(hours=1))
    assert carrier.lookup(number) == AT_HOME[0]
    subject.sandbox.port(number, "CTCC", now)
    assert carrier.lookup(number) == structs.replace(
        AT_HOME[0], status=Status.PORTED, current_operator="CTCC"
    )
    subject.sandbox.port(number, "CMCC", now + timedelta(microseconds=1))
    assert carrier.lookup(number) == AT_HOME[0]


def test_many_threads_at_once(carrier: CarrierLookup, subject: Subject) -> None:
    batches = [some_numbers(200, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(carrier.lookup_batch, batches))
    for asked, entries in zip(batches, results, strict=True):
        assert entries == [subject.sandbox.truth(msisdn) for msisdn in asked]
    billed = sum(entry.code in {0, -4} for entries in results for entry in entries)
    charged = sum(entry.code in subject.charged_codes for entries in results for entry in entries)
    assert carrier.balance().balance == 1_000_000 - charged
    assert subject.sandbox.bill.billed == billed
