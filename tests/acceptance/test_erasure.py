"""``presend erase``: afterwards a search of every table, Redis key and log finds nothing; no sum changes."""

from __future__ import annotations

import base64
import json
import pickle
import re
import uuid
import zlib
from typing import Any

import psycopg
import redis
from kombu import Connection, Producer
from psycopg import sql

from tests.acceptance.harness import Place
from tests.acceptance.waiting import eventually
from tests.commands import environment, presend

NUMBER, BYSTANDER = "13967452318", "13981726354"  # digits that no date or count has in a row
SEPARATED = re.compile(r"[\W_]+")
BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def test_nothing_of_a_number_is_left_and_no_sum_changes(here: Place) -> None:
    number, bystander = NUMBER, BYSTANDER
    here.worker("recharge", "sms")
    here.upkeep()
    decided, letters = send_everything(here, number, bystander)
    eventually(lambda: here.count("dead_letter") == letters, "every bad message parked")
    here.check_settled(decided)
    leave_traces_of_trouble(here, number)

    before = where(here, number)
    assert {
        "check_request",
        "port_record",
        "port_change",
        "lookup_call",
        "dead_letter",
        "operator_action",
    } <= before
    assert "redis celery-task-meta" in before
    assert ("redis presend.events" in before) == here.on_redis
    sums, others = ledger_sums(here), where(here, bystander)

    found = json.loads(erase(here, number, "--dry-run"))
    assert where(here, number) == before, "a dry run erases nothing"
    done = json.loads(erase(here, number, "--yes", "--reason", f"asked by {number[:3]} {number[3:]}"))
    assert {**done, "dry_run": True} == found
    assert where(here, number) == set()
    assert ledger_sums(here) == sums
    # a result or an event that names both goes; what is kept of somebody else stays
    assert where(here, bystander) >= others - {"redis celery-task-meta"}
    assert len(shortened(here)) == 1000, "of too many items the number's own went"
    assert json.loads(erase(here, number, "--dry-run"))["tables"] == {}

    bills = here.sandbox.bills()
    again = here.send("recharge.precheck", order_id="first", mobile=number, operator="CMCC")
    eventually(again.ready, "its result")
    assert again.state == "FAILURE"
    assert here.sandbox.bills() == bills, "a key that comes again buys nothing"
    here.stop()
    for process in here.processes:
        assert not holds(process.log, number), process.name


def send_everything(here: Place, number: str, bystander: str) -> tuple[int, int]:
    """Requests and bad messages with the number; how many are decided, and how many dead letters."""
    spaced = f"+86 {number[:3]}-{number[3:7]} {number[7:]}"
    here.send("recharge.precheck", order_id="first", mobile=spaced, operator="CMCC").get(10)
    here.sandbox.port(number, "CUCC")
    here.send("sms.recheck", message_id="moved", mobile=number, operator="CMCC", x_note=number).get(10)
    here.send("recharge.precheck", order_id=f"U{number}", mobile=bystander, source=f"shop:{number}").get(10)
    items = [
        {"message_id": "m1", "mobile": number, "operator": "CMCC"},
        {"message_id": "m2", "mobile": bystander, "operator": "CMCC"},
        {"message_id": "m3", "mobile": number, "operator": "nobody's"},
    ]
    here.send("sms.recheck_many", items=items).get(10)
    # too many items: one letter, of which others may want to replay their part
    too_many = [{"message_id": f"t{n}", "mobile": bystander, "operator": "CMCC"} for n in range(1000)]
    here.send("sms.recheck_many", items=[*too_many, items[0]])

    wide = number.translate({ord("0") + digit: ord("０") + digit for digit in range(10)})
    bad_arguments: list[dict[str, Any]] = [
        {"message_id": "b1", "mobile": spaced, "operator": "Vodafone"},
        {"message_id": "b2", "mobile": int(number), "operator": "CMCC"},
        {"message_id": "b3", "mobile": wide, "operator": "CMCC"},
        {"message_id": "b4", "mobile": list(number), "operator": "CMCC"},
        {"message_id": "b5", "mobile": bystander, "operator": "CMCC", f"n{number}": 1},
        {"message_id": f"({number[:3]}) {number[3:]}", "mobile": bystander, "operator": "CMCC"},
    ]
    for arguments in bad_arguments:
        here.send("sms.recheck", **arguments)
    body = json.dumps([[], {"mobile": number}, {}]).encode()
    escaped = "".join(f"\\u{ord(each):04x}" for each in number).encode()
    bad_bodies: list[tuple[bytes, str, str]] = [
        (pickle.dumps([[], {"mobile": number}, {}]), "application/x-python-serialize", "sms.recheck"),
        (pickle.dumps([[], {"mobile": int(number)}, {}]), "application/x-python-serialize", "sms.recheck"),
        (b"mobile: '" + number.encode() + b"'", "application/x-yaml", "sms.recheck"),
        (zlib.compress(body), "application/json", "sms.recheck"),
        (body.decode().encode("utf-16-le"), "text/plain", "sms.recheck"),
        (b'[[], {"mobile": "' + escaped, "application/json", "sms.recheck"),
        (base64.b64encode(body), "text/plain", "sms.recheck"),
        (b"{}", "application/json", f"sms.{number}"),
    ]
    with Connection(here.broker_url) as connection:
        producer = Producer(connection.channel())
        for content, content_type, task in bad_bodies:
            producer.publish(
                content,
                routing_key="sms",
                exchange="",
                content_type=content_type,
                content_encoding="binary",
                headers={"task": task, "id": str(uuid.uuid4())},
            )
    return 5, 1 + 1 + len(bad_arguments) + len(bad_bodies)


def leave_traces_of_trouble(here: Place, number: str) -> None:
    """What a lost call and an operator would leave."""
    with psycopg.connect(here.database_url) as connection:
        connection.execute(
            "INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, unanswered, overtaken,"
            " outcome, until, owner) VALUES (%s, %s, 'recharge', 'p', now(), 2, %s, %s, 'lost', now(), 1)",
            (uuid.uuid4(), uuid.uuid4(), [int(number), 13800000000], [int(number)]),
        )
        connection.execute(
            "INSERT INTO operator_action VALUES (%s, now(), 'mei', 'close', 'gate', %s)",
            (uuid.uuid4(), f"complaint about {number}"),
        )


def shortened(here: Place) -> list[Any]:
    (letter,) = here.rows("SELECT payload FROM dead_letter WHERE payload->>'items' IS NOT NULL")
    return list(letter["payload"]["items"])


def erase(here: Place, *arguments: str) -> str:
    done = presend("erase", *arguments, "--json", env={**environment(), **here.environment()})
    assert done.returncode == 0, done.stderr
    return done.stdout


def ledger_sums(here: Place) -> list[dict[str, Any]]:
    return here.rows("SELECT * FROM ledger_sum ORDER BY day, lane, kind, name")


# -- the search: knows no table, no key and no spelling of presend's ------------------------------


def where(here: Place, number: str) -> set[str]:
    """The tables and kinds of Redis keys that hold a number."""
    return {table for table, text in every_value(here) if holds(text, number)} | {
        f"redis {key.partition('-meta-')[0] + '-meta' if '-meta-' in key else key}"
        for url in {here.redis_url, here.broker_url}
        if url.startswith("redis")
        for key, text in every_key(url)
        if holds(key + " | " + text, number)
    }


def every_value(here: Place) -> list[tuple[str, str]]:
    columns = here.rows(
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    found = []
    with psycopg.connect(here.database_url) as connection:
        for column in columns:
            table, name = sql.Identifier(column["table_name"]), sql.Identifier(column["column_name"])
            rows = connection.execute(
                sql.SQL("SELECT {}::text FROM {} WHERE {} IS NOT NULL").format(name, table, name)
            )
            found += [(column["table_name"], row[0]) for row in rows]
    return found


def every_key(url: str) -> list[tuple[str, str]]:
    with redis.Redis.from_url(url) as client:
        readers: dict[bytes, Any] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"stream": client.xrange,
        }
        return [(key.decode(), repr(readers[client.type(key)](key))) for key in client.scan_iter()]


def holds(text: str, number: str) -> bool:
    """Whether a text has the number's digits in a row, whatever stands between them, also inside base64."""
    plain = "".join(str(int(each)) if each.isdecimal() else each for each in unescaped(text))
    if number in SEPARATED.sub("", plain):
        return True
    return any(in_body(match[0], number) for match in BASE64.finditer(text))


def unescaped(text: str) -> str:
    return re.sub(r"\\u00(3[0-9])", lambda match: chr(int(match[1], 16)), text)


def in_body(encoded: str, number: str) -> bool:
    try:
        body = base64.b64decode(encoded)
    except ValueError:
        return False
    if body[:1] == b"x":
        try:
            body = zlib.decompress(body)
        except zlib.error:
            return False
    digits = re.sub(r"\D", "", unescaped(body.replace(b"\x00", b"").decode("utf-8", "replace")))
    return number in digits or int(number).to_bytes(5, "little") in body or nested(body, number)


def nested(body: bytes, number: str) -> bool:
    return any(number in digits_of(match[0]) for match in BASE64.finditer(body.decode("ascii", "replace")))


def digits_of(encoded: str) -> str:
    try:
        return re.sub(r"\D", "", base64.b64decode(encoded).decode("utf-8", "replace"))
    except ValueError:
        return ""
