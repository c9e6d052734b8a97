"""Traffic of every kind, each item with what must become of it.

Every item carries its own ``x_tag``, which presend ignores and a dead letter keeps. The numbers are dealt
out so that the bill is exact: ``common`` numbers may be shared by any requests whose records may answer
each other, whatever comes first; a number whose request must be asked for in any case is that key's alone.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.acceptance.oracle import FAILURES, NOT_ASKED, PORTED, Expected, expected
from worker.sandbox.subscribers import subscriber

SPELLINGS = {
    "CMCC": ["CMCC", "cmcc", "Cmcc", "移动", "中国移动"],
    "CUCC": ["CUCC", "cucc", "cuCC", "联通", "中国联通"],
    "CTCC": ["CTCC", "ctcc", "Ctcc", "电信", "中国电信"],
    "CBN": ["CBN", "cbn", "Cbn", "广电", "中国广电"],
}
LONG_AGO = "2026-01-01T08:00:00+08:00"
NO_MOBILE_NUMBERS = [
    "1380013800",
    "138001380000",
    "12345678901",
    "+86 12345678901",
    "0000",
    "-8-6-",
    "8613800",
]
BAD_MOBILES: list[Any] = [
    None,
    13800138000,
    "",
    "   ",
    "1380013800a",
    "１３８００１３８０００",
    ["13800138000"],
    "+1 3800138000",
    "13800138000\n",
]
BAD_REFERENCES: list[Any] = ["", "a b", "单号1", "x" * 129, 17, None, "a/b", "ok\n"]


class Key(NamedTuple):
    """A request's identity."""

    lane: str
    source: str
    reference: str
    attempt: int


@dataclass
class Item:
    """One item to send."""

    lane: str
    arguments: dict[str, Any]
    # why it has to be a dead letter; None: it is decided
    rejected: str | None = None

    @property
    def tag(self) -> str:
        return str(self.arguments["x_tag"])


@dataclass
class Message:
    """One message: an item, or many."""

    task: str
    arguments: dict[str, Any]
    items: list[Item]
    # a message that is one dead letter as a whole
    whole: str | None = None


@dataclass
class Traffic:
    """What is sent, and all that must be true in the end."""

    messages: list[Message] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    # what each key may be decided as; conflicting items leave it open which comes first
    expected: dict[Key, list[tuple[str | None, Expected]]] = field(default_factory=lambda: defaultdict(list))
    # how often each key is sent under each of its numbers and operators
    conflicts: set[Key] = field(default_factory=set)
    # the numbers that must be billed, each once
    to_be_billed: set[str] = field(default_factory=set)

    @property
    def letters(self) -> int:
        """Dead letters there must be, conflicts included."""
        return (
            sum(item.rejected is not None for item in self.items)
            + sum(message.whole is not None for message in self.messages)
            + len(self.conflicts)
        )


class Numbers:
    """Numbers by status, none given out twice."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._seen: set[str] = set()
        self._found: dict[str, list[str]] = defaultdict(list)

    def take(self, *statuses: str) -> str:
        """A new number of one of these statuses, a random one."""
        status = self._chance.choice(statuses)
        while not self._found[status]:
            self._find()
        return self._found[status].pop()

    def _find(self) -> None:
        prefix = self._chance.choice(
            ["13", "13", "15", "18", "18", "19", "17", "170", "171", "162", "165", "167", "140"]
        )
        number = prefix + "".join(self._chance.choices("0123456789", k=11 - len(prefix)))
        if number not in self._seen:
            self._seen.add(number)
            self._found[subscriber(number).status.value].append(number)


class _Maker:
    """Makes a traffic; the same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = Numbers(self.chance)
        self.traffic = Traffic()
        self._tags = itertools.count(1)
        self._references = itertools.count(1)

    # -- one item of each kind ----------------------------------------------------------------

    def common(self, number: str) -> Item:
        """A request that any record made since the beginning may answer."""
        if self.chance.random() < 0.5:
            return self._decided("recharge", number, self._operator(or_none=True))
        code, operator, failure_class = self.chance.choice(FAILURES)
        return self._decided(
            "sms",
            number,
            operator or self._operator(),
            failure_class=failure_class,
            failure_code=code,
            failed_at=LONG_AGO,
            attempt=self.chance.choice([1, 1, 1, 2, 3, 4, 7]),
        )

    def alone(self) -> Item:
        """A request that must be asked for, whatever is stored: its number is nobody else's."""
        number = self.numbers.take("not_ported", "ported", "virtual", "unknown", "invalid")
        kind = self.chance.choice(["second try", "just failed", "says ported"])
        if kind == "second try":
            return self._decided(
                "recharge", number, self._operator(or_none=True), attempt=self.chance.choice([2, 9])
            )
        if kind == "just failed":
            return self._decided("sms", number, self._operator())
        return self._decided("sms", number, self._operator(), failure_code=PORTED, failure_class="ported")

    def not_asked(self) -> Item:
        """A failure that porting cannot explain; its number is nobody else's and must never be billed."""
        code, operator, failure_class = self.chance.choice(NOT_ASKED)
        number = self.numbers.take("not_ported", "ported", "virtual", "unknown", "invalid")
        return self._decided(
            "sms", number, operator or self._operator(), failure_code=code, failure_class=failure_class
        )

    def no_number(self) -> Item:
        """Digits that cannot be a mobile number: decided unasked."""
        lane = self.chance.choice(["recharge", "sms"])
        return self._decided(lane, None, self._operator(), written=self.chance.choice(NO_MOBILE_NUMBERS))

    def again(self, item: Item) -> Item:
        """The same request again, written in another way."""
        arguments = dict(item.arguments) | {"x_tag": self._tag()}
        digits = "".join(filter(str.isdigit, arguments["mobile"]))
        if len(digits) >= 11 and digits[-11] == "1" and digits[-10] != "2":
            arguments["mobile"] = self._written(digits[-11:])
        for names in SPELLINGS.values():
            if arguments.get("operator") in names:
                arguments["operator"] = self.chance.choice(names)
                break
        return self._add(Item(item.lane, arguments))

    def conflict(self, item: Item, number: str) -> Item:
        """The same key with another number, which others ask for as well, or another operator."""
        arguments = dict(item.arguments) | {"x_tag": self._tag()}
        lane = item.lane
        key, (msisdn, _) = _key(item), self._asked(item)
        operator = self._operator_of(arguments)
        if self.chance.random() < 0.5:
            msisdn = number
            arguments["mobile"] = self._written(number)
        else:
            operator = self.chance.choice([code for code in SPELLINGS if code != operator])
            arguments["operator"] = self.chance.choice(SPELLINGS[operator])
        failure_class = _class_of(arguments.get("failure_code"), operator)
        self.traffic.conflicts.add(key)
        self.traffic.expected[key].append(
            (operator, expected(lane, msisdn, operator, failure_class=failure_class, attempt=key.attempt))
        )
        return self._add(Item(lane, arguments))

    def bad(self) -> Item:
        """An item that cannot be taken."""
        lane = self.chance.choice(["recharge", "sms"])
        number = self.numbers.take("not_ported")
        arguments = self._arguments(lane, self._written(number), self._operator())
        name, value, words = self.chance.choice(
            [
                *(("mobile", bad, "mobile") for bad in BAD_MOBILES),
                *((_reference_name(lane), bad, _reference_name(lane)) for bad in BAD_REFERENCES),
                ("colour", "red", "unknown argument 'colour'"),
                ("Mobile", "13800138000", "unknown argument"),
                ("failed_on", LONG_AGO, "unknown argument"),
                ("operator", "13800138000", "operator"),
                ("operator", "Vodafone", "operator"),
                ("operator", "", "operator"),
                ("attempt", 0, "attempt"),
                ("attempt", "2", "attempt"),
                ("attempt", True, "attempt"),
                ("attempt", 1.5, "attempt"),
                ("source", "a b", "source"),
                ("source", 5, "source"),
                (_reference_name("sms" if lane == "recharge" else "recharge"), "R1", "unknown argument"),
            ]
        )
        arguments[name] = value
        return self._add(Item(lane, arguments, rejected=words))

    def incomplete(self) -> Item:
        """An item that lacks an argument."""
        lane = self.chance.choice(["recharge", "sms"])
        arguments = self._arguments(lane, self.numbers.take("not_ported"), self._operator())
        missing = self.chance.choice(
            ["mobile", _reference_name(lane), *(["operator"] if lane == "sms" else [])]
        )
        del arguments[missing]
        return self._add(Item(lane, arguments, rejected=missing))

    # -- messages -----------------------------------------------------------------------------

    def pack(self, share_in_many: float) -> None:
        """Shuffle all items into single messages and ``*_many`` of very different sizes."""
        items = list(self.traffic.items)
        self.chance.shuffle(items)
        for lane, single, many in (
            ("recharge", "recharge.precheck", "recharge.precheck_many"),
            ("sms", "sms.recheck", "sms.recheck_many"),
        ):
            of_lane = [item for item in items if item.lane == lane]
            cut = int(len(of_lane) * share_in_many)
            for group in self._groups(of_lane[:cut]):
                self._message(many, {"items": [item.arguments for item in group]}, group)
            for item in of_lane[cut:]:
                self._message(single, item.arguments, [item])
        for task in ("recharge.precheck_many", "sms.recheck_many"):
            number = self.numbers.take("not_ported")
            item = {"order_id": "too-many", "mobile": number}
            self._message(task, {"items": [item] * 1001, "x_tag": self._tag()}, [], whole="1001")
            self._message(task, {"items": {"order_id": "1"}, "x_tag": self._tag()}, [], whole="items must be")
            self._message(task, {"x_tag": self._tag()}, [], whole="items must be")
            self._message(task, {"items": [], "more": 1, "x_tag": self._tag()}, [], whole="unknown argument")
            self._message(task, {"items": []}, [])
        self.chance.shuffle(self.traffic.messages)

    def _groups(self, items: list[Item]) -> Iterator[list[Item]]:
        while items:
            size = self.chance.choice([1, 2, 30, 200, 1000])
            yield items[:size]
            items = items[size:]

    def _message(
        self, task: str, arguments: dict[str, Any], items: list[Item], whole: str | None = None
    ) -> None:
        self.traffic.messages.append(Message(task, arguments, items, whole))

    # -- parts --------------------------------------------------------------------------------

    def _decided(
        self,
        lane: str,
        number: str | None,
        operator: str | None,
        *,
        failure_class: str = "none",
        written: str | None = None,
        **more: Any,
    ) -> Item:
        arguments = self._arguments(lane, written or self._written(number or ""), operator)
        arguments |= {
            name: value for name, value in more.items() if value is not None or self.chance.random() < 0.5
        }
        item = self._add(Item(lane, arguments))
        answer = expected(lane, number, operator, failure_class=failure_class, attempt=more.get("attempt", 1))
        self.traffic.expected[_key(item)].append((operator, answer))
        if number is not None and not answer.by_rule and answer.status != "invalid":
            self.traffic.to_be_billed.add(number)
        return item

    def _arguments(self, lane: str, written: str, operator: str | None) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            _reference_name(lane): f"R.{next(self._references) // 2}:{lane[0]}_-",
            "mobile": written,
            "x_tag": self._tag(),
        }
        # two numbers in a row share a reference: the source tells them apart
        arguments["source"] = f"shop{next(self._references) % 2}{next(self._references)}"
        if operator is not None:
            arguments["operator"] = self.chance.choice(SPELLINGS[operator])
        elif self.chance.random() < 0.5:
            arguments["operator"] = None
        if self.chance.random() < 0.2:
            arguments["x_note"] = {"any": ["thing", 1]}
        return arguments

    def _add(self, item: Item) -> Item:
        self.traffic.items.append(item)
        return item

    def _tag(self) -> str:
        return f"tag{next(self._tags)}"

    def _operator(self, *, or_none: bool = False) -> Any:
        return self.chance.choice([*SPELLINGS, None] if or_none else list(SPELLINGS))

    def _written(self, number: str) -> str:
        return self.chance.choice(
            [
                number,
                number,
                f"+86{number}",
                f"0086{number}",
                f"86{number}",
                f"+86 {number[:3]} {number[3:7]} {number[7:]}",
                f"{number[:3]}-{number[3:7]}-{number[7:]}",
                f" 0086-{number} ",
            ]
        )

    def _operator_of(self, arguments: dict[str, Any]) -> str | None:
        name = arguments.get("operator")
        return next((code for code, names in SPELLINGS.items() if name in names), None)

    def _asked(self, item: Item) -> tuple[str, str | None]:
        digits = "".join(filter(str.isdigit, item.arguments["mobile"]))
        return digits[-11:], self._operator_of(item.arguments)


def mixed(seed: int, *, items: int) -> Traffic:
    """About so many items of every kind."""
    maker = _Maker(seed)
    shared = [
        maker.numbers.take("not_ported", "not_ported", "ported", "virtual", "invalid")
        for _ in range(items // 8)
    ]
    decided = [maker.common(maker.chance.choice(shared)) for _ in range(items * 48 // 100)]
    may_conflict = [item for item in decided if item.lane == "recharge"]
    decided += [maker.alone() for _ in range(items * 15 // 100)]
    decided += [maker.not_asked() for _ in range(items * 6 // 100)]
    decided += [maker.no_number() for _ in range(items * 4 // 100)]
    conflicting = maker.chance.sample(may_conflict, items * 3 // 100)
    for item in conflicting:
        maker.conflict(item, maker.chance.choice([n for n in shared[:50] if n != maker._asked(item)[0]]))
    unopposed = [item for item in decided if _key(item) not in maker.traffic.conflicts]
    for _ in range(items * 15 // 100):
        maker.again(maker.chance.choice(unopposed))
    for _ in range(items * 7 // 100):
        maker.bad()
    for _ in range(items * 2 // 100):
        maker.incomplete()
    # conflicting requests lose without being asked for, or win: their numbers are asked for by others too
    for number in {*shared[:50], *(maker._asked(item)[0] for item in conflicting)}:
        if subscriber(number).status.value != "invalid":
            maker._decided("recharge", number, None)
    maker.pack(0.45)
    return maker.traffic


def key_of(item: Item) -> Key:
    """The key an item that can be read has."""
    return _key(item)


def _key(item: Item) -> Key:
    arguments = item.arguments
    return Key(
        item.lane,
        arguments.get("source", ""),
        arguments[_reference_name(item.lane)],
        arguments.get("attempt", 1),
    )


def _reference_name(lane: str) -> str:
    return "order_id" if lane == "recharge" else "message_id"


def _class_of(code: str | None, operator: str | None) -> str:
    for known, of_operator, failure_class in [*FAILURES, *NOT_ASKED]:
        if known == code and of_operator in {None, operator}:
            return failure_class
    return "none"
