"""The provider's own examples, typed from its document: client and sandbox cannot share a misreading."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.contract.conftest import Served
from worker.carrier.protocol import Answer, Balance, FeeType
from worker.carrier.wire import answering, asking
from worker.carrier.wire.codes import Code
from worker.portability.records import Status
from worker.sandbox.provider import DEFAULT_APIKEY, Account

GOLDEN = Path(__file__).parent / "golden"
BATCH_KEY = "D32652658B074228A2854A78E56880B1"
BATCH = [
    Answer("13798361236", 0, Status.NOT_PORTED, "CMCC", "CMCC", "广东-深圳"),
    Answer("13352918995", 0, Status.NOT_PORTED, "CTCC", "CTCC", "广东-深圳"),
    Answer("13163320753", 0, Status.NOT_PORTED, "CUCC", "CUCC", "湖北-武汉"),
]


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def compact(raw: bytes) -> str:
    """Without the layout and the trailing comma of the printed page; names, order and types stay."""
    return re.sub(r",(?=[}\]])", "", re.sub(r"\s+", "", raw.decode()))


def test_the_client_reads_the_single_example() -> None:
    answer = asking.decode_single(golden("single.json"), "13972565391")
    assert answer == Answer("13972565391", 0, Status.PORTED, "CMCC", "CTCC", "湖北-宜昌")


def test_the_client_reads_the_batch_example() -> None:
    assert asking.decode_batch(golden("batch.json"), [answer.msisdn for answer in BATCH]) == BATCH


def test_the_client_reads_the_balance_example_with_its_trailing_comma() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(golden("balance.json"))
    assert asking.decode_balance(golden("balance.json")) == Balance(FeeType.PREPAID, 12048)


def test_the_client_writes_the_batch_request_example() -> None:
    body = asking.batch_request(BATCH_KEY, [answer.msisdn for answer in BATCH])
    assert compact(body) == compact(golden("batch_request.json"))


def test_the_client_writes_the_parameters_of_the_single_example() -> None:
    body = asking.single_request(DEFAULT_APIKEY, "13972565391")
    assert body == b"apikey=7c11272au708345c834b8ue81ac78972&mobile=13972565391"
    assert asking.balance_request(DEFAULT_APIKEY) == b"apikey=7c11272au708345c834b8ue81ac78972"


@pytest.mark.parametrize("call", ["get", "post"])
def test_the_sandbox_answers_the_single_example_letter_for_letter(served: Served, call: str) -> None:
    params = {"apikey": "7c11272au708345c834b8ue81ac78972", "mobile": "13972565391"}
    url = f"{served.url}/carrier"
    response = served.web.get(url, params=params) if call == "get" else served.web.post(url, data=params)
    assert response.text == compact(golden("single.json"))


def test_the_sandbox_answers_the_batch_example_letter_for_letter(served: Served) -> None:
    served.sandbox.put_account(Account(BATCH_KEY))
    response = served.web.post(f"{served.url}/carrier_batch", content=golden("batch_request.json"))
    assert response.text == compact(golden("batch.json"))


@pytest.mark.parametrize("call", ["get", "post"])
def test_the_sandbox_answers_the_balance_example_letter_for_letter(served: Served, call: str) -> None:
    served.sandbox.put_account(Account(DEFAULT_APIKEY, FeeType.PREPAID, 12048))
    params = {"apikey": "7c11272au708345c834b8ue81ac78972"}
    url = f"{served.url}/balance"
    response = served.web.get(url, params=params) if call == "get" else served.web.post(url, data=params)
    assert response.text == compact(golden("balance.json"))


def test_a_postpaid_account_is_spelt_as_the_document_says() -> None:
    written = answering.write_balance(Balance(FeeType.POSTPAID, -7))
    assert written.decode() == '{"code":0,"reason":"Succ","result":{"feeType":"后付费","balance":"-7"}}'
    assert asking.decode_balance(written) == Balance(FeeType.POSTPAID, -7)


def test_the_code_table_is_the_documents() -> None:
    lines = golden("codes.txt").decode().splitlines()
    printed = {int(code): text for code, text in (line.split(" ", 1) for line in lines)}
    assert {code.value for code in Code} == set(printed)
    # for 0 the table describes what the answers spell "Succ"
    assert {code.value: code.reason for code in Code if code} == {
        code: text for code, text in printed.items() if code
    }
    assert Code.SUCCESS.reason == "Succ"


@pytest.mark.parametrize("res", ['"3"', "3"])
def test_a_virtual_number_is_never_read_as_ported(res: str) -> None:
    raw = golden("single.json").decode().replace('"1"', res, 1).encode()
    assert asking.decode_single(raw, "13972565391").status is Status.VIRTUAL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"code": 0', '"code": "0"'),
        ('"res": "1"', '"res": 1'),
        ('"13972565391"', "13972565391"),
        ('"Init_isp"', '"Init_Isp"'),
        ('"Now_isp"', '"Now_Isp"'),
        ('"电信"', '"中国电信"'),
        ('"电信"\n', '"电信",\n'),
        ('"reason": "Succ",', ""),
        ('"reason": "Succ"', '"reason": null, "more": [1, {"a": "b"}]'),
        ("{\n", "\ufeff{\n"),
        ('"Succ"', '"Succ, ,} ,] \\" ,}"'),
    ],
)
def test_the_single_answer_in_other_spellings_is_the_same(old: str, new: str) -> None:
    text = golden("single.json").decode()
    assert old in text
    raw = text.replace(old, new, 1).encode()
    assert asking.decode_single(raw, "13972565391") == Answer(
        "13972565391", 0, Status.PORTED, "CMCC", "CTCC", "湖北-宜昌"
    )


@pytest.mark.parametrize(
    ("old", "new", "balance"),
    [('"12048"', "12048", 12048), ('"12048"', '"-3"', -3), ('"12048"', "-3.0", -3), ("预", " 预", 12048)],
)
def test_the_balance_in_other_spellings(old: str, new: str, balance: int) -> None:
    raw = golden("balance.json").decode().replace(old, new, 1).encode()
    assert asking.decode_balance(raw) == Balance(FeeType.PREPAID, balance)


def test_a_comma_within_a_string_stays() -> None:
    raw = b'{"code":0,"result":{"res":"1","Mobile":"13972565391","Area":",} ,]","Now_isp":"x,]",}}'
    answer = asking.decode_single(raw, "13972565391")
    assert (answer.area, answer.current_operator) == (",} ,]", "x,]")


def test_an_unknown_operator_is_kept_as_it_came() -> None:
    raw = golden("single.json").decode().replace("电信", "星链").encode()
    assert asking.decode_single(raw, "13972565391").current_operator == "星链"
