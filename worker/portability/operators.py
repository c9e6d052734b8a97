"""The operators, and every name they go by.

Tables and events carry the codes; Chinese names come in from messages and the provider's wire,
and go out to the console and the sandbox's wire.
"""

from __future__ import annotations

from enum import StrEnum

from worker.errors import Rejected


class Operator(StrEnum):
    """A network operator of mainland China, by the code presend stores."""

    CMCC = "CMCC"
    """移动, 中国移动."""
    CUCC = "CUCC"
    """联通, 中国联通."""
    CTCC = "CTCC"
    """电信, 中国电信."""
    CBN = "CBN"
    """广电, 中国广电."""

    @property
    def short_name(self) -> str:
        """The name the provider writes, e.g. 移动."""
        return _SHORT_NAMES[self]

    @property
    def full_name(self) -> str:
        """E.g. 中国移动."""
        return f"中国{_SHORT_NAMES[self]}"


# plain strings throughout: rows and events carry the code, not the enum
_SHORT_NAMES = {
    Operator.CMCC.value: "移动",
    Operator.CUCC.value: "联通",
    Operator.CTCC.value: "电信",
    Operator.CBN.value: "广电",
}
_CODES = {
    name: code for code, short in _SHORT_NAMES.items() for name in (code, code.lower(), short, f"中国{short}")
}


def parse(name: object) -> str:
    """The code of the operator a message names: by code in any case, short name or full name.

    Raises ``Rejected`` for any other name. The reason does not repeat it: a shifted column
    puts a mobile number there.
    """
    if isinstance(name, str):
        code = _CODES.get(name) or _CODES.get(name.strip().upper())
        if code:
            return code
    raise Rejected("operator must be one of CMCC 移动, CUCC 联通, CTCC 电信, CBN 广电")


def of_label(label: str | None) -> str | None:
    """The code of a provider's label; an unknown label as it came, a blank one as None."""
    if not label:
        return None
    return _CODES.get(label) or _CODES.get(label.strip()) or label


def label_of(code: str | None) -> str:
    """The short Chinese name of a code; an unknown label as it came, None as the empty text."""
    if code is None:
        return ""
    return _SHORT_NAMES.get(code, code)
