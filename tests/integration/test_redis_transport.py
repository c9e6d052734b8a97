"""kombu over presend's Redis transport: what it takes, gives back, waits for and survives."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue

from tests.acceptance.waiting import eventually
from tests.services import messages_left
from tests.services.own_engines import OwnRedis, own_redis
from worker import redis_broker
from worker.redis_broker.scripts import HELD, HOLDERS


def queue(name: str) -> Queue:
    return Queue(name, Exchange(""), routing_key=name)


def left(server: OwnRedis) -> dict[str, int]:
    return messages_left(server.url, ("recharge", "sms", "presend.dead"))


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    redis_broker.install()
    with own_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(module_server: OwnRedis) -> OwnRedis:
    with module_server.client() as client:
        client.flushall()
    return module_server


class Taker:
    """A connection that consumes both queues and keeps what it gets."""

    def __init__(self, url: str, *, prefetch: int = 0) -> None:
        self.connection: Any = Connection(url)
        self.channel = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.consumer = Consumer(
            self.channel, [queue("recharge"), queue("sms")], on_message=self._received, accept=["json"]
        )
        self.consumer.consume()
        self.messages: list[Any] = []

    def _received(self, message: Any) -> None:
        self.messages.append(message)

    def drain(self, *, until: int | None = None, seconds: float = 0.5) -> list[int]:
        """Receive until there are so many, or for so long; the numbers of all until now."""
        deadline = time.monotonic() + (10 if until else seconds)
        while time.monotonic() < deadline and (until is None or len(self.messages) < until):
            try:
                self.connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue
        return [message.decode() for message in self.messages]


@pytest.fixture
def taker(server: OwnRedis) -> Iterator[Taker]:
    one = Taker(server.url, prefetch=150)
    yield one
    one.connection.release()


def send(server: OwnRedis, *numbers: int, to: str = "sms", **properties: Any) -> None:
    with Connection(server.url) as connection:
        producer = Producer(connection.channel())
        for number in numbers:
            producer.publish(number, exchange="", routing_key=to, serializer="json", **properties)


def test_no_more_is_taken_than_prefetch_allows(server: OwnRedis, taker: Taker) -> None:
    send(server, *range(200))
    assert taker.drain() == list(range(150))
    assert left(server) == {"sms": 50, "held": 150}
    for message in taker.messages[:70]:
        message.ack()
    assert taker.drain(until=200) == list(range(200))
    eventually(lambda: left(server) == {"held": 130}, "the acknowledgements")
    taker.connection.release()
    assert left(server) == {"sms": 130}, "a closed connection holds nothing"


def test_prefetch_counts_items_of_each_queue_where_somebody_tells_them(
    server: OwnRedis, taker: Taker
) -> None:
    """Of messages with ten items 150 leaves room for 15; a queue that is full keeps nobody from another."""
    each = {"sms": 10, "recharge": 1}
    came: Counter[str] = Counter()
    taker.consumer.on_message = lambda message: (
        came.update([message.delivery_info["routing_key"]]) or taker.messages.append(message)
    )
    taker.channel.items_held = lambda queue: came[queue] * each[queue]
    send(server, *range(200))
    taker.drain(until=15)
    assert len(taker.drain()) == 15
    send(server, 1000, to="recharge")
    assert taker.drain(until=16)[-1] == 1000
    came["sms"] -= 2
    assert len(taker.drain()) == 18


def test_a_queue_is_cancelled_and_consumed_again(server: OwnRedis, taker: Taker) -> None:
    taker.consumer.cancel_by_queue("sms")
    send(server, 1, 2)
    send(server, 3, to="recharge")
    assert taker.drain() == [3]
    assert left(server) == {"sms": 2, "held": 1}
    taker.consumer.add_queue(queue("sms"))
    taker.consumer.consume()
    assert taker.drain(until=3) == [3, 1, 2]


def test_what_a_cancelled_queue_still_brings_goes_back(server: OwnRedis, taker: Taker) -> None:
    taker.drain(seconds=0.3)  # a take is on its way, and waits
    taker.consumer.cancel_by_queue("sms")
    send(server, 1)
    assert taker.drain() == []
    assert left(server) == {"sms": 1}


def test_rejected_messages(server: OwnRedis, taker: Taker) -> None:
    send(server, 1, 2)
    taker.drain(until=2)
    taker.messages[0].reject()
    taker.messages[1].requeue()
    assert taker.drain(until=3) == [1, 2, 2]
    eventually(lambda: left(server) == {"held": 1}, "one message")


def test_priorities_are_taken_in_kombus_order(server: OwnRedis, taker: Taker) -> None:
    for number, priority in enumerate((9, 6, 3, 0)):
        send(server, number, priority=priority)
    assert taker.drain(until=4) == [3, 2, 1, 0]


def test_many_may_wait_and_one_gets_it(server: OwnRedis) -> None:
    takers = [Taker(server.url) for _ in range(4)]
    running = [threading.Thread(target=one.drain, kwargs={"seconds": 2.0}) for one in takers]
    for one in running:
        one.start()
    for number in range(40):
        send(server, number)
    for one in running:
        one.join()
    got = sorted(message.decode() for one in takers for message in one.messages)
    for one in takers:
        one.connection.release()
    assert got == list(range(40))


def test_goes_on_after_redis_was_emptied(server: OwnRedis, taker: Taker) -> None:
    send(server, 1)
    taker.drain(until=1)
    with server.client() as client:
        client.flushall()
    taker.messages[0].ack()
    send(server, 2)
    assert taker.drain(until=2) == [1, 2]
    assert left(server) == {"held": 1}


def test_a_full_redis_can_be_emptied(server: OwnRedis) -> None:
    send(server, *range(250))
    with server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            taker = Taker(server.url)
            taker.drain(until=250)
            for message in taker.messages:
                message.ack()
            eventually(lambda: not left(server), "an empty server")
            taker.drain(seconds=0.3)  # where the wait is refused, too
        finally:
            client.config_set("maxmemory", 0)
    send(server, 250)
    assert taker.drain(until=251)[-1] == 250
    taker.connection.release()


def test_the_dead_are_counted_in_the_header(server: OwnRedis, taker: Taker) -> None:
    """Whoever held the message vanished; within seconds it comes to another, with how often that was."""
    taker.consumer.cancel_by_queue("sms")
    send(server, 1)
    with server.client() as client:
        element = client.rpop("sms")
        client.hset(f"{HELD}dead", mapping={"1": b"sms\n" + element, "last": 1})  # type: ignore[operator]
        client.zadd(HOLDERS, {"dead": 1})
        eventually(lambda: left(server) == {"sms": 1}, "what the dead one held")
    taker.consumer.add_queue(queue("sms"))
    taker.consumer.consume()
    taker.drain(until=1)
    assert taker.messages[0].headers["x-delivery-count"] == 1


def test_a_single_message_can_be_got(server: OwnRedis) -> None:
    send(server, 1, 2)
    with Connection(server.url) as connection:
        bound = queue("sms")(connection.channel())
        bound.get().ack()
        bound.get()
        assert bound.get() is None
    assert left(server) == {"sms": 1}
