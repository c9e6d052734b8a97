"""What becomes of a message, from its receipt to its acknowledgement, over a broker that is the test's."""

from __future__ import annotations

import json
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

    def turn(self) -> None:
        while self.calls:
            self.calls.popleft()()


@dataclass
class Message:
    """A delivered message of Celery's protocol 2."""

    arguments: dict[str, Any]
    headers: dict[str, Any]
    acknowledged: bool = False
    content_type: str = "application/json"
    delivery_info: dict[str, Any] = field(default_factory=lambda: {"redelivered": False})

    @property
    def body(self) -> bytes:
        return json.dumps([[], self.arguments, {}]).encode()

    def ack_log_error(self, *_: Any) -> None:
        self.acknowledged = True


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
        intake={Lane.RECHARGE: Intake(Lane.RECHARGE)},
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


def test_an_item_found_guilty_is_not_parked_where_one_of_the_deaths_had_decided_it(
    bench: Bench, feed: Feed, broker: Broker
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
