"""A provider that misbehaves: what the client makes of it, told apart by what may have been billed."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.contract.stub import Behaviour, Connection, answering, http, stub
from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import Answer, Unanswered
from worker.errors import (
    AccountFault,
    AnswerLost,
    CarrierError,
    ContractBreach,
    NotSent,
    RequestRefused,
    TransientFault,
)
from worker.portability.records import Status

KEY = "7c11272au708345c834b8ue81ac78972"
ASKED = ["13798361236", "13352918995", "13163320753"]
ANSWERED = [
    Answer("13798361236", 0, Status.NOT_PORTED, "CMCC", "CMCC", "广东-深圳"),
    Answer("13352918995", 0, Status.NOT_PORTED, "CTCC", "CTCC", "广东-深圳"),
    Answer("13163320753", 0, Status.NOT_PORTED, "CUCC", "CUCC", "湖北-武汉"),
]
LABELS = {"CMCC": "移动", "CTCC": "电信", "CUCC": "联通"}


def item(answer: Answer, **changes: object) -> dict[str, object]:
    label = LABELS[str(answer.range_holder)]
    result = {"res": "0", "Mobile": answer.msisdn, "Area": answer.area, "Init_Isp": label, "Now_Isp": label}
    return {"code": 0, "reason": "Succ", "result": result | changes}


ITEMS = [item(answer) for answer in ANSWERED]


def refused(code: int) -> dict[str, object]:
    return {"code": code, "reason": "号码13798361236"}


def body(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


GOOD = http(body(ITEMS))


@dataclass(frozen=True)
class Raises:
    """The error a batch ends in, and its code."""

    error: type[CarrierError]
    code: int | None = None


def silent(connection: Connection) -> None:
    connection.read_request()
    connection.wait_for_the_end()


def reset_after_request(connection: Connection) -> None:
    connection.read_request()
    connection.reset()


def close_after_request(connection: Connection) -> None:
    connection.read_request()


def reset_within_the_answer(connection: Connection) -> None:
    connection.read_request()
    connection.send(GOOD[:200])
    connection.reset()


def drip(connection: Connection) -> None:
    connection.read_request()
    connection.drip(GOOD, 0.05)


def drip_the_body(connection: Connection) -> None:
    connection.read_request()
    head, _, rest = GOOD.partition(b"\r\n\r\n")
    connection.send(head + b"\r\n\r\n")
    connection.drip(rest, 0.05)


def continue_for_ever(connection: Connection) -> None:
    connection.read_request()
    connection.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0.01)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def chunks_for_ever(connection: Connection) -> None:
    connection.read_request()
    connection.send(chunked(end=b""))
    with suppress(OSError):
        while True:
            connection.send(b"10000\r\n" + b" " * 65536 + b"\r\n")


BOMB = gzip.compress(b" " * (64 * 1024 * 1024) + body(ITEMS))  # 64 kB that unfold to 64 MiB


LOST = Raises(AnswerLost)
UNBILLED = Raises(NotSent)
HTML = b"<html><body>502 Bad Gateway 13798361236</body></html>"
UNUSABLE: dict[str, tuple[Behaviour, Raises]] = {
    # nothing came back
    "silence": (silent, LOST),
    "reset after the request": (reset_after_request, LOST),
    "closed after the request": (close_after_request, LOST),
    "reset within the answer": (reset_within_the_answer, LOST),
    "an answer a byte at a time": (drip, LOST),
    "a body a byte at a time": (drip_the_body, LOST),
    "100 Continue for ever": (continue_for_ever, LOST),
    # something else came back
    "429": (answering(http(b"", "429 Too Many Requests")), UNBILLED),
    "500": (answering(http(body(ITEMS), "500 Internal Server Error")), LOST),
    "502 HTML": (answering(http(HTML, "502 Bad Gateway", "Content-Type: text/html")), LOST),
    "503": (answering(http(b"", "503 Service Unavailable", "Retry-After: 1")), LOST),
    "403 HTML": (answering(http(HTML, "403 Forbidden")), LOST),
    "204": (answering(b"HTTP/1.1 204 No Content\r\n\r\n"), LOST),
    "200 HTML": (answering(http(HTML)), LOST),
    "redirect": (answering(http(b"", "302 Found", "Location: http://127.0.0.1:1/")), LOST),
    "redirect that keeps the method": (answering(http(b"", "307 Temporary Redirect", "Location: /")), LOST),
    "not HTTP": (answering(b"SSH-2.0-OpenSSH_9.6 13798361236\r\n\r\n"), LOST),
    "header without end": (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), LOST),
    # an answer that cannot be used
    "empty body": (answering(http(b"")), LOST),
    "body cut by the connection": (answering(http(body(ITEMS)[:100], length=len(body(ITEMS)))), LOST),
    "JSON cut": (answering(http(body(ITEMS)[:100])), LOST),
    "JSON cut, without a length": (answering(b"HTTP/1.0 200 OK\r\n\r\n" + body(ITEMS)[:100]), LOST),
    "chunks cut": (answering(chunked(body(ITEMS)[:100], end=b"")), LOST),
    "more than 4 MiB": (answering(http(b" " * (4 * 1024 * 1024) + body(ITEMS))), LOST),
    "compressed": (answering(http(gzip.compress(body(ITEMS)), "200 OK", "Content-Encoding: gzip")), LOST),
    "a bomb": (answering(http(BOMB, "200 OK", "Content-Encoding: gzip")), LOST),
    "a bomb called identity too": (answering(http(BOMB, "200 OK", "Content-Encoding: identity, gzip")), LOST),
    "a bomb by its old name": (answering(http(BOMB, "200 OK", "Content-Encoding: x-gzip")), LOST),
    "a bomb under way": (answering(http(BOMB, "200 OK", "Transfer-Encoding: gzip, chunked")), LOST),
    "chunks for ever": (chunks_for_ever, LOST),
    "a bare NaN": (answering(http(b"[NaN, NaN, NaN]")), LOST),
    "GBK": (answering(http(json.dumps(ITEMS, ensure_ascii=False).encode("gb18030"))), LOST),
    "brackets without end": (answering(http(b"[" * 100_000)), LOST),
    "null": (answering(http(b"null")), LOST),
    "a string": (answering(http('"系统错误"'.encode())), LOST),
    "a single number's answer": (answering(http(body(ITEMS[0]))), LOST),
    "no items": (answering(http(b"[]")), LOST),
    "items of another batch": (answering(http(body([item(ANSWERED[0], Mobile="13900000000")] * 3))), LOST),
    "items that are no objects": (answering(http(b"[1, null, [2]]")), LOST),
    # a refusal
    "account, whole": (answering(http(body(refused(-1)))), Raises(AccountFault, -1)),
    "balance, whole": (answering(http(body(refused(-5)))), Raises(AccountFault, -5)),
    "disabled, whole": (answering(http(body(refused(-6)))), Raises(AccountFault, -6)),
    "account, every item": (answering(http(body([refused(-5)] * 3))), Raises(AccountFault, -5)),
    "account, items of all three": (
        answering(http(body([refused(-6), refused(-5), refused(-1)]))),
        Raises(AccountFault, -6),
    ),
    "account, one item for all": (answering(http(body([refused(-1)]))), Raises(AccountFault, -1)),
    "trouble, whole": (answering(http(body(refused(-8)))), Raises(TransientFault, -8)),
    "trouble, every item": (answering(http(body([refused(-8)] * 3))), Raises(TransientFault, -8)),
    "parameter, whole": (answering(http(body(refused(1)))), Raises(RequestRefused, 1)),
    "JSON, whole": (answering(http(body(refused(-9)))), Raises(RequestRefused, -9)),
    "one number's code for the whole": (answering(http(body(refused(-3)))), Raises(RequestRefused, -3)),
    "not POST": (answering(http(body(refused(-7)))), Raises(ContractBreach, -7)),
    "over 1000": (answering(http(body(refused(-10)))), Raises(ContractBreach, -10)),
    "a code of its own": (answering(http(body(refused(42)))), Raises(AnswerLost, 42)),
    "a code that is a string": (answering(http(b'{"code":"-5"}')), Raises(AccountFault, -5)),
}


ENDLESS = {silent, drip, drip_the_body, continue_for_ever}


def carrier_at(url: str, *, seconds: float = 5.0) -> HttpCarrier:
    return HttpCarrier(url, KEY, single_timeout_seconds=seconds, batch_timeout_seconds=seconds)


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_batch_that_cannot_be_answered(name: str, caplog: pytest.LogCaptureFixture) -> None:
    behaviour, expected = UNUSABLE[name]
    caplog.set_level(logging.DEBUG)
    with stub(behaviour) as provider:
        carrier = carrier_at(provider.url, seconds=0.6 if behaviour in ENDLESS else 5.0)
        start = time.monotonic()
        with pytest.raises(CarrierError) as raised:
            carrier.lookup_batch(ASKED)
        carrier.close()
    assert type(raised.value) is expected.error
    assert raised.value.code == expected.code
    assert time.monotonic() - start < 2.0
    assert len(provider.connections) == 1, "what may have been billed is never asked again unasked"
    assert_nothing_leaks(raised.value, caplog)


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_takes_key_and_numbers_nowhere(status: str) -> None:
    with (
        stub(answering(GOOD)) as elsewhere,
        stub(answering(http(b"", status, f"Location: {elsewhere.url}/carrier_batch"))) as provider,
    ):
        carrier = carrier_at(provider.url)
        with pytest.raises(AnswerLost):
            carrier.lookup_batch(ASKED)
        carrier.close()
        assert not elsewhere.connections


def assert_nothing_leaks(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """No number, no key, no httpx exception (whose request has both)."""
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + caplog.text
    for secret in [KEY, *ASKED]:
        assert secret not in told


PARTIAL: dict[str, tuple[list[object], list[Answer | Unanswered | int | None]]] = {
    # what comes; then for each number its answer, or the code of its being unanswered
    "as asked": ([*ITEMS], [*ANSWERED]),
    "in reverse": (ITEMS[::-1], [*ANSWERED]),
    "one missing": (ITEMS[:2], [ANSWERED[0], ANSWERED[1], None]),
    "one twice": ([*ITEMS, ITEMS[0]], [None, ANSWERED[1], ANSWERED[2]]),
    "one twice, one missing": ([ITEMS[0], ITEMS[0], ITEMS[2]], [None, None, ANSWERED[2]]),
    "one twice with two answers": (
        [*ITEMS, item(ANSWERED[0], res="1", Now_Isp="电信")],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one nobody asked": ([*ITEMS, item(ANSWERED[0], Mobile="13900000000")], [*ANSWERED]),
    "one instead of another": (
        [item(ANSWERED[0], Mobile="13900000000"), *ITEMS[1:]],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one refused, at its place": (
        [ITEMS[0], refused(-4), ITEMS[2]],
        [ANSWERED[0], Answer(ASKED[1], -4, Status.UNKNOWN), ANSWERED[2]],
    ),
    "one refused, after one missing": ([refused(-4), ITEMS[2]], [None, None, ANSWERED[2]]),
    "one refused, the others out of place": (
        [ITEMS[1], ITEMS[0], refused(-4)],
        [ANSWERED[0], ANSWERED[1], None],
    ),
    "one refused, with its Mobile, out of place": (
        [refused(-3) | {"result": {"Mobile": ASKED[2]}}, ITEMS[0], ITEMS[1]],
        [ANSWERED[0], ANSWERED[1], Answer(ASKED[2], -3, Status.INVALID)],
    ),
    "one over the balance": ([*ITEMS[:2], refused(-5)], [ANSWERED[0], ANSWERED[1], -5]),
    "one in trouble": ([refused(-8), *ITEMS[1:]], [-8, ANSWERED[1], ANSWERED[2]]),
    "one with a code of its own": ([refused(99), *ITEMS[1:]], [99, ANSWERED[1], ANSWERED[2]]),
    "one found without its result": ([{"code": 0}, *ITEMS[1:]], [None, ANSWERED[1], ANSWERED[2]]),
    "one found without its Mobile": (
        [item(ANSWERED[0], Mobile=None), *ITEMS[1:]],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one with a result of another shape": (
        [refused(-4) | {"result": []}, *ITEMS[1:]],
        [Answer(ASKED[0], -4, Status.UNKNOWN), ANSWERED[1], ANSWERED[2]],
    ),
    "one refused for another, in a result of another shape": (
        [refused(-4) | {"result": {"Mobile": "13900000000", "Area": 7}}, *ITEMS[1:]],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one with a res of its own": ([item(ANSWERED[0], res="2"), *ITEMS[1:]], [None, ANSWERED[1], ANSWERED[2]]),
    "one not ported yet elsewhere": (
        [item(ANSWERED[0], Now_Isp="电信"), *ITEMS[1:]],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one ported to nobody": (
        [item(ANSWERED[0], res="1", Now_Isp=""), *ITEMS[1:]],
        [None, ANSWERED[1], ANSWERED[2]],
    ),
    "one without a code": ([{"reason": "Succ"}, *ITEMS[1:]], [None, ANSWERED[1], ANSWERED[2]]),
    "one that is no object": ([None, *ITEMS[1:]], [None, ANSWERED[1], ANSWERED[2]]),
}


@pytest.mark.parametrize("comma", [False, True], ids=["strict", "trailing comma"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_batch_answered_in_part(name: str, comma: bool) -> None:
    items, expected = PARTIAL[name]
    raw = body(items)
    if comma:
        raw = raw.replace(b"}", b",}").replace(b"]", b",]")
    with stub(answering(http(raw))) as provider:
        carrier = carrier_at(provider.url)
        entries = carrier.lookup_batch(ASKED)
        carrier.close()
    assert [entry.msisdn for entry in entries] == ASKED
    assert [entry if isinstance(entry, Answer) else entry.code for entry in entries] == expected


SINGLE: dict[str, tuple[object, Raises | Answer]] = {
    "another number": (ITEMS[1], LOST),
    "an array": ([ITEMS[0]], LOST),
    "no result": ({"code": 0, "reason": "Succ"}, LOST),
    "a result without Mobile": (item(ANSWERED[0], Mobile=""), LOST),
    "unknown": (refused(-4), Answer(ASKED[0], -4, Status.UNKNOWN)),
    "wrong length": (refused(-2), Answer(ASKED[0], -2, Status.INVALID)),
    "unknown, with an empty result": (refused(-4) | {"result": ""}, Answer(ASKED[0], -4, Status.UNKNOWN)),
    "unknown, for another": (refused(-4) | {"result": {"Mobile": ASKED[1]}}, LOST),
    "refused": (refused(1), Raises(RequestRefused, 1)),
    "key": (refused(-1), Raises(AccountFault, -1)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_answer(name: str) -> None:
    document, expected = SINGLE[name]
    with stub(answering(http(body(document)))) as provider:
        carrier = carrier_at(provider.url)
        if isinstance(expected, Answer):
            assert carrier.lookup(ASKED[0]) == expected
        else:
            with pytest.raises(expected.error) as raised:
                carrier.lookup(ASKED[0])
            assert raised.value.code == expected.code
        carrier.close()


@pytest.mark.parametrize(
    ("document", "error", "code"),
    [
        (refused(1), AccountFault, 1),
        (refused(-1), AccountFault, -1),
        (refused(-6), AccountFault, -6),
        (refused(-8), TransientFault, -8),
        ({"code": 0}, AnswerLost, None),
        ({"code": 0, "result": {"feeType": "预付费"}}, AnswerLost, None),
        ({"code": 0, "result": {"feeType": "包年", "balance": "1"}}, AnswerLost, None),
        ({"code": 0, "result": {"feeType": "预付费", "balance": "many"}}, AnswerLost, None),
        ({"code": 0, "result": {"feeType": "预付费", "balance": "inf"}}, AnswerLost, None),
        ([], AnswerLost, None),
    ],
)
def test_a_balance_that_is_none(document: object, error: type[CarrierError], code: int | None) -> None:
    with stub(answering(http(body(document)))) as provider:
        carrier = carrier_at(provider.url)
        with pytest.raises(error) as raised:
            carrier.balance()
        carrier.close()
    assert type(raised.value) is error
    assert raised.value.code == code


def nobody_listens() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "url",
    [nobody_listens, lambda: "http://presend.invalid", lambda: nobody_listens().replace("http", "https")],
    ids=["refused", "no such host", "refused, TLS"],
)
def test_a_provider_that_cannot_be_reached_was_sent_nothing(
    url: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    carrier = carrier_at(url())
    for call in (carrier.balance, lambda: carrier.lookup(ASKED[0]), lambda: carrier.lookup_batch(ASKED)):
        with pytest.raises(NotSent) as raised:
            call()
        assert_nothing_leaks(raised.value, caplog)
    carrier.close()


def test_a_handshake_that_never_ends_was_sent_nothing() -> None:
    with stub(lambda connection: connection.wait_for_the_end()) as provider:
        carrier = carrier_at(provider.url.replace("http", "https"), seconds=0.4)
        with pytest.raises(NotSent):
            carrier.lookup(ASKED[0])
        carrier.close()


@pytest.mark.parametrize("count", [0, 1001])
def test_a_batch_out_of_bounds_is_never_sent(count: int) -> None:
    carrier = carrier_at(nobody_listens())
    with pytest.raises(ValueError, match="1 to 1000"):
        carrier.lookup_batch([f"139{number:08d}" for number in range(count)])
    with pytest.raises(ValueError, match="distinct"):
        carrier.lookup_batch([ASKED[0], ASKED[0]])
    carrier.close()
