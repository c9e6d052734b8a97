"""How a mobile number is written, normalised and masked.

Number ranges are newer than any library, so a well-formed number is always asked: the
provider's -3 decides what exists. Only the shape is judged here.
"""

from __future__ import annotations

import re
import unicodedata

from worker.errors import Rejected
from worker.portability.json_kinds import kind

_COMMON = re.compile(r"(?:\+86|0086|86)?(1[3-9][0-9]{9})").fullmatch
_WRITTEN = re.compile(r"(?:\+86)?[0-9]*").fullmatch
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_TAKE_OFF_SEPARATORS = str.maketrans("", "", " -")

# A UUID goes first and stays readable: its digits pass for a number about once in 2,000 batch ids. So does a
# longer run of digits, which is some order's id. Groups of 3-4-4 count as a number: 138 1234 5678.
_IN_TEXT = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
    r"|(?<![0-9])((?:\+?86|0086|0)?[ -]?)(1[3-9][0-9])(?:[ -]?[0-9]{4}[ -]?|\.[0-9]{4}\.)([0-9]{4})(?![0-9])"
)


_MAY_HOLD_ONE = re.compile("1[3-9][0-9][ .-]?[0-9]{4}").search
"""Found in no time where there is none, as in most of what is shown."""


def normalise(mobile: object) -> str | None:
    """The 11 national digits of a message's ``mobile``, or None: no mobile number, decided unasked.

    +86, 0086, 86, spaces and dashes are taken off. Raises ``Rejected`` for what is not a
    string, is empty, or holds other characters; the reason never repeats the number.
    """
    if not isinstance(mobile, str):
        send = "send its digits in quotes"
        if isinstance(mobile, list):
            send = "send one number in quotes; several are the items of a *_many task"
        raise Rejected(f"mobile is not a string but {kind(mobile)}: {send}")
    if match := _COMMON(mobile):
        return match[1]
    digits = mobile.translate(_TAKE_OFF_SEPARATORS)
    if not digits:
        raise Rejected("mobile is empty: send the 11 digits of the number")
    if not _WRITTEN(digits):
        raise Rejected(
            "mobile holds other characters than digits, spaces, dashes and a leading +86: leave them out"
        )
    match = _COMMON(digits)
    return match[1] if match else None


def mask(text: str) -> str:
    """One msisdn as people may see it, 138****5678; anything of another length is hidden whole."""
    return f"{text[:3]}****{text[7:]}" if len(text) == 11 else "****"


def mask_all(text: str) -> str:
    """``text`` with every mobile number in it masked, also behind +86, 0086, 86 or 0 and grouped 3-4-4.

    Digits of other scripts become ours first.
    """
    text = with_our_digits(text)
    return _IN_TEXT.sub(_masked, text) if _MAY_HOLD_ONE(text) else text


def with_our_digits(text: str) -> str:
    """``text`` with the digits of every script, full-width ones among them, written 0 to 9."""
    if text.isascii():
        return text
    return _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)


def _masked(match: re.Match[str]) -> str:
    is_uuid = match[2] is None
    return match[0] if is_uuid else f"{match[1]}{match[2]}****{match[3]}"
