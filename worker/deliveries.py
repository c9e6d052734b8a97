"""A delivery: one queue message held until it is settled, shown to Flower and ``celery inspect`` as a task.

Arguments are masked before they leave this module.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from worker.errors import Rejected
from worker.portability import letter_ids
from worker.portability.json_kinds import NOT_JSON
from worker.portability.msisdn import mask_all
from worker.portability.records import CheckedRequest
from worker.portability.requests import CheckRequest, Lane
from worker.results import TaskResult
from worker.storage.dead_letters import DeadLetter
from worker.storage.ids import new_id

_LONGEST_ARGUMENTS = 400


class Delivery(msgspec.Struct, eq=False, weakref=True):
    """One message, from receipt to acknowledgement; also Celery's idea of a request."""

    # kombu's message; only the consumer's own thread may acknowledge it
    message: Any
    # the task's id, as its producer knows it; made up where the message has none
    id: str
    # the task's name, as Flower shows it
    name: str
    lane: Lane | None
    # whether the message is a `*_many`
    many: bool
    arguments: Mapping[str, Any]
    received_at: datetime
    wants_result: bool = True
    # items it has, and those still to be settled
    items: int = 1
    left: int = 1
    # a result per item, in item order
    values: list[Any] = []
    # why the whole message was rejected
    reason: str | None = None
    # how many of its items came to each, in words
    decisions: dict[str, int] = {}
    # monotonic seconds at which a batch took it
    started: float | None = None
    acknowledged: bool = False
    # of its dead letters, once an item's was asked for
    _first_letter_id: int | None = None
    # Celery asks a request for its task's acks_late
    task: Any = None
    # … and gives it a new event dispatcher after a reconnect
    eventer: Any = None
    # its span, where traces are on
    trace: Any = None

    def expect(self, items: int) -> None:
        """Say how many items have to be settled."""
        self.items = self.left = items
        self.values = [None] * items

    def decided(self, index: int, row: CheckedRequest, data: Any) -> None:
        """Settle an item with its decision."""
        self.values[index] = data
        self._count(f"{row.decision} ({row.reason})")
        self.left -= 1

    def rejected(self, index: int, reason: str) -> None:
        """Settle an item as a dead letter."""
        if self.many:
            self.values[index] = {"rejected": reason}
            self._count("rejected")
        else:
            self.reason = reason
        self.left -= 1

    def _count(self, decision: str) -> None:
        self.decisions[decision] = self.decisions.get(decision, 0) + 1

    def result(self) -> TaskResult:
        """What the producer's ``.get()`` returns or raises."""
        if self.reason is not None:
            return TaskResult(self.id, rejected=self.reason)
        return TaskResult(self.id, value=self.values if self.many else self.values[0])

    @property
    def may_have_come_before(self) -> bool:
        """Whether the message may have been delivered before; Redis does not say, so there it always may."""
        return bool(self.message.delivery_info.get("redelivered", True))

    def letter_id(self, index: int) -> int:
        """The id of an item's dead letter: the same whenever the message is delivered again."""
        if self._first_letter_id is None:
            self._first_letter_id = letter_ids.first_of(self.id, _digest(self.message))
        return letter_ids.of_item(self._first_letter_id, index)

    def letter(
        self, index: int, arguments: Any, reason: str, request: CheckRequest | None = None
    ) -> DeadLetter:
        """Return the dead letter of one item; with its request, it is not parked where that has its row."""
        single_task = self.name.removesuffix("_many")
        return DeadLetter(
            letter_ids.written(self.letter_id(index)),
            single_task,
            arguments,
            reason,
            _queue(self.message),
            self.received_at,
            request=request,
        )

    def summary(self) -> str:
        """The decisions in words, for Flower's result column."""
        if not self.many:
            return next(iter(self.decisions), "")
        shown = (f"{count} {decision}" for decision, count in Counter(self.decisions).most_common())
        return ", ".join(shown) or "no items"

    def masked_arguments(self) -> str:
        """The arguments for human eyes: numbers masked, long lists counted."""
        shown = {
            name: f"<{len(value)} items>" if isinstance(value, list) else value
            for name, value in self.arguments.items()
        }
        if isinstance(number := shown.get("mobile"), str):
            shown["mobile"] = mask_all(number)  # by itself, for in a longer text it takes ten times as long
        text = mask_all(repr(shown))
        return text if len(text) <= _LONGEST_ARGUMENTS else text[:_LONGEST_ARGUMENTS] + "…"

    # -- what celery.worker.state and the remote control commands expect of a request ---------

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - always safe
        """Describe this delivery for ``celery inspect active|reserved``."""
        return {
            "id": self.id,
            "name": self.name,
            "args": [],
            "kwargs": self.masked_arguments(),
            "hostname": None,
            "time_start": self.started,
            "acknowledged": self.acknowledged,
            "delivery_info": {"routing_key": _queue(self.message)},
        }

    def cancel(self, pool: Any, emit_retry: bool = True) -> None:
        """Do nothing: an unacknowledged message goes back to its queue by itself."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """The body and headers of a message in the documented form."""

    arguments: Mapping[str, Any]
    expires: datetime | None


def read_message(message: Any) -> Read:
    """Read a Celery protocol 2 message; ``Rejected`` says what is wrong with it."""
    if message.content_type != "application/json":
        raise Rejected(f"content type {mask_all(str(message.content_type))[:60]!r}: send application/json")
    headers = message.headers
    if headers.get("eta") is not None:
        raise Rejected("eta and countdown are not supported: send the message when it is due")
    try:
        body = msgspec.json.decode(_raw(message))
    except NOT_JSON:
        raise Rejected(_why_no_json(_raw(message))) from None
    if not (
        isinstance(body, list) and len(body) == 3 and isinstance(body[0], list) and isinstance(body[1], dict)
    ):
        raise Rejected(
            "the body is not [args, kwargs, embed] of Celery's protocol 2: send it with Celery, or so"
        )
    if body[0]:
        raise Rejected("arguments must be given by name, not by position")
    return Read(body[1], _expires(headers.get("expires")))


def _why_no_json(body: bytes) -> str:
    """Python's own json, so Celery's serializer too, writes three numbers that JSON does not have."""
    found: list[str] = []
    with suppress(ValueError, RecursionError):
        json.loads(body.decode(), parse_constant=found.append)
        if found:
            return (
                f"the body is not valid JSON, for it holds {found[0]}: send a finite number, or leave it out"
            )
    return "the body is not valid JSON in UTF-8: send it with Celery's json serializer"


def _expires(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Rejected(
            "the header expires is not an ISO 8601 time such as 2026-11-24T09:30:00+08:00"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def is_json(message: Any) -> bool:
    """Whether a message's body is JSON, whatever its content type says."""
    try:
        msgspec.json.decode(_raw(message))
    except NOT_JSON:
        return False
    return True


def unreadable_letter(message: Any, *, reason: str, received_at: datetime) -> DeadLetter:
    """Return the dead letter of a message that could not be read; its payload is what came."""
    task_id = _text(message.headers, "id")
    return DeadLetter(
        _whole_id(task_id, message) if task_id else new_id(),
        _text(message.headers, "task"),
        _payload(message),
        reason,
        _queue(message),
        received_at,
    )


def task_id_of(message: Any) -> str:
    """The message's task id, or a new one."""
    return _text(message.headers, "id") or new_id()


def _whole_id(task_id: str, message: Any) -> str:
    return letter_ids.written(letter_ids.of_whole(letter_ids.first_of(task_id, _digest(message))))


def _digest(message: Any) -> str:
    return sha256(_raw(message)).hexdigest()


def _raw(message: Any) -> bytes:
    body = message.body or b""
    return body.encode() if isinstance(body, str) else bytes(body)


def _payload(message: Any) -> Any:
    body = _raw(message)
    try:
        decoded = msgspec.json.decode(body)
    except NOT_JSON:
        return {"base64": base64.b64encode(body).decode(), "content_type": _shown(message.content_type)}
    if isinstance(decoded, list) and len(decoded) == 3 and decoded[0] == [] and isinstance(decoded[1], dict):
        return decoded[1]
    return decoded


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)[:100]


def _queue(message: Any) -> str | None:
    routing_key = (message.delivery_info or {}).get("routing_key")
    return None if routing_key is None else str(routing_key)


def _text(headers: Any, name: str) -> str | None:
    value = headers.get(name) if isinstance(headers, Mapping) else None
    return value if isinstance(value, str) and value else None
