"""Text of the provider that Postgres would refuse."""

from __future__ import annotations

import json
from typing import Any

from worker.carrier.wire.asking import decode_batch, decode_single

RESULT = {
    "res": "1",
    "Mobile": "13972565391",
    "Area": "湖北-\x00宜昌",
    "Init_isp": "移动\x00",
    "Now_isp": "\x00",
}


def test_nul_is_taken_out_of_what_was_paid_for() -> None:
    answer = decode_single(body(RESULT | {"Now_isp": "电\x00信"}), "13972565391")
    assert (answer.area, answer.range_holder, answer.current_operator) == ("湖北-宜昌", "CMCC", "CTCC")


def test_in_a_batch_too() -> None:
    (answer,) = decode_batch(b"[" + body(RESULT | {"Now_isp": "新\x00"}) + b"]", ["13972565391"])
    assert (answer.msisdn, getattr(answer, "current_operator", None)) == ("13972565391", "新")


def body(result: dict[str, Any]) -> bytes:
    return json.dumps({"code": 0, "reason": "Succ", "result": result}).encode()
