"""Ids of dead letters: those of a message and its items follow from it, so each is parked once.

An id is a UUID whose last 16 bits are the item's place in its message, so all letters of a message lie in one
range: whether one was parked before is asked of a message, not of each of its items. Here they are whole
numbers, for every item may have one and hardly any is ever written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby
from uuid import UUID, uuid5

_NAMESPACE = UUID("5a8f6f1c-7d0e-5b52-9f0e-0c1b6f6d2a55")
_PLACES = 1 << 16


def first_of(task_id: str, digest: str) -> int:
    """The id of a message's first item; ``digest`` is its body's, for a task id may be used again."""
    return uuid5(_NAMESPACE, f"{task_id}:{digest}").int & -_PLACES


def of_item(first: int, place: int) -> int:
    """The id of the item at this place, from 0."""
    return first + place


def of_whole(first: int) -> int:
    """The id of a message that is parked as a whole: the last of its range."""
    return first + _PLACES - 1


def messages(letter_ids: Iterable[int]) -> list[tuple[int, int]]:
    """The messages that these letters come from: the first and the last id of each."""
    firsts = dict.fromkeys(letter_id & -_PLACES for letter_id in letter_ids)
    return [(first, first + _PLACES - 1) for first in firsts]


def runs(letter_ids: Collection[int]) -> list[tuple[int, int]]:
    """These ids and no others: the first and the last of each run of neighbours."""
    ordered = sorted(letter_ids)
    if ordered and ordered[-1] - ordered[0] == len(ordered) - 1:  # the items of one message
        return [(ordered[0], ordered[-1])]
    neighbours = groupby(enumerate(ordered), key=lambda placed: placed[1] - placed[0])
    found = [[letter_id for _, letter_id in run] for _, run in neighbours]
    return [(run[0], run[-1]) for run in found]


def written(letter_id: int) -> str:
    """An id as a dead letter bears it."""
    return str(UUID(int=letter_id))
