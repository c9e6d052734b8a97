"""Every event that left presend, as an independent subscriber sees it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import amqp
import redis

from tests.services import connect_amqp

_TAP = "acceptance.tap"
_EXCHANGE = "presend.events"


_PARSER = json.JSONDecoder()


def events_in(body: bytes) -> list[bytes]:
    """The events of a message, each with its own bytes; where one of a batch ends, the parser says."""
    text = body.decode()
    if not text.startswith("["):
        return [body]
    found, at = [], 1
    while at < len(text):
        _, end = _PARSER.raw_decode(text, at)
        found.append(text[at:end].encode())
        at = end + 1  # the comma, or the end
    return found


@dataclass(frozen=True)
class Received:
    """One event as it came."""

    body: bytes
    # AMQP's routing key; None on Redis
    routing_key: str | None

    @property
    def event(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded


class EventTap:
    """Reads on demand; what is not read yet waits in the broker."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._is_redis = broker_url.startswith("redis")
        self._last_id: Any = "-"
        self.received: list[Received] = []
        if not self._is_redis:
            self._bind()

    def read(self) -> list[Received]:
        """All events until now."""
        self.received += self._from_stream() if self._is_redis else self._from_queue()
        return self.received

    def by_id(self) -> dict[str, list[dict[str, Any]]]:
        """All events until now by id; those of one id must be byte-equal."""
        bodies: dict[str, set[bytes]] = defaultdict(set)
        events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in self.read():
            event = one.event
            bodies[event["id"]].add(one.body)
            events[event["id"]].append(event)
            assert one.routing_key in {None, event["type"]}
        differing = {key: body for key, body in bodies.items() if len(body) > 1}
        assert not differing, "events of one id differ"
        return events

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """The events of one type until now, repeated ones once."""
        return [events[0] for events in self.by_id().values() if events[0]["type"] == event_type]

    def subjects(self) -> set[str]:
        """References (or numbers) of all events until now."""
        return {events[0]["subject"] for events in self.by_id().values()}

    def close(self) -> None:
        if not self._is_redis:
            connection = connect_amqp(self._broker_url)
            connection.channel().queue_delete(_TAP)
            connection.close()

    def _bind(self) -> None:
        connection = connect_amqp(self._broker_url)
        channel = connection.channel()
        # as documented: durable, topic, no arguments; a subscriber may well be there first
        channel.exchange_declare(_EXCHANGE, "topic", durable=True, auto_delete=False)
        channel.queue_delete(_TAP)
        channel.queue_declare(_TAP, durable=True, auto_delete=False)
        channel.queue_bind(_TAP, _EXCHANGE, "#")
        connection.close()

    def _from_queue(self) -> list[Received]:
        found: list[Received] = []
        taken = 0
        connection = connect_amqp(self._broker_url)
        channel = connection.channel()
        waiting = channel.queue_declare(_TAP, passive=True).message_count
        if waiting:

            def take(message: amqp.Message) -> None:
                nonlocal taken
                taken += 1
                body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
                batch = "-batch" if body.startswith(b"[") else ""
                assert message.properties["content_type"] == f"application/cloudevents{batch}+json"
                assert message.properties["delivery_mode"] == 2
                found.extend(Received(one, message.delivery_info["routing_key"]) for one in events_in(body))
                if taken == waiting:
                    channel.basic_ack(message.delivery_tag, multiple=True)

            channel.basic_qos(0, waiting, False)
            channel.basic_consume(_TAP, callback=take)
            while taken < waiting:
                connection.drain_events(timeout=10)
        connection.close()
        return found

    def _from_stream(self) -> list[Received]:
        with redis.Redis.from_url(self._broker_url) as client:
            entries: Any = client.xrange(_EXCHANGE, min=self._last_id)
        if entries:
            self._last_id = "(" + entries[-1][0].decode()
        return [
            Received(body, None)
            for _, fields in entries
            for body in events_in(fields.get(b"events") or fields[b"event"])
        ]
