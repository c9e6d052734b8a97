"""The broker: on RabbitMQ the queues and the exchange as they must be. Nothing is declared or changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Queue

from worker.doctor import redis
from worker.doctor.finding import Finding, fail, ok, warn
from worker.publisher import EVENTS
from worker.queues import DEAD_QUEUE, dead_queue, lane_queues

if TYPE_CHECKING:
    from worker.config import Settings

_SECONDS = 5
_FIRST_VERSION = (3, 10)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the broker the settings name."""
    if settings.broker_is_redis:
        yield from redis.as_broker(settings.broker_url)
        return
    with Connection(settings.broker_url, connect_timeout=_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, timeout=_SECONDS)
        yield _version(connection)
        for queue in (*lane_queues(redis=False), dead_queue()):
            yield _queue(connection, queue)
        yield _exchange(connection)


def _version(connection: Connection) -> Finding:
    its: Any = connection.connection
    words = str(its.server_properties.get("version", ""))
    parts = tuple(int(part) for part in words.split(".")[:2] if part.isdigit())
    if parts and parts < _FIRST_VERSION:
        return fail("RabbitMQ", f"version {words}", "presend needs 3.10 or newer")
    return ok("RabbitMQ", f"version {words}")


def _queue(connection: Connection, queue: Queue) -> Finding:
    """A declaration with the same arguments changes nothing; it is made only where the queue is there."""
    subject = f"RabbitMQ, queue {queue.name}"
    try:
        with connection.channel() as channel:
            there: Any = queue(channel)
            found = there.queue_declare(passive=True)
    except NotFound:
        return warn(subject, "not there", "start presend worker, which declares it")
    try:
        with connection.channel() as channel:
            queue(channel).queue_declare()
    except PreconditionFailed as exc:
        return fail(
            subject,
            f"it has other arguments: {exc.reply_text}",
            "a producer declared it first: stop that, empty and delete the queue, and let producers declare "
            "it as the README's recipe does (quorum, dead-lettering to presend.dead)",
        )
    waiting = found.message_count
    if queue.name == DEAD_QUEUE and waiting:
        return warn(subject, f"{waiting:,} messages", "run presend worker: upkeep takes them to dead_letter")
    if queue.name != DEAD_QUEUE and waiting and not found.consumer_count:
        return warn(
            subject,
            f"{waiting:,} messages wait, and nobody takes them",
            "start presend worker; where one runs, see whether the lane is stopped: presend gate show, and "
            "celery -A worker.app inspect lanes",
        )
    return ok(subject, f"as it must be, {waiting:,} messages wait")


def _exchange(connection: Connection) -> Finding:
    subject = f"RabbitMQ, exchange {EVENTS}"
    try:
        with connection.channel() as channel:
            its: Any = channel
            its.exchange_declare(EVENTS, "topic", passive=True)
    except NotFound:
        return warn(subject, "not there", "start presend worker, which declares it, then bind your queues")
    try:
        with connection.channel() as channel:
            its = channel
            its.exchange_declare(EVENTS, "topic", durable=True, auto_delete=False)
    except PreconditionFailed as exc:
        return fail(
            subject,
            f"it is of another kind: {exc.reply_text}",
            "delete it; presend worker declares it durable, of type topic; bind your queues again",
        )
    return ok(subject, "durable, topic")
