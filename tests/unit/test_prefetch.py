"""How many messages may be held, by what those held turn out to have."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.carrier.protocol import MAX_BATCH
from worker.prefetch import Prefetch

SLOTS = st.sampled_from([2_000, 4_000, 13_000])
SIZES = st.lists(st.sampled_from([1, 7, 100, 1000]), min_size=1, max_size=400)


@dataclass
class Worker:
    """A broker that hands out what may be held, and a worker that settles the oldest."""

    most_items: int
    backlog: list[int]
    read_up_to: int
    held: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefetch = Prefetch(self.most_items)

    def receive(self) -> bool:
        """One more message; whether one came."""
        if not self.backlog or len(self.held) + len(self.unread) >= self.prefetch.messages:
            return False
        full = self.unread or sum(self.held) > self.read_up_to
        (self.unread if full else self.held).append(self.backlog.pop(0))
        self.look()
        return True

    def settle(self) -> None:
        """The oldest that was read is done with; then what was not is."""
        self.held.pop(0)
        while self.unread and sum(self.held) <= self.read_up_to:
            self.held.append(self.unread.pop(0))
        self.look()

    def look(self) -> None:
        items = sum(self.held) + len(self.unread)
        self.prefetch.look(messages=len(self.held) + len(self.unread), items=items, unread=len(self.unread))


@pytest.mark.parametrize(("size", "held"), [(1, 13_000), (10, 1_300), (999, 13), (1000, 13)])
def test_as_many_are_held_as_make_the_items_wanted(size: int, held: int) -> None:
    worker = Worker(13_000, [size] * 20_000, read_up_to=26_000)
    while worker.receive():
        pass
    assert len(worker.held) == held


@given(most_items=SLOTS, sizes=SIZES)
def test_whatever_comes_everything_is_taken_and_memory_is_bounded(most_items: int, sizes: list[int]) -> None:
    worker = Worker(most_items, sizes * 10, read_up_to=2 * most_items)
    while worker.backlog or worker.held:
        while worker.receive():
            assert sum(worker.held) <= 2 * most_items + MAX_BATCH
            assert worker.prefetch.messages <= most_items
        assert worker.held, "it waits for messages that it does not let come"
        worker.settle()
    assert not worker.unread


def test_long_messages_among_short_ones_stop_it_from_asking_until_they_are_read() -> None:
    worker = Worker(13_000, [1] * 13_000 + [1000] * 100, read_up_to=26_000)
    while worker.receive():
        pass
    assert worker.prefetch.messages == 13_000
    while worker.backlog and worker.prefetch.messages:
        worker.settle()
        while worker.receive():
            pass
    assert worker.unread
    assert worker.prefetch.messages == 0
    while worker.unread:
        worker.settle()
    while sum(worker.held) > 13_000:
        worker.settle()
    assert worker.prefetch.messages == 13
