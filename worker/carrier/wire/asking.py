"""The asker's side: presend writes requests and reads answers.

Answers are read leniently where nothing can go wrong (trailing commas, numbers for strings, either
spelling of ``Init_isp``) and strictly where a number could be given another number's answer: such
a number comes back ``Unanswered``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from worker.carrier.protocol import Answer, Balance, Unanswered
from worker.carrier.wire.codes import ACCOUNT_FAULTS, ANSWERS, Code, describe, refusal
from worker.carrier.wire.lenient_json import loads
from worker.carrier.wire.matching import match
from worker.carrier.wire.spellings import APIKEY, BATCH_APIKEY, BATCH_NUMBERS, FEE_TYPES, MOBILE, RES
from worker.errors import AccountFault, AnswerLost, CarrierError, RequestRefused
from worker.portability import operators
from worker.portability.json_kinds import NOT_JSON
from worker.portability.records import Status

_T = TypeVar("_T")

_STATUS: dict[str | int | None, Status] = {
    spelling: status for status, res in RES.items() for spelling in (res, int(res))
}
_REFUSED: dict[int, Status] = {-2: Status.INVALID, -3: Status.INVALID, -4: Status.UNKNOWN}
_FEE_TYPE = {name: fee_type for fee_type, name in FEE_TYPES.items()}


class _Result(msgspec.Struct, gc=False):
    """A ``result`` as it may come: the single call writes ``Init_isp``, the batch ``Init_Isp``."""

    res: str | int | None = None
    mobile: str | int | None = msgspec.field(default=None, name="Mobile")
    area: str | None = msgspec.field(default=None, name="Area")
    init_isp: str | None = msgspec.field(default=None, name="Init_isp")
    now_isp: str | None = msgspec.field(default=None, name="Now_isp")
    init_isp_batch: str | None = msgspec.field(default=None, name="Init_Isp")
    now_isp_batch: str | None = msgspec.field(default=None, name="Now_Isp")


class _Item(msgspec.Struct, gc=False):
    """One answered number."""

    code: int
    result: _Result | None = None


class _Account(msgspec.Struct):
    """The ``result`` of ``/balance``."""

    fee_type: str = msgspec.field(name="feeType")
    balance: str | int | float


_decode_item = msgspec.json.Decoder(_Item).decode
_decode_items = msgspec.json.Decoder(list[_Item]).decode
_encode = msgspec.json.Encoder().encode


# --- requests, as presend writes them ---


def single_request(apikey: str, msisdn: str) -> bytes:
    """The form body of ``/carrier``."""
    return urlencode({APIKEY: apikey, MOBILE: msisdn}).encode("ascii")


def batch_request(apikey: str, msisdns: Sequence[str]) -> bytes:
    """The JSON body of ``/carrier_batch``."""
    return _encode({BATCH_APIKEY: apikey, BATCH_NUMBERS: msisdns})


def balance_request(apikey: str) -> bytes:
    """The form body of ``/balance``."""
    return urlencode({APIKEY: apikey}).encode("ascii")


# --- answers, as presend reads them ---


def decode_single(raw: bytes, msisdn: str) -> Answer:
    """Read the answer of ``/carrier``; raises the error of its code, ``AnswerLost`` if unusable."""
    item = _typed(_decode_item, raw) or _lenient_item(loads(raw))
    if item.code not in ANSWERS:
        raise refusal(item.code)
    if _mobile(item) not in {None, msisdn}:
        raise AnswerLost("the provider answered for another number")
    answer = _read(msisdn, item)
    if isinstance(answer, Unanswered):
        raise AnswerLost(f"the provider's answer is {answer.reason}")
    return answer


def decode_batch(raw: bytes, asked: Sequence[str]) -> list[Answer | Unanswered]:
    """Read the answer of ``/carrier_batch`` for the distinct numbers asked, in their order.

    Raises the error of a batch refused whole: an object with a code, or an array in which every
    item carries the same refusal (for -1, -5 and -6: any of the three); ``AnswerLost`` if no item
    is usable.
    """
    items = _typed(_decode_items, raw) or _lenient_items(loads(raw))
    error = _refused_whole([item.code for item in items])
    if error is not None:
        raise error
    places = match(asked, [_mobile(item) for item in items])
    entries = [
        _read(msisdn, items[place]) if isinstance(place, int) else Unanswered(msisdn, None, place.value)
        for msisdn, place in zip(asked, places, strict=True)
    ]
    if all(isinstance(entry, Unanswered) and entry.code is None for entry in entries):
        raise AnswerLost("the provider's answer is usable for none of the numbers asked")
    return entries


def decode_balance(raw: bytes) -> Balance:
    """Read the answer of ``/balance``; raises the error of its code, ``AnswerLost`` if unusable.

    Code 1 means the key has a wrong length here, so it is an ``AccountFault`` as well.
    """
    document = loads(raw)
    code = _lenient_item(document).code
    if code == Code.BAD_PARAMETER:
        raise AccountFault(str(refusal(code)), code=code)
    if code != Code.SUCCESS:
        raise refusal(code)
    try:
        account = msgspec.convert(document["result"], _Account)
        return Balance(_FEE_TYPE[account.fee_type.strip()], int(float(account.balance)))
    except (msgspec.ValidationError, TypeError, LookupError, ValueError, OverflowError):
        pass
    raise AnswerLost("the provider's balance has not the shape of a balance")


def _typed(decode: Callable[[bytes], _T], raw: bytes) -> _T | None:
    """The quick way, for answers of the very shape documented; None leaves it to the lenient one."""
    try:
        return decode(raw)
    except NOT_JSON:
        return None


def _refused_whole(codes: list[int]) -> CarrierError | None:
    """The refusal all items share, if they do: it is then the refusal of the whole batch."""
    distinct = set(codes)
    shared = len(distinct) == 1 or (distinct and distinct <= ACCOUNT_FAULTS)
    if shared and not distinct & ANSWERS:
        return refusal(codes[0])
    return None


def _lenient_items(document: object) -> list[_Item]:
    if isinstance(document, list):
        return [_lenient_item(entry) for entry in document]
    code = _lenient_item(document).code
    if code == Code.SUCCESS:
        raise AnswerLost("the provider's batch answer is not an array")
    if code in ANSWERS:  # one wrong number, and the whole batch refused for it
        raise RequestRefused(str(refusal(code)), code=code)
    raise refusal(code)


def _lenient_item(document: object) -> _Item:
    """An item of which some field has a type the document does not give it; what it says of whom is kept.

    Without a readable code it becomes a found item with nothing found: unreadable.
    """
    fields = document if isinstance(document, dict) else {}
    result = fields.get("result")
    found: _Result | None
    try:
        found = msgspec.convert(result, _Result)
    except msgspec.ValidationError:
        found = _Result(mobile=_text(result.get("Mobile"))) if isinstance(result, dict) else None
    code = _text(fields.get("code"))
    try:
        return _Item(int(code or ""), found)
    except ValueError:
        return _Item(0, found and _Result(mobile=found.mobile))


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _read(msisdn: str, item: _Item) -> Answer | Unanswered:
    """What an item already matched to its number says."""
    code = item.code
    if code == 0:
        return _read_found(msisdn, item.result)
    status = _REFUSED.get(code)
    if status is not None:
        return Answer(msisdn, code, status)
    return Unanswered(msisdn, code, describe(code))


def _read_found(msisdn: str, result: _Result | None) -> Answer | Unanswered:
    """Read a code-0 result; one that names no number, or no operator, is unreadable."""
    if result is None or not result.mobile:
        return Unanswered(msisdn, None, "unreadable")
    init, now = result.init_isp_batch or result.init_isp, result.now_isp_batch or result.now_isp
    meaning = _meaning(result.res, init, now)
    if isinstance(meaning, str):
        return Unanswered(msisdn, None, meaning)
    status, holder, current = meaning
    return Answer(msisdn, 0, status, holder, current, _storable(result.area))


@lru_cache(maxsize=1024)
def _meaning(
    res: str | int | None, init: str | None, now: str | None
) -> tuple[Status, str | None, str | None] | str:
    """Status, range holder and current operator; or what is wrong with them. Cached: there are few."""
    status, holder, current = _STATUS.get(res), _operator(init), _operator(now)
    if status is None:
        return "unreadable"
    if status is Status.NOT_PORTED:
        # the document: a number that was not ported has Now_isp equal to Init_isp
        holder, current = holder or current, current or holder
        if holder != current:
            return "contradictory"
    if current is None and status is not Status.VIRTUAL:
        return "unreadable"
    return status, holder, current


def _mobile(item: _Item) -> str | None:
    result = item.result
    if result is None or not result.mobile:
        return None
    return str(result.mobile).strip()


def _operator(label: str | None) -> str | None:
    label = _storable(label)
    return operators.of_label(label.strip()) if label else None


def _storable(text: str | None) -> str | None:
    """Postgres refuses a NUL; the answer that was paid for is worth more than its last byte."""
    return (text.replace("\x00", "") or None) if text else None
