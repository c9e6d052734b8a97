"""What the metrics cost a message: our CPU for everything that is counted on a batch's way, by its size."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from tests.benchmarks.ground import Ground
from worker.metrics import batches, events, messages, provider
from worker.portability.events import Event, event_id
from worker.portability.records import AnsweredFrom, CheckedRequest, Status
from worker.portability.requests import Lane, RequestKey
from worker.storage.ids import new_id

MESSAGES = 200_000
SIZES = (1, 10, 100, 1000)


def run(ground: Ground) -> None:
    """In this process; nothing else runs."""
    figures = {size: round(min(_microseconds(size, ground) for _ in range(5)), 3) for size in SIZES}
    for size, microseconds in figures.items():
        print(f"  batches of {size:5}: {microseconds:7.3f} µs of CPU a message", flush=True)
    ground.write({"microseconds_of_cpu_a_message_by_batch_size": figures})


def _microseconds(size: int, ground: Ground) -> float:
    rows = [_row(index) for index in range(size)]
    sent = [Event(row.event_id, f"sms.{row.decision}", b"", row.reference) for row in rows]
    codes = [0] * size
    rounds = max(1, ground.sized(MESSAGES) // size // (50 if size == 1 else 5 if size == 10 else 1))
    began = time.process_time()
    for _ in range(rounds):
        for _message in rows:
            messages.received(Lane.SMS)
        provider.asked(Lane.SMS, size)
        with provider.timed("batch"):
            pass
        provider.answered(Lane.SMS, codes, billed=size, unanswered=0)
        batches.settled(Lane.SMS, requests=size, rows=rows, repeated=0)
        events.sent(sent)
        messages.ended(Lane.SMS, messages.DECIDED, size)
    return (time.process_time() - began) / rounds / size * 1e6


def _row(index: int) -> CheckedRequest:
    key, now = RequestKey("", Lane.SMS, f"B{index}", 1), datetime.now(UTC)
    decision, reason = (("resend", "same_operator"), ("reroute", "other_operator"))[index % 16 == 0]
    return CheckedRequest(
        source=key.source, lane=key.lane, reference=key.reference, attempt=key.attempt, msisdn="13912345678",
        asked_operator="CMCC", failure_code="MK:0001", status=Status.NOT_PORTED, range_holder="CMCC",
        current_operator="CMCC", target_operator=None, area="湖北-宜昌",
        observed_at=now - timedelta(seconds=index), decision=decision, reason=reason,
        answered_from=AnsweredFrom.STORED if index % 4 == 0 else AnsweredFrom.LIVE, batch_id=new_id(),
        call_id=None, event_id=event_id(key), received_at=now - timedelta(milliseconds=300 + index % 97),
        decided_at=now,
    )  # fmt: skip
