"""The provider's code table (its document, section 3), and the error each code is.

=====  ==========================================  =======================================
code   meaning                                     for a whole answer
=====  ==========================================  =======================================
0      found                                       an answer
-2 -3  not a mobile number                         an answer: ``invalid``
-4     nothing found                               an answer: ``unknown``
1 -9   something in the request is wrong           ``RequestRefused``: isolate the number
-1     no such apikey                              ``AccountFault``
-5 -6  balance too low, account disabled           ``AccountFault``
-7 -10 not POST, over 1000 numbers                 ``ContractBreach``: presend's own defect
-8     system error, try later                     ``TransientFault``
other  not in the document                         ``AnswerLost``: nobody knows if it is billed
=====  ==========================================  =======================================
"""

from __future__ import annotations

from enum import IntEnum

from worker.errors import (
    AccountFault,
    AnswerLost,
    CarrierError,
    ContractBreach,
    RequestRefused,
    TransientFault,
)


class Code(IntEnum):
    """Every code the provider's document lists; ``reason`` is its text there."""

    SUCCESS = 0
    BAD_PARAMETER = 1
    UNKNOWN_KEY = -1
    WRONG_LENGTH = -2
    NOT_A_MOBILE = -3
    NOT_FOUND = -4
    LOW_BALANCE = -5
    DISABLED = -6
    USE_POST = -7
    SYSTEM_ERROR = -8
    BAD_JSON = -9
    TOO_MANY = -10

    @property
    def reason(self) -> str:
        """The text that goes with the code, as the document prints it."""
        return _REASONS[self]


_REASONS: dict[Code, str] = {
    Code.SUCCESS: "Succ",
    Code.BAD_PARAMETER: "请求参数缺失,apikey 长度不对,查询的手机号码长度不对,查询的手机号码有误",
    Code.UNKNOWN_KEY: "apikey 信息不匹配(用户信息不正确)apikey 不正确",
    Code.WRONG_LENGTH: "查询的手机号码长度不对",
    Code.NOT_A_MOBILE: "请填写正确的手机号码",
    Code.NOT_FOUND: "未查询到相关信息或填写正确的手机号码再查询",
    Code.LOW_BALANCE: "当前余额不足发起本次查询请求,请与供应商联系",
    Code.DISABLED: "当前帐户已被停用,请与供应商联系",
    Code.USE_POST: "请使用 post 方式进行提交,或联系供应商技术支持（针对批量提交查询）",
    Code.SYSTEM_ERROR: "系统错误,请稍候再试",
    Code.BAD_JSON: "JSON 格式错误,请检查后再进行提交",
    Code.TOO_MANY: "请求超出最大 1000 个号码总数（针对批量提交查询）",
}

ANSWERS = frozenset({Code.SUCCESS, Code.WRONG_LENGTH, Code.NOT_A_MOBILE, Code.NOT_FOUND})
"""Codes that answer the question about a number; every other code refuses it."""

ACCOUNT_FAULTS = frozenset({Code.UNKNOWN_KEY, Code.LOW_BALANCE, Code.DISABLED})
"""Codes after which no call can succeed until the account is mended."""

_ERRORS: dict[int, type[CarrierError]] = {
    Code.BAD_PARAMETER: RequestRefused,
    Code.BAD_JSON: RequestRefused,
    Code.UNKNOWN_KEY: AccountFault,
    Code.LOW_BALANCE: AccountFault,
    Code.DISABLED: AccountFault,
    Code.USE_POST: ContractBreach,
    Code.TOO_MANY: ContractBreach,
    Code.SYSTEM_ERROR: TransientFault,
}


def refusal(code: int) -> CarrierError:
    """The error a whole answer with this code is.

    The provider's own text stays out of it: it may quote a number.
    """
    error = _ERRORS.get(code)
    if error is None:
        return AnswerLost(f"the provider answered code {code}, which does not belong here", code=code)
    return error(f"the provider refused with code {code}: {describe(code)}", code=code)


def describe(code: int) -> str:
    """The document's text for ``code``, or a note that it has none."""
    try:
        return Code(code).reason
    except ValueError:
        return "not in the provider's document"
