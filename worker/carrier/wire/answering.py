"""The provider's side: requests in, answers out, field for field as the document prints them.

The single call writes ``Init_isp`` and ``Now_isp``, the batch ``Init_Isp`` and ``Now_Isp``; ``res`` and
``balance`` are strings; an answer with a code other than 0 has no ``result``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

import msgspec

from worker.carrier.protocol import Answer, Balance, Unanswered
from worker.carrier.wire.codes import Code, refusal
from worker.carrier.wire.spellings import (
    APIKEY,
    APIKEY_LENGTH,
    BATCH_APIKEY,
    BATCH_NUMBERS,
    FEE_TYPES,
    MOBILE,
    RES,
)
from worker.portability.json_kinds import NOT_JSON
from worker.portability.operators import label_of

_MOBILE_SHAPE = re.compile(r"1[3-9][0-9]{9}").fullmatch


class _SingleResult(msgspec.Struct, gc=False):
    res: str
    mobile: str = msgspec.field(name="Mobile")
    area: str = msgspec.field(name="Area")
    init_isp: str = msgspec.field(name="Init_isp")
    now_isp: str = msgspec.field(name="Now_isp")


class _BatchResult(msgspec.Struct, gc=False):
    res: str
    mobile: str = msgspec.field(name="Mobile")
    area: str = msgspec.field(name="Area")
    init_isp: str = msgspec.field(name="Init_Isp")
    now_isp: str = msgspec.field(name="Now_Isp")


class _Account(msgspec.Struct):
    fee_type: str = msgspec.field(name="feeType")
    balance: str


class _Found(msgspec.Struct, gc=False):
    code: int
    reason: str
    result: _SingleResult | _BatchResult | _Account


class _Refused(msgspec.Struct, gc=False):
    code: int
    reason: str


class BatchRequest(msgspec.Struct, frozen=True):
    """A batch as it was asked; ``mobiles`` may hold anything JSON can."""

    apikey: str
    mobiles: list[object]


_encode = msgspec.json.Encoder().encode
_SUCCESS = Code.SUCCESS.reason
_REFUSED = {int(code): _Refused(code, code.reason) for code in Code if code is not Code.SUCCESS}


def read_params(*sources: bytes) -> dict[str, str]:
    """The parameters of url-encoded texts; the first source that names one wins. Names keep their case."""
    pairs = [pair for source in reversed(sources) for pair in parse_qsl(source.decode("utf-8", "replace"))]
    return dict(pairs)


def read_json_params(body: bytes) -> dict[str, str]:
    """The parameters of a JSON object, numbers taken as their digits; raises the refusal -9."""
    document = _object(body)
    return {name: str(value) for name, value in document.items() if isinstance(value, str | int)}


def read_apikey(params: Mapping[str, str]) -> str:
    """The caller's key; raises the refusal 1 where it is missing or not 32 characters long."""
    return _apikey(params.get(APIKEY))


def read_mobile(params: Mapping[str, str]) -> str:
    """The number asked; raises the refusal 1 where it is missing or empty. Its shape is ``shape_code``'s."""
    mobile = params.get(MOBILE)
    if not mobile:
        raise refusal(Code.BAD_PARAMETER)
    return mobile


def read_batch(body: bytes) -> BatchRequest:
    """Read a batch request; raises the refusal -9 for what is no JSON object, 1 for a missing parameter."""
    document = _object(body)
    mobiles = document.get(BATCH_NUMBERS)
    if not isinstance(mobiles, list) or not mobiles:
        raise refusal(Code.BAD_PARAMETER)
    return BatchRequest(_apikey(document.get(BATCH_APIKEY)), mobiles)


def shape_code(mobile: object) -> Code | None:
    """What is wrong with a number by its shape alone; None if it may be asked.

    1: empty or no string; -2: not 11 characters; -3: 11 characters that are not 1[3-9] and nine digits.
    """
    if not isinstance(mobile, str) or not mobile:
        return Code.BAD_PARAMETER
    if len(mobile) != 11:
        return Code.WRONG_LENGTH
    return None if _MOBILE_SHAPE(mobile) else Code.NOT_A_MOBILE


def write_single(answer: Answer | Unanswered) -> bytes:
    """The answer of ``/carrier``."""
    if isinstance(answer, Unanswered) or answer.code != Code.SUCCESS:
        return _encode(_refused(answer.code))
    return _encode(_Found(0, _SUCCESS, _SingleResult(*_fields(answer))))


def write_batch(entries: Sequence[Answer | Unanswered]) -> bytes:
    """The answer of ``/carrier_batch``: one item an entry, in order."""
    return _encode([_item(entry) for entry in entries])


def write_balance(balance: Balance) -> bytes:
    """The answer of ``/balance``: strict JSON, without the document's trailing comma."""
    return _encode(_Found(0, _SUCCESS, _Account(FEE_TYPES[balance.fee_type], str(balance.balance))))


def write_refusal(code: int, *, reason: str | None = None) -> bytes:
    """An answer that is only a code and its reason; one that is not in the table is written as -8."""
    return _encode(_refused(code) if reason is None else _Refused(code, reason))


def _item(entry: Answer | Unanswered) -> _Found | _Refused:
    if isinstance(entry, Answer) and entry.code == Code.SUCCESS:
        return _Found(0, _SUCCESS, _BatchResult(*_fields(entry)))
    return _refused(entry.code)


def _refused(code: int | None) -> _Refused:
    return _REFUSED.get(Code.SYSTEM_ERROR if code is None else code, _REFUSED[Code.SYSTEM_ERROR])


def _fields(answer: Answer) -> tuple[str, str, str, str, str]:
    holder = label_of(answer.range_holder)
    current = label_of(answer.current_operator)
    return RES[answer.status], answer.msisdn, answer.area or "", holder, current


def _object(body: bytes) -> dict[str, object]:
    try:
        document = msgspec.json.decode(body)
    except NOT_JSON:
        document = None
    if not isinstance(document, dict):
        raise refusal(Code.BAD_JSON)
    return document


def _apikey(value: object) -> str:
    if not isinstance(value, str) or len(value) != APIKEY_LENGTH:
        raise refusal(Code.BAD_PARAMETER)
    return value
