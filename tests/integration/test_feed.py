"""What becomes of a message, from its receipt to its acknowledgement, over a broker that is the test's."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import text

from tests.acceptance.waiting import eventually
from tests.integration.bench import HOME, Bench
from worker.feed import Feed, Parts
from worker.intake import Intake
from worker.lane_control import LaneControl
from worker.portability.events import Event
from worker.portability.requests import Lane
from worker.results import ResultWriter
from worker.suspicion import CAPS, SUSPECT_AFTER, Suspicion


@dataclass
class Broker:
    """What the feed needs of Celery's consumer; its thread is the test's."""

    connection_errors: tuple[type[BaseException], ...] = (OSError,)
    event_dispatcher: Any = None
    calls: deque[Callable[[], None]] = field(default_factory=deque)

    @property
    def hub(self) -> Broker:
        return self

    def call_soon(self, work: Callable[[], None]) -> None:
        self.calls.append(work)

    def call_later(self, _seconds: float, work: Callable[[], None]) -> None:
        self.calls.append(work)

    def prefetch_changed(self) -> None:
        """Takes what it is given."""

    def turn(self) -> None:
        while self.calls:
            self.calls.popleft()()


@dataclass
class Message:
    """A delivered message of Celery's protocol 2."""

    arguments: dict[str, Any]
    headers: dict[str, Any]
    acknowledged: bool = False
    given_back: bool = False
    content_type: str = "application/json"
    delivery_info: dict[str, Any] = field(default_factory=lambda: {"redelivered": False})

    @property
    def body(self) -> bytes:
        return json.dumps([[], self.arguments, {}]).encode()

    def ack_log_error(self, *_: Any) -> None:
        self.acknowledged = True

    def reject_log_error(self, *_: Any, requeue: bool) -> None:
        self.given_back = requeue


@dataclass
class Task:
    """A task as the feed knows it."""

    name: str
    lane: Lane
    many: bool = False


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def feed(bench: Bench, broker: Broker, redis_url: str) -> Iterator[Feed]:
    parts = Parts(
        pipeline=bench.pipeline(),
        results=ResultWriter(redis_url, keep_seconds=60),
        intake={lane: Intake(lane) for lane in (Lane.RECHARGE, Lane.SMS)},
        slots=dict.fromkeys(Lane, 1),
        linger_seconds=dict.fromkeys(Lane, 0.0),
        lane_control=LaneControl(bench.database, causes=()),
        suspicions=bench.stores[0].suspicions,
    )
    made = Feed(broker, parts)
    yield made
    made.close()
    parts.results.close()


def test_a_shopper_has_the_result_before_the_broker_has_the_event(
    bench: Bench, feed: Feed, broker: Broker, redis_url: str
) -> None:
    found: list[Any] = []
    publish = bench.publisher.publish

    def look_and_publish(events: Sequence[Event]) -> None:
        found.append(client.get("celery-task-meta-t1"))
        publish(events)

    bench.publisher.publish = look_and_publish  # type: ignore[method-assign]
    message = Message({"order_id": "A1", "mobile": HOME, "operator": "CMCC"}, {"id": "t1"})
    with Redis.from_url(redis_url) as client:
        feed.take(Task("recharge.precheck", Lane.RECHARGE), message, None, None, None, None)
        eventually(lambda: broker.turn() or message.acknowledged, "the acknowledgement")
    (event,) = bench.publisher.events
    assert [json.loads(each or "{}").get("result") for each in found] == [json.loads(event.body)["data"]]


def test_an_item_found_guilty_is_decided_where_one_of_the_deaths_had_decided_it(
    bench: Bench, feed: Feed, broker: Broker, redis_url: str
) -> None:
    """Whoever died right after COMMIT left a row, and an item that was in the batch each time."""

    def take(reference: str, *, came_back: int) -> Message:
        arguments = {"order_id": reference, "mobile": HOME, "operator": "CMCC"}
        message = Message(arguments, {"id": reference, "x-delivery-count": came_back})
        feed.take(Task("recharge.precheck", Lane.RECHARGE), message, None, None, None, None)
        return message

    def settled(*messages: Message) -> None:
        eventually(
            lambda: broker.turn() or all(each.acknowledged for each in messages), "the acknowledgements"
        )

    def guilty(ids: Sequence[str]) -> dict[str, Suspicion]:
        now = datetime.now(UTC)
        return {each: Suspicion(each, deaths=len(CAPS), first_at=now, last_at=now) for each in ids}

    settled(take("decided", came_back=0))
    bench.stores[0].suspicions.read = guilty  # type: ignore[method-assign,assignment]
    settled(take("decided", came_back=SUSPECT_AFTER), take("never decided", came_back=SUSPECT_AFTER))

    with bench.database.connect() as database:
        parked = database.execute(text("SELECT payload->>'order_id' FROM dead_letter")).scalars().all()
    assert parked == ["never decided"]
    with Redis.from_url(redis_url) as client:
        results = [json.loads(client.get(f"celery-task-meta-{each}")) for each in ("decided", *parked)]
    assert [each["status"] for each in results] == ["SUCCESS", "FAILURE"]


MOST_ITEMS = 2000
"""What a feed with one slot wants to hold; twice as many it reads at most."""


def long_message(bench: Bench, number: int) -> Message:
    """A thousand items; all messages' numbers are the same, so that one is bought once."""
    items = [
        {"message_id": f"{number}-{index}", "mobile": mobile, "operator": "CMCC"}
        for index, mobile in enumerate(bench.known_numbers(1000))
    ]
    return Message({"items": items}, {"id": f"long{number}"})


def take_seven(bench: Bench, feed: Feed, confirmed: threading.Event) -> list[Message]:
    """Seven long messages in a feed whose batches get no further than their events; three are not read."""
    publish = bench.publisher.publish

    def publish_later(events: Sequence[Event]) -> None:
        assert confirmed.wait(30)
        publish(events)

    bench.publisher.publish = publish_later  # type: ignore[method-assign]
    made = [long_message(bench, number) for number in range(7)]
    for message in made:
        feed.take(Task("sms.recheck_many", Lane.SMS, many=True), message, None, None, None, None)
    assert feed.items_held("sms") == 2 * MOST_ITEMS + 3
    assert feed.prefetch(Lane.SMS) == 0
    return made


def test_messages_beyond_the_items_wanted_are_read_once_there_is_room(
    bench: Bench, feed: Feed, broker: Broker
) -> None:
    confirmed = threading.Event()
    made = take_seven(bench, feed, confirmed)
    confirmed.set()
    eventually(lambda: broker.turn() or all(each.acknowledged for each in made), "all acknowledged")
    assert len(bench.publisher.events) == 7000
    assert feed.prefetch(Lane.SMS) == MOST_ITEMS // 1000


def test_messages_not_read_yet_are_given_back_with_the_others_of_a_lane_that_stops(
    bench: Bench, feed: Feed, broker: Broker
) -> None:
    confirmed = threading.Event()
    made = take_seven(bench, feed, confirmed)
    feed.stop(Lane.SMS)
    broker.turn()
    assert all(each.given_back for each in made[-3:])
    confirmed.set()
    eventually(
        lambda: broker.turn() or all(each.acknowledged or each.given_back for each in made), "all settled"
    )
    feed.go_on(Lane.SMS)
    assert feed.prefetch(Lane.SMS) == MOST_ITEMS // 1000


def test_messages_not_read_in_time_are_given_back_and_others_asked_for(
    bench: Bench, feed: Feed, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed = threading.Event()
    made = take_seven(bench, feed, confirmed)
    monkeypatch.setattr("worker.feed.LONGEST_WAIT_SECONDS", 0.0)
    feed.give_back_old()
    broker.turn()
    assert all(each.given_back for each in made[-3:])
    feed.go_on(Lane.SMS)
    assert feed.prefetch(Lane.SMS) == MOST_ITEMS // 1000
    confirmed.set()
