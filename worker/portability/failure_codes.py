"""Delivery-report codes of failed SMS, classed (``failure_codes.csv``).

What a failure means decides two things: whether porting can explain it, so that a look-up is worth its
price, and, when the number is still with the operator that failed, whether sending again can help.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources

from worker.errors import Rejected, SettingsError
from worker.portability import operators


class FailureClass(StrEnum):
    """Why an SMS failed."""

    __hash__ = str.__hash__  # Enum's is written in Python, and every sms is looked up by its class

    PORTED = "ported"
    """The network itself says the number moved."""
    ABSENT_SUBSCRIBER = "absent_subscriber"
    """空号: unknown at the HLR, which is also what the old network answers for a ported number."""
    NO_ROUTE = "no_route"
    """The channel does not serve this number."""
    BARRED = "barred"
    """停机: suspended, in arrears, service barred."""
    UNREACHABLE = "unreachable"
    """关机: off, no signal, memory full, expired."""
    NETWORK = "network"
    """The operator's or the gateway's own fault."""
    REFUSED = "refused"
    """Content, signature, blacklist, region or opt-out: porting cannot explain it."""
    THROTTLED = "throttled"
    """A rate or count limit: porting cannot explain it."""
    UNDETERMINED = "undetermined"
    """Anything else, no code included."""

    @property
    def permanent(self) -> bool:
        """Whether sending again on the same operator is in vain."""
        return self in _PERMANENT


_PERMANENT = frozenset({FailureClass.ABSENT_SUBSCRIBER, FailureClass.BARRED, FailureClass.REFUSED})
_CLASSES = {each.value: each for each in FailureClass}

NOT_ASKED = frozenset({FailureClass.REFUSED, FailureClass.THROTTLED})
"""The classes that no look-up is paid for, unless ``PRESEND_SMS_NOT_ASKED`` says otherwise."""

_SGIP = re.compile(r"^(?:SGIP:?|2:)(?=-?[0-9*])")
_NUMBER = re.compile(r"(-?)0*([0-9]+)")
_OF_OPERATOR = re.compile(r"(CMCC|CUCC|CTCC|CBN):(-?)0*([0-9]+)")
_SMGP = re.compile(r"(DELIVRD|EXPIRED|DELETED|UNDELIV|UNDELIVRD|ACCEPTD|UNKNOWN|REJECTD):?0*([0-9]+)")
_NAMED = re.compile(r"([A-Z]+)(?:([0-9]*):)?0*([0-9]+)")
_NAMED_PREFIX = re.compile(r"([A-Z]+)([0-9]+):?([0-9]*)")


def _spelled(code: str) -> str:
    """One case, one separator, no blanks, and SGIP (Unicom's protocol) named as the operator."""
    text = "".join(code.split()).upper().replace("_", ":").replace("：", ":")
    return _SGIP.sub("CUCC:", text)


@lru_cache(maxsize=4096)
def _keys(code: str, operator: str | None) -> tuple[str, ...]:
    """The table keys of a code, most specific first; ``operator`` says what a bare number means.

    Cached: a gateway writes few different ones.

    ``MK:0001``, ``MK0001`` and ``MK00001`` are MK:0001; ``SGIP:54``, ``2:54`` and a bare 54 from Unicom are
    CUCC:54; ``UNDELIV_601`` (SMGP, Telecom's protocol) is UNDELIV:601, else CTCC:601.
    """
    text = _spelled(code)
    if match := _NUMBER.fullmatch(text):
        return (f"{operator}:{match[1]}{match[2]}",) if operator else ()
    if match := _OF_OPERATOR.fullmatch(text):
        return (f"{match[1]}:{match[2]}{match[3]}",)
    if match := _SMGP.fullmatch(text):
        return f"{match[1]}:{match[2]}", f"CTCC:{match[2]}"
    if match := _NAMED.fullmatch(text):
        return (f"{match[1]}:{match[2] or ''}{match[3].zfill(4)}",)  # R1:0006 is also written R10006
    return (text,)


def _prefix_key(prefix: str, operator: str | None) -> str:
    """The beginning that the keys of all codes of a prefix row have in common."""
    text = _spelled(prefix + "*")[:-1]
    if operator and (not text or _NUMBER.fullmatch(text)):
        return f"{operator}:{text}"
    if match := _NAMED_PREFIX.fullmatch(text):
        return f"{match[1]}:{match[2]}{match[3]}"
    return text


@dataclass(frozen=True, slots=True)
class FailureCodes:
    """The table of codes: which class a delivery report's code belongs to."""

    # class of each single code, by its key
    exact: Mapping[str, FailureClass]
    # class of each prefix row, the longest prefix first
    prefixes: tuple[tuple[str, FailureClass], ...] = ()

    @classmethod
    def shipped(cls) -> FailureCodes:
        """The table presend ships; read from the package at every call, so call it once."""
        table = resources.files(__package__).joinpath("failure_codes.csv").read_text(encoding="utf-8")
        return cls({}).overridden_by(table, name="failure_codes.csv")

    def overridden_by(self, csv_text: str, *, name: str = "PRESEND_FAILURE_CODES") -> FailureCodes:
        """This table with the rows of a user's file added, or put in place of rows of the same code.

        Columns: code (a final * = all that begins so), operator (for bare numbers), class, and optionally
        note. Raises ``SettingsError`` naming the line of a bad row.
        """
        exact, prefixes = dict(self.exact), dict(self.prefixes)
        seen: dict[tuple[bool, str], int] = {}
        for line, row in _rows(csv_text, name):
            try:
                is_prefix, key, failure_class = _entry(row)
            except ValueError as error:
                raise SettingsError(f"{name}, line {line}: {error}") from error
            first = seen.setdefault((is_prefix, key), line)
            if first != line:
                raise SettingsError(f"{name}, line {line}: the same code as in line {first}")
            (prefixes if is_prefix else exact)[key] = failure_class
        longest_first = sorted(prefixes.items(), key=lambda item: (-len(item[0]), item[0]))
        return FailureCodes(exact, tuple(longest_first))

    def classify(self, failure_code: str | None, operator: str | None) -> FailureClass:
        """The class of a delivery report's code, ``operator`` being the code of the channel that failed.

        A single code's row goes before a prefix row, a longer prefix before a shorter one.
        """
        keys = _keys(failure_code, operator) if failure_code else ()
        for key in keys:
            if found := self.exact.get(key):
                return found
        for key in keys:
            for prefix, failure_class in self.prefixes:
                if key.startswith(prefix):
                    return failure_class
        return FailureClass.UNDETERMINED


def _rows(csv_text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows by column name, each with the line it ends on; blank lines are skipped."""
    reader = csv.DictReader(io.StringIO(csv_text.removeprefix("\ufeff")), strict=True)
    try:
        header = [column.strip().lower() for column in reader.fieldnames or ()]
        if missing := {"code", "operator", "class"} - set(header):
            raise SettingsError(
                f"{name}, line 1: no column {', '.join(sorted(missing))}; write code,operator,class,note"
            )
        reader.fieldnames = header
        for row in reader:
            yield (
                reader.line_num,
                {column: (row[column] or "").strip() for column in ("code", "operator", "class")},
            )
    except csv.Error as error:
        raise SettingsError(f"{name}, line {reader.reader.line_num}: {error}") from error


def _entry(row: Mapping[str, str]) -> tuple[bool, str, FailureClass]:
    """What one row says: whether it is a prefix, its key, its class; ValueError tells what is wrong."""
    code, named, class_name = row["code"], row["operator"], row["class"]
    failure_class = _CLASSES.get(class_name.lower())
    if failure_class is None:
        raise ValueError(f"class {class_name!r} is none of {', '.join(_CLASSES)}")
    try:
        operator = operators.parse(named) if named else None
    except Rejected as error:
        raise ValueError(error.reason) from error
    is_prefix = code.endswith("*")
    stem = code.removesuffix("*")
    if not code or "*" in stem:
        raise ValueError("code is empty" if not code else "* may only stand at the end of a code")
    is_number = bool(_NUMBER.fullmatch(_spelled(stem))) or (is_prefix and not stem and operator is not None)
    if is_number and operator is None:
        raise ValueError(f"a bare number needs the operator that gives it out: {code}")
    if operator and not is_number:
        raise ValueError(f"only a bare number belongs to an operator: {code}")
    if is_prefix:
        return True, _prefix_key(stem, operator), failure_class
    return False, _keys(code, operator)[0], failure_class
