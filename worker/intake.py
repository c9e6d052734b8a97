"""Step 1: a queue message becomes check requests, or is rejected with a reason.

The arguments of the four tasks are read strictly: an unknown name, a wrong type or a strange character is
a dead letter, never a guess. A bad item of a ``*_many`` message is rejected alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from worker.carrier.protocol import MAX_BATCH
from worker.errors import Rejected
from worker.portability import msisdn, operators
from worker.portability.json_kinds import kind
from worker.portability.requests import CheckRequest, Lane

_REFERENCE = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_SHANGHAI = ZoneInfo("Asia/Shanghai")
_LARGEST_ATTEMPT = 1_000_000
_LONGEST_FAILURE_CODE = 64
_CLOCKS_DIFFER = timedelta(minutes=5)
"""So far a producer's clock may be ahead of ours."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """One item of a message: the request it became, or why it was rejected."""

    # the arguments as they came, for the dead letter
    arguments: Any
    request: CheckRequest | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """Reads messages of one lane."""

    lane: Lane
    # from receipt to ``expired``; None: only the message's own expires counts
    expiry: timedelta | None = None

    @property
    def argument_names(self) -> dict[str, bool]:
        """The names of an item's arguments, and whether each must be there."""
        return {name: argument.required for name, argument in ARGUMENTS[self.lane].items()}

    def take_one(
        self, arguments: Mapping[str, Any], *, now: datetime, expires: datetime | None = None
    ) -> Taken:
        """Read the arguments of ``recharge.precheck`` or ``sms.recheck``."""
        return self._taken(arguments, now, expires)

    def take_many(
        self, arguments: Mapping[str, Any], *, now: datetime, expires: datetime | None = None
    ) -> list[Taken]:
        """Read the items of a ``*_many`` task; ``Rejected`` where the whole message cannot be taken."""
        for name in arguments:
            if name != "items" and not name.startswith("x_"):
                raise Rejected(f"unknown argument {_shown(name)}: a *_many task takes items only")
        items = arguments.get("items")
        if not isinstance(items, list):
            raise Rejected("items must be a list of objects, each with the arguments of one request")
        if len(items) > MAX_BATCH:
            raise Rejected(f"{len(items)} items: a message carries at most {MAX_BATCH}, split it")
        requests = self._alike(items, now, expires)
        if requests is not None:
            return list(map(Taken, items, requests))
        return [self._taken(item, now, expires) for item in items]

    def _taken(self, arguments: Any, now: datetime, expires: datetime | None) -> Taken:
        try:
            if not isinstance(arguments, dict):
                raise Rejected("an item must be an object with the task's arguments")  # noqa: TRY301
            return Taken(arguments, request=self._request(arguments, now, expires))
        except Rejected as exc:
            return Taken(arguments, reason=exc.reason)

    def _alike(
        self, items: Sequence[Any], now: datetime, expires: datetime | None
    ) -> Iterable[CheckRequest] | None:
        """Read items that have the same arguments, argument by argument, in a fifth of the time.

        None where one has others, or is to be rejected: read alone, it says why.
        """
        kinds = set(map(tuple, items)) if set(map(type, items)) == {dict} else set()
        if len(kinds) != 1:
            return None
        (names,), arguments = kinds, ARGUMENTS[self.lane]
        if not REQUIRED[self.lane] <= set(names) <= arguments.keys():
            return None
        fields: dict[str, Iterable[Any]] = {
            "lane": repeat(self.lane),
            "received_at": repeat(now),
            "expires_at": repeat(self._expires_at(now, expires)),
        }
        try:
            for name, values in zip(names, zip(*map(dict.values, items), strict=True), strict=True):
                fields[arguments[name].field] = arguments[name].read_all(name, values)
        except Rejected:
            return None
        if any(map(partial(_in_future, now=now), fields.get("failed_at", ()))):
            return None
        return map(CheckRequest, *(fields.get(name, repeat(value)) for name, value in _DEFAULTS.items()))

    def _request(self, arguments: Mapping[str, Any], now: datetime, expires: datetime | None) -> CheckRequest:
        readers = ARGUMENTS[self.lane]
        fields: dict[str, Any] = {}
        for name, value in arguments.items():
            reader = readers.get(name)
            if reader is not None:
                fields[reader.field] = reader.read(name, value)
            elif not name.startswith("x_"):
                raise Rejected(
                    f"unknown argument {_shown(name)}: {self.lane} takes {', '.join(readers)}, "
                    "and names starting with x_, which are ignored"
                )
        if not arguments.keys() >= REQUIRED[self.lane]:
            needed = [each for each, argument in readers.items() if argument.required]
            missing = next(each for each in needed if each not in arguments)
            raise Rejected(f"argument {missing} is missing: {self.lane} needs {', '.join(needed)}")
        if _in_future(fields.get("failed_at"), now=now):
            raise Rejected(
                "failed_at is more than 5 minutes later than its receipt: check the producer's clock, and "
                "the offset it writes (+08:00 in China; Z means UTC)"
            )
        return CheckRequest(
            lane=self.lane, received_at=now, expires_at=self._expires_at(now, expires), **fields
        )

    def _expires_at(self, now: datetime, expires: datetime | None) -> datetime | None:
        if self.expiry is None:
            return expires
        own = now + self.expiry
        return own if expires is None else min(own, expires)


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument of a task is read."""

    field: str
    read: Callable[[str, Any], Any]
    required: bool = False
    # of strings that are taken as they are, each with a line break behind it
    plain: re.Pattern[str] | None = None

    def read_all(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        """Read this argument of many items; ``Rejected`` where one cannot be taken."""
        if set(map(type, values)) != {str}:  # what is equal may differ: 1 and True
            return [self.read(name, value) for value in values]
        if self.plain is not None:
            lines = "\n".join(values) + "\n"
            if lines.count("\n") == len(values) and self.plain.fullmatch(lines):
                return values
        read = {value: self.read(name, value) for value in set(values)}
        return [read[value] for value in values]


def _in_future(moment: datetime | None, *, now: datetime) -> bool:
    """Whether it is so far ahead that no two clocks differ by as much."""
    return moment is not None and moment > now + _CLOCKS_DIFFER


def _reference(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise Rejected(f"{name} must be a string of 1 to 128 of A-Z a-z 0-9 . _ : -{_but_not(value)}")
    return value


def _source(name: str, value: Any) -> str:
    return "" if value == "" else _reference(name, value)


def _mobile(_name: str, value: Any) -> str | None:
    return msisdn.normalise(value)


def _operator(_name: str, value: Any) -> str:
    return operators.parse(value)


def _optional_operator(_name: str, value: Any) -> str | None:
    return None if value is None else operators.parse(value)


def _attempt(name: str, value: Any) -> int:
    if type(value) is int and 1 <= value <= _LARGEST_ATTEMPT:
        return value
    found = {int: "", float: ", not one with a decimal point", str: ", not a string"}
    raise Rejected(
        f"{name} must be a whole number from 1 to {_LARGEST_ATTEMPT}"
        f"{found.get(type(value), f', not {kind(value)}')}: send 2 for the second try, without quotes, "
        "or leave it out for the first"
    )


def _failure_code(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_FAILURE_CODE or not value.isprintable():
        form = f"a string of at most {_LONGEST_FAILURE_CODE} printable characters"
        raise Rejected(f"{name} must be {form}{_but_not(value)}")
    return value or None


def _moment(name: str, value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = msgspec.convert(value, datetime)
    except (msgspec.ValidationError, TypeError, OverflowError):
        raise Rejected(
            f"{name} must be an RFC 3339 time such as 2026-11-24T09:30:00+08:00{_but_not(value)}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=_SHANGHAI)


_DEFAULTS = dict.fromkeys(CheckRequest.__struct_fields__) | dict(
    zip(reversed(CheckRequest.__struct_fields__), reversed(CheckRequest.__struct_defaults__), strict=False)
)
_PLAIN_REFERENCES = re.compile(r"(?:[A-Za-z0-9_.:-]{1,128}\n)*", re.ASCII)
_PLAIN_NUMBERS = re.compile(r"(?:1[3-9][0-9]{9}\n)*")

_COMMON = {
    "mobile": Argument("msisdn", _mobile, required=True, plain=_PLAIN_NUMBERS),
    "attempt": Argument("attempt", _attempt),
    "source": Argument("source", _source),
}
ARGUMENTS: dict[Lane, dict[str, Argument]] = {
    Lane.RECHARGE: {
        "order_id": Argument("reference", _reference, required=True, plain=_PLAIN_REFERENCES),
        **_COMMON,
        "operator": Argument("operator", _optional_operator),
    },
    Lane.SMS: {
        "message_id": Argument("reference", _reference, required=True, plain=_PLAIN_REFERENCES),
        **_COMMON,
        "operator": Argument("operator", _operator, required=True),
        "failure_code": Argument("failure_code", _failure_code),
        "failed_at": Argument("failed_at", _moment),
    },
}
REQUIRED = {
    lane: frozenset(name for name, argument in its.items() if argument.required)
    for lane, its in ARGUMENTS.items()
}


def _but_not(value: Any) -> str:
    """The end of a reason that asks for a string: what came instead, if that is another kind of value."""
    return "" if isinstance(value, str) else f", not {kind(value)}"


def _shown(name: str) -> str:
    """A name out of a message, made safe and short for a reason text."""
    return repr(msisdn.mask_all(name)[:40])
