"""What no task can take is parked with its reason, Celery's own discards too; its neighbours are decided."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Producer

from tests.acceptance.harness import Place
from tests.acceptance.waiting import eventually

SECRET, SHOWN = "13912349876", "139****9876"
TASK = {"task": "sms.recheck", "lang": "py"}
ZIPPED = TASK | {"compression": "application/x-gzip"}
GOOD = {"message_id": "m", "mobile": SECRET, "operator": "CMCC"}

FORGED = '{"event": "forged"}'


def body(arguments: Any, args: Any = ()) -> bytes:
    return json.dumps([list(args), arguments, {"callbacks": None}]).encode()


# (body, content type, headers) -> what the reason says
BAD: dict[str, tuple[bytes, str, dict[str, Any], str]] = {
    "pickle": (pickle.dumps([[], GOOD, {}]), "application/x-python-serialize", TASK, "application/json"),
    "no JSON": (b"{" + SECRET.encode(), "application/json", TASK, "not valid JSON in UTF-8"),
    "a number JSON lacks": (
        body(GOOD | {"attempt": float("inf")}),
        "application/json",
        TASK,
        "it holds Infinity: send a finite number",
    ),
    "binary": (b"\xff\x00\xfe" + SECRET.encode(), "application/json", TASK, "not valid JSON"),
    "other content type": (body(GOOD), "text/plain", TASK, "content type 'text/plain'"),
    "task header of another type": (
        body(GOOD),
        "application/json",
        {"task": ["sms.recheck"]},
        "unknown task",
    ),
    "Celery's own task": (
        body(GOOD),
        "application/json",
        {"task": "celery.accumulate"},
        "unknown task 'celery.accumulate'",
    ),
    "unknown task": (body(GOOD), "application/json", {"task": "sms.send"}, "unknown task 'sms.send'"),
    "no task": (body(GOOD), "application/json", {}, "not a Celery message"),
    "protocol 1": (
        json.dumps({"task": "sms.recheck", "id": "one", "args": [], "kwargs": GOOD}).encode(),
        "application/json",
        {},
        "protocol 1",
    ),
    "not a triple": (json.dumps(GOOD).encode(), "application/json", TASK, "[args, kwargs, embed]"),
    "by position": (body({}, [SECRET]), "application/json", TASK, "by name"),
    "eta": (body(GOOD), "application/json", TASK | {"eta": "2030-01-01T00:00:00Z"}, "eta and countdown"),
    "unknown argument": (
        body(GOOD | {"colour": SECRET}),
        "application/json",
        TASK,
        "unknown argument 'colour'",
    ),
    "NUL and emoji": (
        body(GOOD | {"message_id": "\x00😀" + SECRET}),
        "application/json",
        TASK,
        "message_id must",
    ),
    "yaml": (b"mobile: " + SECRET.encode(), "application/x-yaml", TASK, "application/json"),
    "a reference that forges": (
        body(GOOD | {"message_id": f"a\r\n{FORGED}"}),
        "application/json",
        TASK,
        "message_id must",
    ),
    "a task that forges": (body(GOOD), "application/json", {"task": f"\x1b[2J\n{FORGED}"}, "unknown task"),
    "an argument that forges": (
        body(GOOD | {f"\n{FORGED}{SECRET}": 1}),
        "application/json",
        TASK,
        "unknown argument",
    ),
    "a content type that forges": (body(GOOD), f"a/b\n{FORGED}{SECRET}", TASK, "content type"),
    "a bomb": (
        zlib.compress(b" " * 64_000_000 + body(GOOD)),
        "application/json",
        ZIPPED,
        "cannot be unfolded",
    ),
    "zipped": (
        zlib.compress(body(GOOD | {"message_id": "z"})),
        "application/json",
        ZIPPED,
        "",
    ),
    "a megabyte": (body(GOOD | {"mobile": SECRET * 100_000}), "application/json", TASK, ""),
    "1001 items": (
        body({"items": [GOOD] * 1001}),
        "application/json",
        {"task": "sms.recheck_many"},
        "1001 items: a message carries at most 1000",
    ),
}
DECIDED = {"a megabyte", "zipped"}  # that many digits are no number: invalid, not malformed


@pytest.fixture
def publisher(here: Place) -> Iterator[Producer]:
    with Connection(here.broker_url) as connection:
        yield Producer(connection.channel())


def test_bad_messages_are_parked_with_a_reason_and_their_neighbours_decided(
    here: Place, publisher: Producer
) -> None:
    worker = here.worker("sms", "recharge")
    for index, (name, (content, content_type, headers, _)) in enumerate(BAD.items()):
        publisher.publish(
            content,
            routing_key="sms",
            exchange="",
            content_type=content_type,
            content_encoding="utf-8" if content_type == "application/json" else "binary",
            headers=headers and headers | {"id": f"bad-{name.replace(' ', '-')}"},
        )
        here.send("sms.recheck", message_id=f"good-{index}", mobile=f"1380013{index:04d}", operator="CMCC")
    here.decided(len(BAD) + len(DECIDED))
    eventually(lambda: here.count("dead_letter") == len(BAD) - len(DECIDED), "every bad message parked")
    reasons = [row["reason"] for row in here.rows("SELECT reason FROM dead_letter")]
    for name, (*_, says) in BAD.items():
        if name not in DECIDED:
            assert any(says in reason for reason in reasons), name
    assert all(reason.isprintable() for reason in reasons)
    here.stop()
    assert SECRET not in worker.log
    shown = [line for line in worker.log.splitlines() if SHOWN in line]
    assert all("dead_letter_parked" in line for line in shown), "not even masked: bodies are not logged"
    assert not [line for line in worker.log.split("\n") if line and not line.isprintable()]
    assert not [line for line in worker.log.splitlines() if line.startswith(FORGED[:-1])]


GARBAGE = {
    "no JSON": b"hello " + SECRET.encode(),
    "no UTF-8": b"\xff\xfe",
    "no message": b'{"mobile": "13912349876"}',
    "no delivery tag": b'{"body": "", "properties": {"delivery_info": {}}}',
    "headers of another kind": b'{"headers": [], "properties": {"delivery_tag": "x", "delivery_info": {}}}',
    "body that is no base64": (
        b'{"body": "a", "headers": {}, "properties":'
        b' {"delivery_tag": "y", "body_encoding": "base64",'
        b' "delivery_info": {"exchange": "", "routing_key": "sms"}}}'
    ),
    "body that is not even ASCII": (
        b'{"body": "\xc3\xa9", "headers": {}, "properties":'
        b' {"delivery_tag": "y", "body_encoding": "base64",'
        b' "delivery_info": {"exchange": "", "routing_key": "sms"}}}'
    ),
    "nowhere to go back to": b'{"headers": {}, "properties": {"delivery_tag": "w", "delivery_info": {}}}',
    "no body": (
        b'{"headers": {"task": "sms.recheck"}, "properties":'
        b' {"delivery_tag": "z", "delivery_info": {"exchange": "", "routing_key": "sms"}}}'
    ),
    "deep": b"[" * 100_000,
    "an empty list": b"[]",
    "an empty object": b"{}",
    "nothing": b"null",
}
JSON = {"no message", "no delivery tag", "headers of another kind", "body that is no base64",
        "body that is not even ASCII", "nowhere to go back to", "an empty list", "an empty object",
        "nothing"}  # fmt: skip


def test_what_is_no_message_in_a_redis_list_is_parked_whole(on_redis: Place) -> None:
    here = on_redis
    worker = here.worker("sms")
    with redis.Redis.from_url(here.broker_url) as client:
        for index, element in enumerate(GARBAGE.values()):
            client.lpush("sms", element)
            here.send(
                "sms.recheck", message_id=f"good-{index}", mobile=f"1380013{index:04d}", operator="CMCC"
            )
    here.decided(len(GARBAGE))
    eventually(lambda: here.count("dead_letter") == len(GARBAGE), "every element parked")
    rows = here.rows("SELECT payload FROM dead_letter WHERE payload->>'base64' IS NOT NULL")
    parked = {base64.b64decode(row["payload"]["base64"]) for row in rows}
    assert {GARBAGE["no JSON"], GARBAGE["no UTF-8"], GARBAGE["deep"]} <= parked
    reasons = [row["reason"] for row in here.rows("SELECT reason FROM dead_letter")]
    assert sum("this is JSON, but not a message as kombu writes it" in one for one in reasons) == len(JSON)
    assert sum("its body is not JSON" in one for one in reasons) == 3
    here.stop()
    assert SECRET not in worker.log


def test_a_message_without_items_is_answered_so_and_leaves_a_line(here: Place) -> None:
    worker = here.worker("recharge")
    sent = here.send("recharge.precheck_many", items=[])
    assert sent.get(timeout=10) == []
    worker.wait_for("message_without_items")
    assert any(sent.id in line for line in worker.log.splitlines() if "message_without_items" in line)


def test_a_parked_messages_producer_is_told(here: Place) -> None:
    here.worker("recharge")
    sent = here.send("recharge.precheck", order_id="o", mobile="139x")
    with pytest.raises(Exception, match="mobile") as caught:
        sent.get(timeout=10)
    assert type(caught.value).__name__ == "Rejected"
    assert sent.state == "FAILURE"
