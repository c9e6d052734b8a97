"""Dead letters sent to their queues again.

A letter is marked only after the broker confirmed its message. A crash in between sends it twice, which the
worker recognises by its key. A message that is wrong still has a new id, so it becomes a new dead letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from worker.carrier.protocol import MAX_BATCH
from worker.queues import TASKS
from worker.storage import dead_letters, engine
from worker.storage.dead_letters import DeadLetter

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_AT_ONCE = 100
"""Letters a transaction: they stay locked while their messages are confirmed."""

NO_TASK = "its message named no task of presend's"
NO_ARGUMENTS = "its body is not a task's arguments"


class Sends(Protocol):
    """What a replay needs of a producer."""

    def send(self, task: str, arguments: Mapping[str, Any]) -> str:
        """Send one message and wait for its confirm."""
        ...


@dataclass(slots=True)
class Replayed:
    """What became of some letters."""

    sent: list[DeadLetter] = field(default_factory=list)
    # with the reason why it cannot be sent
    left: list[tuple[DeadLetter, str]] = field(default_factory=list)


def replay(database: Engine, producer: Sends, ids: Sequence[str]) -> Iterator[Replayed]:
    """Send these letters again, oldest first, each at most once; yields each part once it is marked.

    What somebody else replayed meanwhile is passed over.
    """
    for begin in range(0, len(ids), _AT_ONCE):
        part = ids[begin : begin + _AT_ONCE]

        def send(connection: Connection, part: Sequence[str] = part) -> Replayed:
            done = _sorted(dead_letters.take(connection, part))
            for letter in done.sent:
                for arguments in _messages(letter):
                    producer.send(str(letter.task), arguments)
            dead_letters.mark_replayed(connection, [letter.id for letter in done.sent])
            return done

        yield engine.transact(database, send)


def plan(database: Engine, ids: Sequence[str]) -> Replayed:
    """Return what :func:`replay` would do, doing nothing."""
    return _sorted(engine.transact(database, lambda to: dead_letters.take(to, ids)))


def _messages(letter: DeadLetter) -> Iterator[Mapping[str, Any]]:
    """A letter's arguments; items beyond what a message may carry go in messages of their own."""
    items = letter.payload.get("items")
    if not isinstance(items, list) or len(items) <= MAX_BATCH:
        yield letter.payload
        return
    for begin in range(0, len(items), MAX_BATCH):
        yield letter.payload | {"items": items[begin : begin + MAX_BATCH]}


def _sorted(letters: Sequence[DeadLetter]) -> Replayed:
    """Letters that can be sent, and those that cannot with the reason."""
    found = Replayed()
    for letter in letters:
        obstacle = why_not(letter)
        if obstacle is None:
            found.sent.append(letter)
        else:
            found.left.append((letter, obstacle))
    return found


def why_not(letter: DeadLetter) -> str | None:
    """Why a letter cannot be sent again, or None where it can."""
    if letter.task not in TASKS:
        return NO_TASK
    payload = letter.payload
    if not isinstance(payload, dict) or (
        "base64" in payload and payload.keys() <= {"base64", "content_type"}
    ):
        return NO_ARGUMENTS
    return None
