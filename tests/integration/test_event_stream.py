"""The Redis stream of events: both forms of an entry, and a number that is to be forgotten."""

from __future__ import annotations

import pytest
import redis

from worker.portability.events import Event
from worker.portability.mentions import Mentions
from worker.publisher import EVENTS, latest
from worker.publisher.stream import StreamPublisher, erase

NUMBER = "13967452318"


def event(number: int, mobile: str) -> Event:
    body = f'{{"id":"id-{number}","data":{{"mobile":"{mobile}"}}}}'
    return Event(f"id-{number}", "sms.resend", body.encode(), f"m{number}")


@pytest.mark.parametrize("event_batch", [1, 10])
def test_erasing_a_number_keeps_the_others_of_its_batch(redis_url: str, event_batch: int) -> None:
    sent = [event(number, NUMBER if number % 4 == 0 else "13981726354") for number in range(25)]
    sent += [event(number, NUMBER) for number in range(25, 35)]
    publisher = StreamPublisher(redis_url, length=1000, event_batch=event_batch)
    publisher.publish(sent)
    publisher.close()
    assert latest(redis_url, 100) == [each.body for each in sent]

    assert erase(redis_url, Mentions(NUMBER), dry_run=True) == 17
    assert latest(redis_url, 100) == [each.body for each in sent], "a dry run erases nothing"
    assert erase(redis_url, Mentions(NUMBER)) == 17
    assert sorted(latest(redis_url, 100)) == sorted(e.body for e in sent if NUMBER.encode() not in e.body)
    assert erase(redis_url, Mentions(NUMBER)) == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.xlen(EVENTS) == (18 if event_batch == 1 else 3), "entries without events are gone"
