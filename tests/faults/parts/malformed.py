"""Malformed messages between good ones: each is parked, no good one waits, no log says a number."""

from __future__ import annotations

import base64
import json
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import redis
from kombu import Connection, Producer

from tests.acceptance.harness import Place
from tests.acceptance.provider import endless_plain_numbers
from tests.acceptance.waiting import eventually
from tests.faults.invariants import Report
from tests.faults.leaks import leaks
from tests.faults.malformed import Dealer, Malformed
from worker.sandbox.provider import DEFAULT_APIKEY, Latency

_GOOD_A_BAD = 2


@dataclass(frozen=True)
class Told:
    """What the part came to."""

    report: Report
    # a reason of each kind
    reasons: dict[str, str]
    # seconds from a good message's receipt to its decision: median and longest
    median: float
    longest: float


def run(here: Place, *, seed: int, messages: int, per_second: float) -> Told:
    """Send so many malformed messages, each between good ones, and check what became of all of them."""
    # one slot a lane, so that batches follow each other and a late message is seen
    here.settings |= {"sms_slots": "1", "recharge_slots": "1", "recharge_expiry_seconds": "60"}
    here.sandbox.latency = Latency(scale=0.3)
    numbers = endless_plain_numbers()
    dealer = Dealer(seed, good=numbers, with_bare_elements=here.on_redis)
    bad = dealer.deal(messages)
    here.upkeep()
    workers = [here.worker(lane, ready=False) for lane in ("sms", "recharge")]
    for worker in workers:
        worker.wait_for(" ready.", seconds=60)
    pids = [worker.pid for worker in workers]

    good = _send(here, dealer, bad, per_second=per_second, chance=random.Random(seed))
    wanted = sum(map(len, good.values())) + sum(len(one.good) for one in bad)
    rows = here.check_settled(wanted, seconds=120)
    letters = _letters(here, len(bad))
    reasons = _each_parked_once(bad, letters)
    _in_turn(rows, good)
    told = {(row["decision"], row["reason"]) for row in rows}
    assert told == {("resend", "same_operator"), ("confirmed", "same_operator")}, told
    assert set(here.sandbox.bills().values()) == {1}, "a number was billed twice"
    assert [worker.pid for worker in workers if worker.alive] == pids, "a worker died"
    here.stop()
    logs = [process.log_path for process in here.processes]
    found = leaks(logs, dealer.numbers, DEFAULT_APIKEY)
    assert not found, "; ".join(found[:5])
    torn = [log.name for log in logs if '\n{"event": "forged"}' in log.read_text()]
    assert not torn, f"a stranger wrote a line of the logs of {torn}"
    hurt = [log.name for log in logs for word in ("Traceback", '"critical"') if word in log.read_text()]
    assert not hurt, f"an error in the logs of {hurt}"
    waits = sorted((row["decided_at"] - row["received_at"]).total_seconds() for row in rows)
    report = Report(accepted=wanted + len(bad), settled=wanted + len(bad), billed=here.sandbox.bill.billed)
    return Told(report, reasons, waits[len(waits) // 2], waits[-1])


# -- sending ----------------------------------------------------------------------------------


def _send(
    here: Place, dealer: Dealer, bad: list[Malformed], *, per_second: float, chance: random.Random
) -> dict[str, list[str]]:
    """Send each malformed message with good ones of both lanes around it; the good references, in order."""
    good: dict[str, list[str]] = {"sms": [], "recharge": []}
    due = time.monotonic()
    with _Publishing(here) as publish:
        for one in bad:
            for _ in range(_GOOD_A_BAD):
                lane, number = chance.choice(list(good)), dealer.good_number()
                here.send_many(lane, [number])
                good[lane].append(f"R{number}")
            publish(one)
            due += 1 / per_second
            time.sleep(max(0.0, due - time.monotonic()))
    return good


class _Publishing:
    """Puts malformed messages where producers put theirs."""

    def __init__(self, here: Place) -> None:
        self._connection = Connection(here.broker_url)
        self._redis = redis.Redis.from_url(here.broker_url) if here.on_redis else None

    def __enter__(self) -> Any:
        self._producer = Producer(self._connection.channel())
        return self._publish

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        if self._redis is not None:
            self._redis.close()

    def _publish(self, one: Malformed) -> None:
        if one.bare:
            assert self._redis is not None
            self._redis.lpush(one.lane, one.body)
            return
        self._producer.publish(
            one.body,
            exchange="",
            routing_key=one.lane,
            content_type=one.content_type,
            content_encoding="utf-8"
            if one.content_type == "application/json" and _is_text(one.body)
            else "binary",
            headers=one.headers,
        )


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


# -- what became of them ------------------------------------------------------------------------


def _letters(here: Place, wanted: int) -> list[dict[str, Any]]:
    eventually(lambda: here.count("dead_letter") >= wanted, f"{wanted} dead letters", seconds=60)
    return here.rows("SELECT payload::text AS payload, reason FROM dead_letter ORDER BY received_at")


def _each_parked_once(bad: list[Malformed], letters: list[dict[str, Any]]) -> dict[str, str]:
    """Hold each dead letter to its message; returns a reason of each kind."""
    by_mark: dict[str, list[str]] = defaultdict(list)
    marks = {one.mark for one in bad} - {""}
    for letter in letters:
        text = _readable(letter["payload"])
        by_mark[next((mark for mark in marks if mark in text), "")].append(letter["reason"])
    unmarked = Counter(one.says for one in bad if not one.mark)
    reasons: dict[str, str] = {}
    wrong = [
        f"{len(found)} dead letters of {mark}" for mark, found in by_mark.items() if mark and len(found) > 1
    ]
    for one in bad:
        found = by_mark[one.mark]
        if not any(one.says in reason and reason.isprintable() for reason in found):
            wrong.append(f"{one.kind}: {found or 'no dead letter'}, not {one.says!r}")
        else:
            reasons[one.kind] = found[0]
    if len(by_mark[""]) != sum(unmarked.values()):
        wrong.append(f"{len(by_mark[''])} dead letters without a mark, not {sum(unmarked.values())}")
    assert not wrong, "\n".join(wrong)
    return reasons


def _readable(payload: str) -> str:
    """A payload with what is base64 in it decoded."""
    decoded = json.loads(payload)
    if isinstance(decoded, dict) and "base64" in decoded:
        return base64.b64decode(decoded["base64"]).replace(b"\0", b"").decode("ascii", "ignore")
    return payload


def _in_turn(rows: list[dict[str, Any]], good: dict[str, list[str]]) -> None:
    """No good message may be decided more than a batch after one that was sent behind it."""
    for lane, references in good.items():
        ranks = _batch_of_each(rows, lane)
        order = [ranks[reference] for reference in references]
        earliest_behind = list(accumulate(reversed(order), min))[::-1]
        late = [rank - first for rank, first in zip(order, earliest_behind, strict=True) if rank > first + 1]
        assert not late, f"{lane}: {len(late)} good messages up to {max(late)} batches after their turn"


def _batch_of_each(rows: list[dict[str, Any]], lane: str) -> dict[str, int]:
    """The place of each reference's batch in the order of decisions."""
    ours = sorted((row for row in rows if row["lane"] == lane), key=lambda row: row["decided_at"])
    places: dict[Any, int] = {}
    return {row["reference"]: places.setdefault(row["batch_id"], len(places)) for row in ours}
