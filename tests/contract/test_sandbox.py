"""The sandbox itself: its subscribers, its faults on a real socket, its bill and its control API."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.contract.conftest import Served, http_carrier
from worker.carrier import listening
from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import CarrierLookup, FeeType
from worker.carrier.wire.codes import Code
from worker.errors import AccountFault, AnswerLost, NotSent, SettingsError, TransientFault
from worker.portability.records import Status
from worker.sandbox import provider, serving
from worker.sandbox.faults import ON_THE_WIRE, Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Latency, Sandbox
from worker.sandbox.subscribers import subscriber

ASKED = ["13798361236", "13352918995", "13163320753"]


def in_use(count: int) -> list[str]:
    """Numbers in use, of three operators' own ranges."""
    tails = [f"{tail * 7919 % 10**8:08d}" for tail in range(count)]
    numbers = [f"1{prefix}{tail}" for tail in tails for prefix in ("39", "86", "33")]
    return [number for number in numbers if subscriber(number).code == 0]


def test_the_ported_share_is_the_documents() -> None:
    numbers = in_use(15_000)
    ported = sum(subscriber(number).status is Status.PORTED for number in numbers)
    assert ported / len(numbers) == pytest.approx(0.0653, abs=0.003)


def test_a_subscriber_is_a_pure_function_of_number_and_seed() -> None:
    numbers = in_use(300)
    answers = [subscriber(number, 1) for number in numbers]
    subscriber.cache_clear()
    assert answers == [subscriber(number, 1) for number in numbers]
    assert answers != [subscriber(number, 2) for number in numbers]
    for number in numbers:
        one, other = subscriber(number, 1), subscriber(number, 2)
        if one.code == other.code == 0:
            assert (one.range_holder, one.area) == (other.range_holder, other.area)


@pytest.mark.parametrize(
    ("prefix", "holder"),
    [("1390000", "CMCC"), ("1860000", "CUCC"), ("1330000", "CTCC"), ("1920000", "CBN"), ("1345678", "CMCC")],
)
def test_ranges_belong_to_whom_they_really_do(prefix: str, holder: str) -> None:
    answers = [subscriber(f"{prefix}{tail:04d}") for tail in range(50)]
    assert {answer.range_holder for answer in answers if answer.code == 0} == {holder}
    assert all(len((answer.area or "").split("-")) == 2 for answer in answers if answer.code == 0)


@pytest.mark.parametrize("prefix", ["162", "165", "167", "170", "171"])
def test_mvno_numbers_are_virtual_and_never_ported(prefix: str) -> None:
    answers = [subscriber(f"{prefix}{tail * 1_000_003 % 10**8:08d}") for tail in range(2000)]
    assert {answer.status for answer in answers} == {Status.VIRTUAL, Status.UNKNOWN}
    assert all(answer.current_operator == answer.range_holder for answer in answers)


@pytest.mark.parametrize("prefix", ["140", "146", "154", "179", "194"])
def test_ranges_nobody_holds_are_invalid(prefix: str) -> None:
    assert subscriber(f"{prefix}12345678").code == -3


@pytest.mark.parametrize("processed", [True, False])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("hang", AnswerLost),
        ("reset", AnswerLost),
        ("close", AnswerLost),
        ("status", AnswerLost),
    ],
)
def test_a_fault_of_the_wire_comes_after_the_bill_or_before(
    served: Served, client: CarrierLookup, kind: str, error: type[Exception], processed: bool
) -> None:
    served.sandbox.faults.add(Fault(kind=kind, processed=processed))  # type: ignore[arg-type]
    with pytest.raises(error):
        client.lookup_batch(ASKED, timeout_seconds=0.6 if kind == "hang" else None)
    assert served.sandbox.bill.billed == (3 if processed else 0)
    assert len(client.lookup_batch(ASKED)) == 3
    assert not served.sandbox.faults.pending()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="status", status=429), NotSent),
        (Fault(kind="status", status=302), AnswerLost),
        (Fault(kind="truncate"), AnswerLost),
        (Fault(kind="cut"), AnswerLost),
        (Fault(kind="drip", seconds=0.2), AnswerLost),
        (Fault(kind="slow", seconds=1.2), AnswerLost),
        (Fault(kind="code", code=-8), TransientFault),
    ],
)
def test_a_spoilt_answer(served: Served, client: CarrierLookup, fault: Fault, error: type[Exception]) -> None:
    served.sandbox.faults.add(fault)
    with pytest.raises(error) as raised:
        client.lookup_batch(ASKED, timeout_seconds=1.0)
    assert raised.type is error
    assert len(client.lookup_batch(ASKED)) == 3


def test_a_reset_is_one_on_the_socket(served: Served) -> None:
    served.sandbox.faults.add(Fault(kind="reset"))
    address = urlsplit(served.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(b"GET /balance?apikey=" + DEFAULT_APIKEY.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


def test_a_truncated_answer_promises_more_than_it_sends(served: Served) -> None:
    served.sandbox.faults.add(Fault(kind="truncate"))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        served.web.post(f"{served.url}/balance", data={"apikey": DEFAULT_APIKEY})


@pytest.mark.parametrize(
    ("kind", "usable"),
    [
        ("trailing_comma", [0, 1, 2]),
        ("drop", [0, 2]),
        ("duplicate", [0, 2]),
        ("reorder", [0, 1, 2]),
        ("foreign", [0, 2]),
        ("extra", [0, 1, 2]),
        ("bare", [0, 2]),
    ],
)
def test_a_mutilated_batch_answers_the_numbers_it_can(
    served: Served, client: CarrierLookup, kind: str, usable: list[int]
) -> None:
    served.sandbox.faults.add(Fault(kind=kind, index=1))  # type: ignore[arg-type]
    entries = client.lookup_batch(ASKED)
    assert [place for place, entry in enumerate(entries) if entry.code == 0] == usable
    assert [entries[place] for place in usable] == [served.sandbox.truth(ASKED[place]) for place in usable]


def test_every_fault_of_the_wire_spoils_something(served: Served) -> None:
    whole = served.web.post(
        f"{served.url}/carrier_batch", json={"ApiKey": DEFAULT_APIKEY, "PhoneNumbers": ASKED}
    ).text
    for kind in sorted(ON_THE_WIRE - {"drip"}):
        served.sandbox.faults.add(Fault(kind=kind))  # type: ignore[arg-type]
        try:
            spoilt = served.web.post(
                f"{served.url}/carrier_batch",
                json={"ApiKey": DEFAULT_APIKEY, "PhoneNumbers": ASKED},
                timeout=0.5 if kind == "hang" else 5,
            ).text
        except httpx.HTTPError:
            continue
        assert spoilt != whole, kind


def test_faults_come_in_the_order_ordered_and_only_where_they_belong(
    served: Served, client: CarrierLookup
) -> None:
    served.sandbox.faults.add(Fault(kind="code", code=-8, on="carrier_batch", calls=2))
    served.sandbox.faults.add(Fault(kind="code", code=-5, on="any"))
    with pytest.raises(AccountFault):
        client.lookup(ASKED[0])
    for _ in range(2):
        with pytest.raises(TransientFault):
            client.lookup_batch(ASKED)
    assert len(client.lookup_batch(ASKED)) == 3


def test_latency_is_the_documents_and_scales() -> None:
    latency = Latency()
    assert latency.of(1) == pytest.approx(0.1)
    assert latency.of(1000) == pytest.approx(1.5)
    assert latency.of(500) == pytest.approx(0.1 + 1.4 * 499 / 999)
    assert replace(latency, scale=0).of(1000) == 0
    assert replace(latency, scale=0.1).of(1000) == pytest.approx(0.15)


def test_the_time_an_answer_takes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(provider.time, "sleep", slept.append)
    Sandbox().account(DEFAULT_APIKEY).lookup_batch([f"139{tail:08d}" for tail in range(1000)])
    assert slept == [pytest.approx(1.5)]


def test_a_balance_is_never_oversold() -> None:
    account = Account(DEFAULT_APIKEY, FeeType.PREPAID, 1000)
    sandbox = Sandbox(accounts=[account], latency=Latency(0.001, 0.001))
    sold = Counter[str]()
    numbers = in_use(2000)[:4000]

    def buy(mine: list[str]) -> None:
        for number in mine:
            try:
                sandbox.account(DEFAULT_APIKEY).lookup(number)
            except AccountFault:
                return
            sold[threading.current_thread().name] += 1

    threads = [threading.Thread(target=buy, args=[numbers[start::8]]) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.account(DEFAULT_APIKEY).balance().balance == 0
    assert sum(sold.values()) == sandbox.bill.billed == 1000


def test_the_bill_log_holds_every_number_billed(tmp_path: Path) -> None:
    log = tmp_path / "bill.jsonl"
    sandbox = Sandbox(latency=Latency(scale=0), bill_log=log)
    carrier = sandbox.account(DEFAULT_APIKEY)
    carrier.lookup_batch([*ASKED, "14000000000"])
    carrier.lookup(ASKED[0])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["endpoint"], line["numbers"], line["billed"]) for line in lines] == [
        ("carrier_batch", 4, 3),
        ("carrier", 1, 1),
    ]
    assert lines[0]["mobiles"] == ASKED
    assert lines[0]["codes"] == {"0": 3, "-3": 1}
    assert sandbox.bill.billed_again() == {ASKED[0]: 2}
    assert sandbox.bill.calls == 2


def test_which_codes_are_billed_is_a_setting() -> None:
    unknown = next(
        number for number in (f"139{tail:08d}" for tail in range(9999)) if subscriber(number).code == -4
    )
    for codes, billed in (((0, -4), 1), ((0,), 0)):
        sandbox = Sandbox(latency=Latency(scale=0), billed_codes=codes)
        sandbox.account(DEFAULT_APIKEY).lookup(unknown)
        assert sandbox.bill.billed == billed


def test_the_control_api_steers(served: Served, client: CarrierLookup) -> None:
    with httpx.Client(base_url=served.url) as control:
        assert control.get("/healthz").json() == {"status": "ok"}
        ordered = control.post("/sandbox/faults", json={"kind": "code", "code": -8, "calls": None}).json()
        assert [fault["id"] for fault in control.get("/sandbox/faults").json()] == [ordered["id"]]
        with pytest.raises(TransientFault):
            client.lookup(ASKED[0])
        assert control.delete(f"/sandbox/faults/{ordered['id']}").json() == []
        assert control.delete(f"/sandbox/faults/{ordered['id']}").status_code == 400
        control.post("/sandbox/faults", json={"kind": "hang"})
        assert control.delete("/sandbox/faults").json() == []

        ported = control.post("/sandbox/port", json={"mobile": ASKED[0], "operator": "中国电信"}).json()
        assert ported["operator"] == "CTCC"
        answer = control.get("/sandbox/subscriber", params={"mobile": ASKED[0]}).json()
        assert (answer["status"], answer["current_operator"]) == ("ported", "CTCC")
        later = {"mobile": ASKED[1], "operator": "cucc", "at": "2999-01-01T00:00:00+08:00"}
        assert control.post("/sandbox/port", json=later).json()["at"] == "2998-12-31T16:00:00Z"
        assert client.lookup(ASKED[1]).current_operator == "CTCC"

        account = control.put("/sandbox/account", json={"balance": 7, "fee_type": "postpaid"}).json()
        assert account["balance"] == 7
        assert client.balance().fee_type is FeeType.POSTPAID
        other = "0123456789abcdef0123456789abcdef"
        control.put("/sandbox/account", json={"apikey": other, "disabled": True})
        with http_carrier(served.url, other) as disabled, pytest.raises(AccountFault):
            disabled.balance()
        assert control.get("/sandbox/account", params={"apikey": other}).json()["disabled"] is True
        assert control.get("/sandbox/account", params={"apikey": "x"}).status_code == 400

        assert control.put("/sandbox/latency", json={"single_seconds": 0.2}).json() == {
            "single_seconds": 0.2,
            "batch_seconds": 1.5,
            "scale": 0.0,
        }
        assert control.get("/sandbox/latency").json()["single_seconds"] == 0.2

        bill = control.get("/sandbox/bill").json()
        assert (bill["billed"], bill["codes"]) == (1, {"-8": 1, "0": 1})
        assert control.get("/sandbox/bill", params={"mobile": ASKED[1]}).json() == {"times_billed": 1}
        assert control.delete("/sandbox/bill").json()["billed"] == 0
        control.delete("/sandbox")
        assert client.balance().balance == 1_000_000


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.SUCCESS])
def test_a_code_on_order_is_the_one_answered(served: Served, code: Code) -> None:
    with httpx.Client(base_url=served.url) as control:
        control.post("/sandbox/faults", json={"kind": "code", "code": code})
        answer = control.post("/carrier", data={"apikey": DEFAULT_APIKEY, "mobile": ASKED[0]})
    assert answer.json()["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/sandbox/faults", {"kind": "earthquake"}),
        ("POST", "/sandbox/faults", {"kind": "code", "code": 99}),
        ("POST", "/sandbox/faults", {"kind": "item_code", "code": -11, "mobile": "13972565391"}),
        ("POST", "/sandbox/faults", {"kind": "poison"}),
        ("POST", "/sandbox/faults", {"kind": "hang", "calls": 0}),
        ("POST", "/sandbox/faults", {"kind": "hang", "cals": 2}),
        ("POST", "/sandbox/faults", {"kind": "status", "status": 20}),
        ("POST", "/sandbox/faults", {}),
        ("POST", "/sandbox/port", {"mobile": ASKED[0], "operator": "星链"}),
        ("POST", "/sandbox/port", {"mobile": ASKED[0], "operator": "CTCC", "at": "2026-01-01T00:00:00"}),
        ("PUT", "/sandbox/account", {"apikey": "short"}),
        ("PUT", "/sandbox/account", {"balance": "many"}),
        ("PUT", "/sandbox/latency", {"scale": -1}),
    ],
)
def test_a_control_request_that_makes_no_sense_is_told_so(
    served: Served, method: str, path: str, body: dict[str, object]
) -> None:
    response = served.web.request(method, served.url + path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]
    assert not served.sandbox.faults.pending()


def test_answers_are_sent_without_delay() -> None:
    """asyncio sets TCP_NODELAY only where the socket names TCP; without it an answer takes 40 ms more."""
    with listening.listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} .* is taken: choose another with --port"):
            serving.run(port=port)


def test_the_command_serves_until_told_to_stop(tmp_path: Path) -> None:
    code = "from worker.cli.sandbox import sandbox; sandbox()"
    log = tmp_path / "bill.jsonl"
    options = ["--port", "0", "--latency", "0", "--balance", "3", "--bill-log", str(log)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        announced = process.stdout.readline() + process.stdout.readline()
        url = announced.split()[3].rstrip(",")
        assert f"curl -d apikey={DEFAULT_APIKEY} -d mobile=13972565391 {url}/carrier" in announced
        carrier = HttpCarrier(url, DEFAULT_APIKEY)
        assert carrier.lookup("13972565391").current_operator == "CTCC"
        assert carrier.balance().balance == 2
        carrier.close()
        process.send_signal(2)
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert (output, errors) == ("", "")
    assert json.loads(log.read_text())["mobiles"] == ["13972565391"]
