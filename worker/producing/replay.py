"""Dead letters sent to their queues again.

A letter is marked only after the broker confirmed its message. A crash in between sends it twice, which the
worker recognises by its key. A message that is wrong still has a new id, so it becomes a new dead letter.

With a cap, letters are priced in the transaction that holds them, and one that would pass the cap stays;
cheaper ones after it still go.

It may spend money, so who replays what, why and under which cap is written down first, and what came of it
last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from worker.carrier.protocol import MAX_BATCH
from worker.producing.pricing import Price, Pricing
from worker.queues import TASKS
from worker.storage import dead_letters, engine, operator_actions
from worker.storage.dead_letters import DeadLetter

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_AT_ONCE = 100
"""Letters a transaction: they stay locked while their messages are confirmed."""

NO_TASK = "its message named no task of presend's"
NO_ARGUMENTS = "its body is not a task's arguments"
OVER_THE_CAP = "their look-ups would pass the cap"


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
    # what those sent cost at most, where it was asked for
    prices: list[Price] = field(default_factory=list)

    def add(self, other: Replayed) -> None:
        """Add another part."""
        self.sent += other.sent
        self.left += other.left
        self.prices += other.prices

    @property
    def look_ups(self) -> int:
        """The most that those sent buy."""
        return sum(price.look_ups for price in self.prices)

    @property
    def numbers(self) -> int:
        """The different numbers among what they buy."""
        return len({msisdn for price in self.prices for msisdn in price.to_buy})


class Cap:
    """How many look-ups may be bought, by how each letter is priced; None: as many as it takes."""

    def __init__(self, pricing: Pricing, most: int | None) -> None:
        self._pricing = pricing
        self._left = most

    def sort(self, connection: Connection, found: Replayed) -> Replayed:
        """Leave the letters that would pass the cap, and price the others."""
        kept = Replayed(left=found.left)
        prices = self._pricing.of(connection, found.sent, now=datetime.now(UTC))
        for letter, price in zip(found.sent, prices, strict=True):
            if self._left is not None and price.look_ups > self._left:
                kept.left.append((letter, OVER_THE_CAP))
                continue
            if self._left is not None:
                self._left -= price.look_ups
            kept.sent.append(letter)
            kept.prices.append(price)
        return kept


def replay(
    database: Engine, producer: Sends, ids: Sequence[str], cap: Cap | None = None
) -> Iterator[Replayed]:
    """Send these letters again, oldest first, each at most once; yields each part once it is marked.

    What somebody else replayed meanwhile is passed over.
    """
    for part in _parts(ids):

        def send(connection: Connection, part: Sequence[str] = part) -> Replayed:
            done = _sorted(dead_letters.take(connection, part))
            if cap is not None:
                done = cap.sort(connection, done)
            for letter in done.sent:
                for arguments in _messages(letter):
                    producer.send(str(letter.task), arguments)
            dead_letters.mark_replayed(connection, [letter.id for letter in done.sent])
            return done

        yield engine.transact(database, send)


def note_begin(database: Engine, *, who: str, why: str, chosen: str, most: int | None) -> None:
    """Write down who is about to replay which letters, why, and how many look-ups that may buy at most."""
    cap = "without a cap" if most is None else _at_most(most)
    _note(database, who, f"{why} ({cap}; {chosen})")


def note_end(database: Engine, done: Replayed, *, who: str, letters: int, stopped: bool = False) -> None:
    """Write down how many of these letters were sent; ``stopped``: a fault or a person ended it early."""
    outcome = f"{len(done.sent):,} of {letters:,} letters sent, {_at_most(done.look_ups)}"
    _note(database, who, f"{outcome}; stopped before its end" if stopped else outcome)


def _at_most(look_ups: int) -> str:
    return f"at most {look_ups:,} look-up{'' if look_ups == 1 else 's'}"


def _note(database: Engine, who: str, what: str) -> None:
    engine.transact(
        database,
        partial(
            operator_actions.add,
            who=who,
            action="replay",
            subject="dead letters",
            reason=operator_actions.reason(what),
        ),
    )


def plan(database: Engine, ids: Sequence[str], cap: Cap | None = None) -> Replayed:
    """Return what :func:`replay` would do, doing nothing."""
    planned = Replayed()
    for part in _parts(ids):

        def look(connection: Connection, part: Sequence[str] = part) -> Replayed:
            found = _sorted(dead_letters.take(connection, part))
            return found if cap is None else cap.sort(connection, found)

        planned.add(engine.transact(database, look))
    return planned


def _parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[begin : begin + _AT_ONCE] for begin in range(0, len(ids), _AT_ONCE))


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
