"""What one worker takes of a backlog: enough for its batches and no more, whatever a message holds."""

from __future__ import annotations

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually

ONE_SLOT = {"sms_slots": "1", "recharge_slots": "1", "provider_timeout_seconds": "60"}
MOST_ITEMS = 2000
"""A batch in the slot, and one that gathers."""


def test_a_backlog_of_long_messages_is_left_to_others(here: Place) -> None:
    """Taken by the message, all of it would be one worker's, and in its memory."""
    numbers = plain_numbers(8000)
    here.settings |= ONE_SLOT
    for begin in range(0, 8000, 1000):
        items = [
            {"message_id": f"R{number}", "mobile": number, "operator": "CMCC"}
            for number in numbers[begin : begin + 1000]
        ]
        here.send("sms.recheck_many", items=items)
    with here.sandbox.held():
        first = here.worker("sms")
        here.sandbox.wait_for_call(1000)
        eventually(lambda: here.messages_left()["sms"] == 6, "two messages taken")
        here.worker("sms")
        eventually(lambda: here.messages_left()["sms"] == 4, "two more, by another worker")
        assert first.alive
    here.check_settled(8000, seconds=60)
    here.stop()


def test_a_backlog_of_short_messages_fills_a_workers_batches(here: Place) -> None:
    """They are asked for by ever larger numbers."""
    here.settings |= ONE_SLOT
    here.send_many("sms", plain_numbers(2700))
    with here.sandbox.held():
        here.worker("sms")
        eventually(
            lambda: here.messages_left()["sms"] <= 2700 - MOST_ITEMS,
            "enough for the batch in the slot, and for the next one",
        )
    here.check_settled(2700, seconds=60)
    here.stop()


def test_a_worker_with_as_many_slots_as_may_be_takes_messages(on_rabbitmq: Place) -> None:
    """It wants to hold more than AMQP can count."""
    on_rabbitmq.settings |= {"recharge_slots": "64", "sms_slots": "64"}
    on_rabbitmq.worker("recharge", "sms")
    on_rabbitmq.send_many("sms", plain_numbers(100))
    on_rabbitmq.check_settled(100)
    on_rabbitmq.stop()
