"""Sending messages at their moments, and waiting until they are decided."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple

import amqp

from tests.acceptance.harness import Place
from tests.benchmarks import filling
from tests.services import connect_amqp
from worker.portability.requests import Lane

_TASKS = {Lane.SMS: ("sms.recheck", "message_id"), Lane.RECHARGE: ("recharge.precheck", "order_id")}
_LOOK_SECONDS = 0.2
_FEW = 5000
_IN_FLIGHT = 2000
_CONFIRM_SECONDS = 5.0


class Ready(NamedTuple):
    """A message, written before its moment: sending it takes as little as can be."""

    # seconds since the beginning
    at: float
    lane: Lane
    message: amqp.Message


def singles(lane: Lane, prefix: str, numbers: Sequence[str], moments: Iterable[float]) -> list[Ready]:
    """Single-number messages for these numbers; references are the prefix and a running number."""
    task, reference = _TASKS[lane]
    arguments = (
        {reference: f"{prefix}-{index}", "mobile": number, "operator": "CMCC"}
        for index, number in enumerate(numbers)
    )
    return [
        Ready(at, lane, filling.for_rabbitmq(message))
        for at, message in zip(moments, filling.written(task, arguments), strict=True)
    ]


def many(prefix: str, numbers: Sequence[str]) -> Ready:
    """One ``sms.recheck_many`` for these numbers."""
    items = [
        {"message_id": f"{prefix}-{index}", "mobile": number, "operator": "CMCC"}
        for index, number in enumerate(numbers)
    ]
    (message,) = filling.written("sms.recheck_many", [{"items": items}])
    return Ready(0.0, Lane.SMS, filling.for_rabbitmq(message))


def send(broker_url: str, messages: Sequence[Ready]) -> list[float]:
    """Send each at its moment; return when each was sent, in POSIX seconds. All are with the broker then."""
    sent: list[float] = []
    with closing(connect_amqp(broker_url)) as connection:
        channel = connection.channel()
        channel.confirm_select()
        confirmed = 0

        def note(tag: int, multiple: bool) -> None:
            nonlocal confirmed
            confirmed = max(confirmed, tag) if multiple else confirmed + 1

        channel.events["basic_ack"].add(note)
        begin = time.time() + 0.05
        for one in messages:
            while (pause := begin + one.at - time.time()) > 0 or len(sent) - confirmed >= _IN_FLIGHT:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=pause if pause > 0 else 30)
            sent.append(time.time())
            channel.basic_publish(one.message, routing_key=one.lane.value)
        # when it closes, a quorum queue's client loses what it has not handed on
        while confirmed < len(sent) and time.time() - sent[-1] < _CONFIRM_SECONDS:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
    return sent


def told(
    here: Place, prefix: str, count: int, *, since: float, seconds: float = 300.0
) -> list[dict[str, Any]]:
    """Wait until so many requests are decided and their events confirmed since then; those of the prefix."""
    deadline = time.monotonic() + seconds
    while (done := here.rows(_COUNT, since)[0]["told"]) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{done} of {count} requests {prefix} were told within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS if count < _FEW else 1.0)  # counting many disturbs Postgres
    return here.rows(_TOLD, f"{prefix}-%")


_COUNT = """
    SELECT count(*) AS told FROM check_request r JOIN lookup_batch b ON b.id = r.batch_id
    WHERE b.emitted_at IS NOT NULL AND b.decided_at >= to_timestamp(%s)
"""
_TOLD = """
    SELECT r.reference, r.lane, r.batch_id, extract(epoch FROM r.received_at)::float8 AS received_at,
        extract(epoch FROM b.decided_at)::float8 AS begun_at,
        extract(epoch FROM b.emitted_at)::float8 AS told_at
    FROM check_request r JOIN lookup_batch b ON b.id = r.batch_id WHERE r.reference LIKE %s
"""
