"""``presend serve``: calls gathered, numbers shared, accounts charged for what was answered and no more."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.front_door import CERTIFICATE, Front, ask_at_once, front_door
from worker.carrier import patience
from worker.carrier.protocol import FeeType
from worker.carrier.wire.codes import Code
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account
from worker.storage import accounts, engine, gate

PORTED, HOME, OTHERS = "13972565391", "13798361236", ["13352918995", "13163320753"]
GOLDEN = Path(__file__).parents[1] / "contract" / "golden"


@pytest.fixture(scope="module")
def web() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=20) as client:
        yield client


def single(web: httpx.Client, front: Front, key: str, mobile: str = PORTED, **more: str) -> httpx.Response:
    return web.post(f"{front.url}/carrier", data={"apikey": key, "mobile": mobile} | more)


def batch(web: httpx.Client, front: Front, key: str, mobiles: list[str]) -> Any:
    return web.post(f"{front.url}/carrier_batch", json={"ApiKey": key, "PhoneNumbers": mobiles}).json()


def code(response: httpx.Response) -> int:
    found: int = response.json()["code"]
    return found


def in_order(text: str) -> Any:
    """JSON with the order of its fields."""
    return json.loads(text, object_pairs_hook=list)


def test_the_documents_examples_by_http_and_https_at_once(
    web: httpx.Client, database_url: str, provider_url: str
) -> None:
    with front_door(database_url, provider_url, certificate=CERTIFICATE) as front:
        key = front.account(balance=12048)
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        with httpx.Client(verify=trusting) as secure:
            for asking, url in ((web, front.url), (secure, str(front.secure_url))):
                got = asking.get(f"{url}/carrier", params={"apikey": key, "mobile": PORTED})
                assert in_order(got.text) == in_order((GOLDEN / "single.json").read_text("utf-8"))
                numbers = [HOME, *OTHERS]
                got = asking.post(f"{url}/carrier_batch", json={"ApiKey": key, "PhoneNumbers": numbers})
                assert in_order(got.text) == in_order((GOLDEN / "batch.json").read_text("utf-8"))
                assert got.headers["content-type"] == "application/json"
        balance = web.post(f"{front.url}/balance", data={"apikey": key}).text
        assert balance == '{"code":0,"reason":"Succ","result":{"feeType":"预付费","balance":"12040"}}'


def test_callers_at_once_become_a_few_provider_calls(front: Front, sandbox: WatchedSandbox) -> None:
    key = front.account()
    numbers = [f"1397256{index:04d}" for index in range(200)]
    with sandbox.held(), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_at_once, front.url, [{"apikey": key, "mobile": each} for each in numbers])
        eventually(lambda: front.stands().held == 200, "every caller to be let in")
        sandbox._let_in.set()
        answers = [answer for answer, _ in asked.result(30)]
    found = [sandbox.truth(each) for each in numbers]
    assert [answer["code"] for answer in answers] == [each.code for each in found]
    mobiles = [answer["result"]["Mobile"] for answer in answers if not answer["code"]]
    assert mobiles == [each.msisdn for each in found if not each.code]
    assert sandbox.bill.calls <= 10
    assert not sandbox.bill.billed_again()
    charged = sum(each.code == 0 for each in found)
    eventually(lambda: not front.stands().held, "what was reserved to be given back")
    assert (front.stands().balance, front.charged()) == (1000 - charged, charged)
    rows = front.rows("SELECT lane, source, count(*) FROM check_request GROUP BY 1, 2")
    assert rows == [("direct", front.stands().id, 200)]


@pytest.mark.parametrize("slots", [1, 8])
def test_callers_of_one_number_buy_it_once_and_each_pay_for_their_answer(
    database_url: str, provider_url: str, sandbox: WatchedSandbox, slots: int
) -> None:
    """With one slot the others wait outside until the call is over; it was under way when they came."""
    patient = {"provider_timeout_seconds": "30,30", "direct_deadline_seconds": 30}  # the call is held
    with front_door(database_url, provider_url, direct_slots=slots, **patient) as front:
        keys = {name: front.account(name) for name in ("one", "two", "three", "four")}
        callers = [{"apikey": key, "mobile": PORTED} for key in keys.values()] * 16
        with sandbox.held(), ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask_at_once, front.url, callers[:1])
            sandbox.wait_for_call()
            others = pool.submit(ask_at_once, front.url, callers[1:])
            eventually(lambda: sum(front.stands(name).held for name in keys) == 64, "all to be let in")
            sandbox._let_in.set()
            answers = [*first.result(30), *others.result(30)]
        assert {answer["code"] for answer, _ in answers} == {0}
        origins = Counter(headers["presend-answered-from"] for _, headers in answers)
        assert origins == {"live": 1, "shared": 63}
        assert {headers["presend-cost"] for _, headers in answers} == {"1"}
        assert sandbox.bill.billed == 1
        assert [front.charged(name) for name in keys] == [16] * 4


def test_answers_are_live_unless_the_caller_accepts_an_age(
    front: Front, sandbox: WatchedSandbox, web: httpx.Client
) -> None:
    key = front.account()
    for _ in range(2):
        assert single(web, front, key).headers["presend-answered-from"] == "live"
    stored = single(web, front, key, max_age="60")
    assert stored.headers["presend-answered-from"] == "stored"
    assert 0 < float(stored.headers["presend-age"]) < 60
    asked = {"ApiKey": key, "PhoneNumbers": [PORTED, HOME]}
    mixed = web.post(f"{front.url}/carrier_batch", json=asked, headers={"Presend-Max-Age": "60"})
    assert mixed.headers["presend-answered-from"] == "live=1, stored=1"
    one = web.post(f"{front.url}/carrier_batch", json=asked | {"PhoneNumbers": [HOME]})
    assert one.headers["presend-answered-from"] == "live=1", "a batch of one is a batch"
    assert sandbox.bill.billed == 4
    assert front.charged() == 6
    for nonsense in ("soon", "-1", "nan"):
        assert code(single(web, front, key, max_age=nonsense)) == 1


def test_nothing_is_charged_where_nothing_is_found_or_bought(
    front: Front, sandbox: WatchedSandbox, web: httpx.Client
) -> None:
    key = front.account(balance=3)
    unknown = next(f"139{n:08d}" for n in range(10**6) if sandbox.truth(f"139{n:08d}").code == -4)
    assert [item["code"] for item in batch(web, front, key, [unknown, HOME, "1", HOME])] == [-4, 0, -2, 0]
    assert batch(web, front, key, [HOME, PORTED, *OTHERS])["code"] == -5, "2 are left, 4 are asked"
    engine.transact(
        front.database, lambda to: gate.close(to, gate.EVERY_ACCOUNT, by="mei", reason="prices change")
    )
    asked_before = len(sandbox.asked)
    unanswered = single(web, front, key)
    assert (code(unanswered), unanswered.headers["presend-answered-from"]) == (-8, "none")
    assert len(sandbox.asked) == asked_before
    eventually(lambda: not front.stands().held, "what was reserved to be given back")
    assert (front.stands().balance, front.charged()) == (2, 1)


def test_the_providers_account_fault_is_no_fault_of_the_callers(
    front: Front, sandbox: WatchedSandbox, web: httpx.Client
) -> None:
    """The gate closes, callers are told -8, and it opens by itself: no worker runs here."""
    key = front.account()
    sandbox.put_account(Account(DEFAULT_APIKEY, FeeType.PREPAID, 0))
    assert code(single(web, front, key)) == -8
    sandbox.put_account(Account(DEFAULT_APIKEY))
    eventually(lambda: code(single(web, front, key)) == 0, "the gate to open")


def test_a_spent_budget_is_told_at_once(database_url: str, provider_url: str, web: httpx.Client) -> None:
    with front_door(database_url, provider_url, daily_budget=1) as front:
        key = front.account()
        assert [code(single(web, front, key, each)) for each in (PORTED, HOME)] == [0, -8]
        assert front.charged() == 1


def test_past_the_deadline_a_caller_is_told_and_pays_nothing(
    database_url: str, provider_url: str, sandbox: WatchedSandbox, web: httpx.Client
) -> None:
    with front_door(database_url, provider_url, direct_deadline_seconds=0.5) as front:
        key = front.account()
        with sandbox.held():
            assert code(single(web, front, key)) == -8
        eventually(lambda: not front.stands().held, "what was reserved to be given back")
        assert (front.stands().balance, front.charged()) == (1000, 0)


def test_a_passing_fault_and_a_poisoned_number_are_the_front_doors_to_mend(
    front: Front, sandbox: WatchedSandbox, web: httpx.Client
) -> None:
    key = front.account()
    sandbox.faults.add(Fault(kind="code", code=-8))
    sandbox.faults.add(Fault(kind="poison", mobile=OTHERS[0], code=1))
    codes = [item["code"] for item in batch(web, front, key, [HOME, OTHERS[0], OTHERS[1]])]
    assert codes == [0, -3, 0]


def test_a_rate_limit_names_itself(front: Front, web: httpx.Client) -> None:
    key = front.account(calls_a_minute=2)
    answers = [single(web, front, key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "2 calls a minute" in answers[2].json()["reason"]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


def test_keys_are_in_no_log_and_no_table(
    front: Front, web: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    key = front.account()
    with caplog.at_level("DEBUG"):
        web.get(f"{front.url}/carrier", params={"apikey": key, "mobile": PORTED})
        web.get(f"{front.url}/carrier", params={"apikey": "0" * 32, "mobile": PORTED})
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    assert not [record for record in ours if key in record.getMessage() or "0" * 32 in record.getMessage()]
    for (table,) in front.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    ):
        assert not front.rows(f"SELECT FROM {table} t WHERE t::text LIKE '%{key}%'"), table


def test_the_documents_curl_lines_provoke_each_code(database_url: str, provider_url: str) -> None:
    document = (Path(__file__).parents[2] / "docs" / "provider-contract.md").read_text("utf-8")
    lines = re.findall(r"^    (curl .*?) +# (-?\d+)", document, re.MULTILINE)
    assert {int(code) for _, code in lines} == set(Code)
    with front_door(database_url, provider_url, certificate=CERTIFICATE) as front:
        keys = {
            "K": front.account(),
            "EMPTY": front.account("empty", balance=0),
            "DISABLED": front.account("off"),
        }
        disable = partial(accounts.set_disabled, name="off", disabled=True, by="mei", reason="test")
        engine.transact(front.database, disable)
        for url in (front.url, str(front.secure_url)):
            env = {**os.environ, **keys, "U": url, "CURL_CA_BUNDLE": str(CERTIFICATE), "NO_PROXY": "*"}
            for line, expected in lines:
                with closed_gate(front) if expected == "-8" else nullcontext():
                    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, check=False)
                assert json.loads(done.stdout)["code"] == int(expected), line


@contextmanager
def closed_gate(front: Front) -> Iterator[None]:
    closed = {"by": "mei", "reason": "test"}
    engine.transact(front.database, lambda to: gate.close(to, gate.EVERY_ACCOUNT, **closed))
    try:
        yield
    finally:
        engine.transact(front.database, lambda to: gate.reopen(to, gate.EVERY_ACCOUNT, **closed))


HALF_A_HEAD = b"POST /carrier HTTP/1.1\r\nHost: localhost\r\n"
HALF_A_BODY = HALF_A_HEAD + b"Content-Length: 9\r\n\r\napi"
GIVEN_UP = b"HTTP/1.1 408 Request Timeout"


@pytest.mark.parametrize(
    ("sent", "told"),
    [(HALF_A_HEAD, GIVEN_UP), (HALF_A_BODY, GIVEN_UP), (b"", b"")],
    ids=["half a head", "half a body", "nothing"],
)
def test_a_request_that_does_not_come_is_given_up(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: bytes, told: bytes
) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.2)
    with connected(front) as caller:
        caller.sendall(sent)
        assert everything(caller).partition(b"\r\n")[0] == told
    assert not caplog.records


@pytest.mark.parametrize(("slowest", "told"), [(2, b'"code":1,'), (30, GIVEN_UP)])
def test_a_body_that_comes_slowly_is_waited_for(
    front: Front, monkeypatch: pytest.MonkeyPatch, slowest: float, told: bytes
) -> None:
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(patience, "SLOWEST_OCTETS_A_SECOND", slowest)
    with connected(front) as caller:
        caller.sendall(HALF_A_HEAD + b"Content-Length: 19\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionError):
            for octet in b"apikey=1&mobile=138":
                time.sleep(0.1)
                caller.sendall(bytes([octet]))
        assert told in everything(caller)


@pytest.mark.parametrize("sent", [HALF_A_HEAD, HALF_A_BODY], ids=["a head", "a body"])
def test_a_caller_who_stops_half_way_does_not_hold_up_the_end(
    database_url: str, provider_url: str, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with front_door(database_url, provider_url) as front:
        caller = connected(front)
        caller.sendall(b"HEAD /carrier HTTP/1.1\r\nHost: localhost\r\n\r\n" + sent)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):  # what came with the answered request has been read, too
            answer += caller.recv(4096)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert everything(caller).partition(b"\r\n")[0] == (GIVEN_UP if sent == HALF_A_BODY else b"")
    caller.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def connected(front: Front) -> socket.socket:
    host, port = front.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def everything(caller: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    return b"".join(iter(lambda: caller.recv(4096), b""))
