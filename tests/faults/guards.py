"""The guards that can be switched off, one by one: the checker must object to every run without one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.faults.patching import CLAIM, around_statement, wrap


def _late_acks() -> None:
    """Messages are acknowledged when they are received."""

    def take(
        original: Callable[..., Any], feed: Any, task: Any, message: Any, *rest: Any, **more: Any
    ) -> None:
        original(feed, task, message, *rest, **more)
        message.channel.basic_ack(message.delivery_tag)

    wrap("worker.feed:Feed.take", take)
    wrap("kombu.message:Message.ack_log_error", lambda _original, *_: None)


def _claims() -> None:
    """A number in flight is bought by whoever else wants it."""
    around_statement(CLAIM, first=lambda connection: connection.execute("DELETE FROM in_flight"))


def _intent() -> None:
    """A call is made without having been named."""

    def forget(connection: Any) -> None:
        connection.execute("DELETE FROM in_flight")
        connection.execute("DELETE FROM lookup_call WHERE outcome = 'calling'")

    around_statement(CLAIM, then=forget)


def _relay() -> None:
    """Nobody sends the events of a worker that died between its commit and its confirms."""
    wrap("worker.upkeep:Upkeep.relay", lambda *_args, **_kwargs: 0)


def _event_ids() -> None:
    """An event's id is made up instead of following from its key."""
    wrap("worker.portability.events:event_id", lambda *_: str(uuid.uuid4()))


GUARDS: dict[str, Callable[[], None]] = {
    "late acks": _late_acks,
    "claims": _claims,
    "intent": _intent,
    "relay": _relay,
    "event ids": _event_ids,
}
