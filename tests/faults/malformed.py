"""Messages that no task can take, of every kind, the same for the same seed.

Each carries a mark of its own, so that its dead letter can be told from all others, and a mobile number of
its own wherever one fits, which may be in no log.
"""

from __future__ import annotations

import base64
import json
import pickle
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

_TASKS = {"recharge": ("recharge.precheck", "order_id"), "sms": ("sms.recheck", "message_id")}
_JSON = "application/json"


@dataclass(frozen=True)
class Malformed:
    """One message, and what its dead letter must say."""

    kind: str
    lane: str
    body: bytes
    # in the reason: what is wrong, and what to do
    says: str
    # in the dead letter's payload; "": nothing in it is the message's own
    mark: str = ""
    content_type: str = _JSON
    headers: dict[str, Any] = field(default_factory=dict)
    # the good items of a message that is bad in part
    good: tuple[str, ...] = ()
    # an element of the Redis list, not a message
    bare: bool = False


class Dealer:
    """Deals out malformed messages. ``numbers`` are all that were put into them."""

    def __init__(self, seed: int, *, good: Iterator[str], with_bare_elements: bool) -> None:
        self.chance = random.Random(seed)
        self.numbers: list[str] = []
        self._seed, self._good = seed, good
        self._serial = count(1)
        self._kinds = cycle([*_KINDS, *(_BARE if with_bare_elements else ())])

    def deal(self, messages: int) -> list[Malformed]:
        """So many messages, kind by kind."""
        return [self._of(next(self._kinds)) for _ in range(messages)]

    def _of(self, kind: Kind) -> Malformed:
        return kind(_Maker(self, kind.__name__.strip("_").replace("_", " ")))

    def mark(self) -> str:
        return f"bad{self._seed}-{next(self._serial):04}"

    def number(self) -> str:
        """One that nothing else has, as a producer may write it."""
        number = f"1{self.chance.randint(3, 9)}{self.chance.randrange(10**9):09}"
        self.numbers.append(number)
        return self.chance.choice((number, f"+86{number}", f"+86 {number[:3]} {number[3:7]} {number[7:]}"))

    def good_number(self) -> str:
        number = next(self._good)
        self.numbers.append(number)
        return number


class _Maker:
    """Makes one message."""

    def __init__(self, dealer: Dealer, kind: str) -> None:
        self.dealer, self.kind = dealer, kind
        self.chance = dealer.chance
        self.lane = self.chance.choice(list(_TASKS))
        self.task, self.reference = _TASKS[self.lane]
        self.mark = dealer.mark()

    def arguments(self, **changed: Any) -> dict[str, Any]:
        """A good message's, but for what is changed; None takes one out."""
        good = {
            self.reference: self.mark,
            "mobile": self.dealer.number(),
            "operator": "CMCC",
            "x_mark": self.mark,
        }
        return {name: value for name, value in (good | changed).items() if value is not _LEFT_OUT}

    def message(self, arguments: Any, says: str, *, many: bool = False, **more: Any) -> Malformed:
        """In the documented form."""
        return self.raw(json.dumps([[], arguments, {}]).encode(), says, many=many, **more)

    def raw(self, body: bytes, says: str, *, many: bool = False, **more: Any) -> Malformed:
        headers = {"task": self.task + "_many" * many, "id": self.mark, "lang": "py"}
        return Malformed(
            **{
                "kind": self.kind,
                "lane": self.lane,
                "body": body,
                "says": says,
                "mark": self.mark,
                "headers": headers | more.pop("also", {}),
                **more,
            }
        )


Kind = Callable[[_Maker], Malformed]
_LEFT_OUT = object()

# -- what Celery cannot take --------------------------------------------------------------------


def _pickle(make: _Maker) -> Malformed:
    body = pickle.dumps([[], make.arguments(), {}])
    return make.raw(body, "send application/json", content_type="application/x-python-serialize")


def _other_content_type(make: _Maker) -> Malformed:
    other = make.chance.choice(("text/plain", "application/xml", "application/x-yaml", "application/data"))
    return make.raw(
        json.dumps([[], make.arguments(), {}]).encode(), "send application/json", content_type=other
    )


def _undecodable_bytes(make: _Maker) -> Malformed:
    noise = make.chance.randbytes(make.chance.randint(1, 200))
    return make.raw(
        b"\xff\xfe" + make.mark.encode() + noise + make.dealer.number().encode(), "not valid JSON"
    )


def _other_encoding(make: _Maker) -> Malformed:
    body = json.dumps([[], make.arguments(), {}]).encode("utf-16")
    return make.raw(body, "not valid JSON in UTF-8", mark=make.mark)


def _half_of_it(make: _Maker) -> Malformed:
    body = json.dumps([[], make.arguments(x_rest="…"), {}]).encode()
    return make.raw(body[: -make.chance.randint(2, 10)], "not valid JSON")


def _empty_body(make: _Maker) -> Malformed:
    return make.raw(b"", "not valid JSON", mark="")


def _raw_nul(make: _Maker) -> Malformed:
    body = json.dumps([[], make.arguments(), {}]).encode().replace(b"CMCC", b"CM\x00CC")
    return make.raw(body, "not valid JSON")


def _lone_surrogate(make: _Maker) -> Malformed:
    body = json.dumps([[], make.arguments(operator="@"), {}]).replace('"@"', '"\\ud83d"')
    return make.raw(body.encode(), "not valid JSON")


def _no_json_number(make: _Maker) -> Malformed:
    wrong = make.chance.choice(("NaN", "Infinity", "0x10", "01", "1e999"))
    body = json.dumps([[], make.arguments(attempt="@"), {}]).replace('"@"', wrong)
    return make.raw(body.encode(), "not valid JSON")


def _nested_too_deep(make: _Maker) -> Malformed:
    deep = b"[" * make.chance.choice((2_000, 50_000, 100_000))
    return make.raw(b'["' + make.mark.encode() + b'",' + deep, "not valid JSON")


def _bomb(make: _Maker) -> Malformed:
    body = zlib.compress(b" " * 64_000_000 + json.dumps([[], make.arguments(), {}]).encode(), 1)
    return make.raw(
        body,
        "the body cannot be unfolded: send it uncompressed",
        mark="",
        also={"compression": "application/x-gzip"},
    )


def _unknown_task(make: _Maker) -> Malformed:
    task = make.chance.choice(
        ("sms.send", "recharge.precheck.many", "tasks.add", "短信", make.dealer.number())
    )
    return make.message(make.arguments(), "presend takes recharge.precheck,", also={"task": task})


def _no_headers(make: _Maker) -> Malformed:
    return make.message(make.arguments(), "has no header task", headers={})


def _protocol_1(make: _Maker) -> Malformed:
    body = {"task": make.task, "id": make.mark, "args": [], "kwargs": make.arguments()}
    return make.raw(json.dumps(body).encode(), "task_protocol = 2", headers={})


def _another_form(make: _Maker) -> Malformed:
    arguments = make.arguments()
    body = make.chance.choice((arguments, [arguments], [[], [], arguments], [{}, arguments, {}], make.mark))
    return make.raw(json.dumps(body).encode(), "not [args, kwargs, embed]")


def _by_position(make: _Maker) -> Malformed:
    body = [[make.mark, make.dealer.number(), "CMCC"], {}, {}]
    return make.raw(json.dumps(body).encode(), "by name, not by position")


def _eta_or_countdown(make: _Maker) -> Malformed:
    return make.message(make.arguments(), "send the message when it is due", also={"eta": "2030-01-01T00:00"})


def _expires_is_no_time(make: _Maker) -> Malformed:
    wrong = make.chance.choice(("soon", 5, "24/11/2026", [], True))
    return make.message(make.arguments(), "not an ISO 8601 time such as", also={"expires": wrong})


# -- what presend cannot take ---------------------------------------------------------------------


def _number_as_integer(make: _Maker) -> Malformed:
    number = make.chance.choice((int, float))(make.dealer.number().replace("+86", "").replace(" ", ""))
    return make.message(
        make.arguments(mobile=number), "mobile is not a string but a number: send its digits in quotes"
    )


def _mobile_of_another_type(make: _Maker) -> Malformed:
    value = make.chance.choice(([make.dealer.number()], {"mobile": make.dealer.number()}, None, True))
    return make.message(make.arguments(mobile=value), "mobile is not a string but")


def _empty_mobile(make: _Maker) -> Malformed:
    mobile = make.chance.choice(("", " ", "- -"))
    return make.message(make.arguments(mobile=mobile), "mobile is empty: send the 11 digits")


def _other_characters_in_mobile(make: _Maker) -> Malformed:
    number = make.dealer.number()
    spoilt = make.chance.choice((f"{number}x", f"tel:{number}", f"{number}😀", f"{number}\n", f"({number})"))
    return make.message(make.arguments(mobile=spoilt), "mobile holds other characters than digits")


def _huge_mobile(make: _Maker) -> Malformed:
    return make.message(
        make.arguments(mobile=make.dealer.number() * 80_000 + "x"), "mobile holds other characters"
    )


def _bad_reference(make: _Maker) -> Malformed:
    value = make.chance.choice(
        ("", "a b", "单号1", "x" * 129, 17, None, ["a"], "ok\n", "😀", "\x00", "x" * 10**6)
    )
    arguments = make.arguments(**{make.reference: value})
    return make.message(arguments, f"{make.reference} must be a string of 1 to 128 of")


def _bad_source(make: _Maker) -> Malformed:
    return make.message(make.arguments(source="a shop"), "source must be a string of 1 to 128 of")


def _bad_operator(make: _Maker) -> Malformed:
    value = make.chance.choice(("Vodafone", "", 46000, ["CMCC"], make.dealer.number(), "中国铁通"))
    return make.message(make.arguments(operator=value), "operator must be one of CMCC 移动")


def _bad_attempt(make: _Maker) -> Malformed:
    value = make.chance.choice((0, -1, 1.5, "1", True, None, 10**30, 10**7))
    return make.message(make.arguments(attempt=value), "attempt must be a whole number from 1 to")


def _bad_failure(make: _Maker) -> Malformed:
    make.lane, (make.task, make.reference) = "sms", _TASKS["sms"]
    name, value, says = make.chance.choice(
        (
            ("failure_code", "x" * 65, "failure_code must be a string of at most"),
            ("failure_code", "MK\x000001", "failure_code must be a string of at most"),
            ("failure_code", 1, "failure_code must be a string of at most"),
            ("failed_at", "yesterday", "failed_at must be an RFC 3339 time such as"),
            ("failed_at", [2026], "failed_at must be an RFC 3339 time such as"),
        )
    )
    return make.message(make.arguments(**{name: value}), says)


def _missing_argument(make: _Maker) -> Malformed:
    name = make.chance.choice(("mobile", make.reference))
    return make.message(make.arguments(**{name: _LEFT_OUT}), f"argument {name} is missing: {make.lane} needs")


def _unknown_argument(make: _Maker) -> Malformed:
    name = make.chance.choice(
        ("colour", "Mobile", "", "😀", "\x00", make.dealer.number(), "n" * 5000, '\n{"event": "forged"}')
    )
    return make.message(make.arguments(**{name: make.dealer.number()}), f"{make.lane} takes {make.reference}")


def _no_list_of_items(make: _Maker) -> Malformed:
    items = make.chance.choice((_LEFT_OUT, None, "", {"0": make.arguments()}, 5))
    arguments = {"x_mark": make.mark, "items": items}
    arguments = {name: value for name, value in arguments.items() if value is not _LEFT_OUT}
    return make.message(arguments, "items must be a list of objects", many=True)


def _arguments_beside_items(make: _Maker) -> Malformed:
    return make.message({"items": [], **make.arguments()}, "a *_many task takes items only", many=True)


def _too_many_items(make: _Maker) -> Malformed:
    items = [make.arguments()] * make.chance.choice((1001, 1500))
    return make.message({"items": items}, "a message carries at most 1000, split it", many=True)


def _one_bad_item(make: _Maker) -> Malformed:
    good = tuple(make.dealer.good_number() for _ in range(make.chance.randint(1, 5)))
    items: list[Any] = [
        {make.reference: f"g{number}", "mobile": number, "operator": "CMCC"} for number in good
    ]
    bad, says = make.chance.choice(
        (
            (make.arguments(mobile=""), "mobile is empty"),
            (make.mark, "an item must be an object with the task's arguments"),
            ([make.mark], "an item must be an object with the task's arguments"),
        )
    )
    items.insert(make.chance.randint(0, len(items)), bad)
    return make.message({"items": items}, says, many=True, good=good)


def _same_key_twice(make: _Maker) -> Malformed:
    good = make.dealer.good_number()
    first = {make.reference: make.mark, "mobile": good, "operator": "CMCC"}
    return make.message(
        {"items": [first, make.arguments()]}, "give each request its own reference", many=True, good=(good,)
    )


# -- what is no message in a Redis list -----------------------------------------------------------


def _bare(make: _Maker, element: bytes, says: str = "has no header task") -> Malformed:
    return Malformed(make.kind, make.lane, element, says, make.mark, bare=True)


def _words(make: _Maker) -> Malformed:
    return _bare(make, f"hello {make.mark} {make.dealer.number()}".encode())


def _bytes(make: _Maker) -> Malformed:
    return _bare(make, b"\xff\xfe\x00" + make.mark.encode() + make.chance.randbytes(20))


def _arguments_alone(make: _Maker) -> Malformed:
    return _bare(
        make, json.dumps(make.arguments()).encode(), "this is JSON, but not a message as kombu writes it"
    )


def _deep_element(make: _Maker) -> Malformed:
    return _bare(make, make.mark.encode() + b"[" * 100_000)


def _no_delivery_tag(make: _Maker) -> Malformed:
    return _bare(make, json.dumps({"body": make.mark, "properties": {"delivery_info": {}}}).encode())


def _headers_of_another_type(make: _Maker) -> Malformed:
    return _bare(make, json.dumps(_element(make, headers=[make.mark])).encode())


def _body_that_is_no_base64(make: _Maker) -> Malformed:
    return _bare(make, json.dumps(_element(make, body="a", x=make.mark)).encode())


def _nowhere_to_go_back_to(make: _Maker) -> Malformed:
    element = _element(make)
    element["properties"]["delivery_info"] = {}
    return _bare(make, json.dumps(element).encode())


def _element(make: _Maker, **changed: Any) -> dict[str, Any]:
    body = base64.b64encode(json.dumps(make.arguments()).encode()).decode()
    properties = {
        "delivery_tag": make.mark,
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": make.lane},
    }
    return {"body": body, "headers": {}, "properties": properties, "content-type": _JSON} | changed


_KINDS: tuple[Kind, ...] = (
    _pickle, _other_content_type, _undecodable_bytes, _other_encoding, _half_of_it, _empty_body, _raw_nul,
    _lone_surrogate, _no_json_number, _nested_too_deep, _unknown_task, _no_headers, _protocol_1,
    _another_form, _bomb,
    _by_position, _eta_or_countdown, _expires_is_no_time, _number_as_integer, _mobile_of_another_type,
    _empty_mobile, _other_characters_in_mobile, _huge_mobile, _bad_reference, _bad_source, _bad_operator,
    _bad_attempt, _bad_failure, _missing_argument, _unknown_argument, _no_list_of_items,
    _arguments_beside_items, _too_many_items, _one_bad_item,
    _same_key_twice,
)  # fmt: skip
_BARE: tuple[Kind, ...] = (
    _words, _bytes, _arguments_alone, _deep_element, _no_delivery_tag, _headers_of_another_type,
    _body_that_is_no_base64, _nowhere_to_go_back_to,
)  # fmt: skip
