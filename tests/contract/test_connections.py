"""The client's connections: kept alive, given up in time, and never a false alarm of a lost answer."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.contract.conftest import Served
from tests.contract.stub import Connection, answering, http, stub
from worker.carrier import client as client_module
from worker.carrier.client import HttpCarrier
from worker.errors import AnswerLost, NotSent, SettingsError
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY

KEY = DEFAULT_APIKEY
BALANCE = http(json.dumps({"code": 0, "result": {"feeType": "预付费", "balance": "5"}}).encode())


def test_calls_share_a_connection() -> None:
    with stub(answering(*[BALANCE] * 5)) as provider:
        carrier = HttpCarrier(provider.url, KEY)
        for _ in range(5):
            carrier.balance()
        carrier.close()
    assert len(provider.connections) == 1


def test_a_request_is_one_post_without_key_or_number_in_its_url() -> None:
    with stub(answering(BALANCE)) as provider:
        carrier = HttpCarrier(provider.url + "/gateway/", KEY)
        carrier.balance()
        carrier.close()
    (request,) = provider.connections[0].requests
    assert request.startswith(b"POST /gateway/balance HTTP/1.1\r\n")
    assert request.endswith(f"\r\n\r\napikey={KEY}".encode())
    assert KEY.encode() not in request.partition(b"\r\n\r\n")[0]


def test_a_connection_the_server_closed_while_idle_costs_a_new_one_not_an_answer() -> None:
    closed = threading.Event()

    def answer_once(connection: Connection) -> None:
        connection.read_request()
        connection.send(BALANCE)
        connection.raw.close()
        closed.set()

    with stub(answer_once) as provider:
        carrier = HttpCarrier(provider.url, KEY)
        for _ in range(3):
            closed.clear()
            assert carrier.balance().balance == 5
            assert closed.wait(5)
        carrier.close()
    assert len(provider.connections) == 3


def test_a_connection_closed_between_being_chosen_and_being_used_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool believes the connection open; only the stream sees that it is not."""
    closed = threading.Event()

    def answer_once(connection: Connection) -> None:
        connection.read_request()
        connection.send(BALANCE)
        connection.raw.close()
        closed.set()

    monkeypatch.setattr("httpcore._sync.http11.HTTP11Connection.has_expired", lambda _: False)
    with stub(answer_once) as provider:
        carrier = HttpCarrier(provider.url, KEY)
        assert carrier.balance().balance == 5
        assert closed.wait(5)
        assert carrier.balance().balance == 5
        carrier.close()
    assert [len(connection.requests) for connection in provider.connections] == [1, 1]


def test_idle_connections_are_given_up_before_servers_close_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client_module.KEEPALIVE_SECONDS < 5
    monkeypatch.setattr(client_module, "KEEPALIVE_SECONDS", 0.0)
    with stub(answering(BALANCE, BALANCE)) as provider:
        carrier = HttpCarrier(provider.url, KEY)
        carrier.balance()
        carrier.balance()
        carrier.close()
    assert len(provider.connections) == 2


def test_hung_calls_give_their_places_back_within_a_deadline(served: Served) -> None:
    hang = served.sandbox.faults.add(Fault(kind="hang", calls=None))
    carrier = HttpCarrier(served.url, KEY, max_connections=2)

    def ask(_: int) -> str:
        start = time.monotonic()
        with pytest.raises((NotSent, AnswerLost)) as raised:
            carrier.lookup("13972565391", timeout_seconds=0.6)
        assert time.monotonic() - start < 3
        return raised.type.__name__

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(ask, range(10)))
    assert outcomes.count("AnswerLost") >= 2
    served.sandbox.faults.remove(hang.id)
    assert carrier.lookup("13972565391").current_operator == "CTCC"
    carrier.close()


def test_a_request_is_not_sent_when_too_little_time_is_left_for_its_answer() -> None:
    asked, answer = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        while connection.read_request():
            asked.set()
            answer.wait(10)
            connection.send(BALANCE)

    with stub(hold) as provider, ThreadPoolExecutor(1) as pool:
        carrier = HttpCarrier(provider.url, KEY, single_timeout_seconds=10, max_connections=1)
        held = pool.submit(carrier.balance)
        assert asked.wait(5)
        start = time.monotonic()
        with pytest.raises(NotSent):
            carrier.balance(timeout_seconds=1.0)
        assert 0.49 < time.monotonic() - start < 1.0
        answer.set()
        assert held.result().balance == 5
        carrier.close()
    assert sum(len(connection.requests) for connection in provider.connections) == 1


def test_a_pool_without_free_places_is_replaced_after_two_time_outs() -> None:
    asked, answer = threading.Event(), threading.Event()

    def hold_the_first(connection: Connection) -> None:
        first = not asked.is_set()
        connection.read_request()
        asked.set()
        if first:
            answer.wait(10)
        connection.send(BALANCE)

    with stub(hold_the_first) as provider, ThreadPoolExecutor(1) as pool:
        carrier = HttpCarrier(provider.url, KEY, single_timeout_seconds=8, max_connections=1)
        held = pool.submit(carrier.balance)
        assert asked.wait(5)
        for _ in range(2):
            with pytest.raises(NotSent):
                carrier.balance(timeout_seconds=0.05)
        assert carrier.balance().balance == 5
        answer.set()
        assert held.result().balance == 5, "a call in flight outlives its pool"
        carrier.close()


def test_httpx_logs_no_url(caplog: pytest.LogCaptureFixture, served: Served) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    carrier = HttpCarrier(served.url, KEY)
    carrier.lookup("13972565391")
    carrier.close()
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]
    assert KEY not in caplog.text
    assert "13972565391" not in caplog.text


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    carrier = HttpCarrier(served.url, KEY)
    assert carrier.balance().balance == 1_000_000
    carrier.close()


@pytest.mark.parametrize("url", ["isp.example", "ftp://isp.example", "http://", "http://isp.example/?a=b"])
def test_a_url_that_is_none_is_told_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="http"):
        HttpCarrier(url, KEY)


def test_a_transport_of_the_tests_own_is_used() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        return httpx.Response(200, json={"code": 0, "result": {"feeType": "后付费", "balance": -1}})

    carrier = HttpCarrier("http://isp.example", KEY, transport=httpx.MockTransport(answer))
    assert carrier.balance().balance == -1
    carrier.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError, NotSent),
        (httpx.ConnectTimeout, NotSent),
        (httpx.PoolTimeout, NotSent),
        (httpx.ReadTimeout, AnswerLost),
        (httpx.ReadError, AnswerLost),
        (httpx.WriteTimeout, AnswerLost),
        (httpx.WriteError, AnswerLost),
        (httpx.RemoteProtocolError, AnswerLost),
        (httpx.CloseError, AnswerLost),
    ],
)
def test_a_transports_errors(error: type[httpx.HTTPError], expected: type[Exception]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error("13972565391")

    carrier = HttpCarrier("http://isp.example", KEY, transport=httpx.MockTransport(fail))
    with pytest.raises(expected) as raised:
        carrier.lookup("13972565391")
    assert "13972565391" not in str(raised.value)
    carrier.close()
