"""Deliberate breakages, one guard each: the simulation must see every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import worker.asking
import worker.pipeline
import worker.sharing
import worker.upkeep
from tests.simulation.memory_store import MemoryStore
from worker.asking import Asking
from worker.batch import CONFLICT, Batch
from worker.batching import BatchOutcome
from worker.buyer import Buyer
from worker.errors import NotConfirmed
from worker.feed import Feed
from worker.lane import LaneRunner
from worker.pipeline import Pipeline
from worker.portability import changes, events
from worker.sharing import Sharing
from worker.storage.ids import new_id
from worker.storage.presence import Absences
from worker.upkeep import Upkeep

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Breakage:
    """One guard switched off, and a pattern of what must be said then."""

    name: str
    patches: Sequence[Patch]
    seen_as: str
    # the first schedule to try, where one that needs many things at once is seen soon after
    from_seed: int = 0

    @contextmanager
    def made(self) -> Iterator[None]:
        with ExitStack() as stack:
            for target, name, stand_in in self.patches:
                stack.enter_context(patch.object(target, name, stand_in))
            yield

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def _around(target: Any, name: str, change: Callable[..., Any]) -> Patch:
    """A method that is given the original first."""
    original = getattr(target, name)

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        return change(partial(original, self), self, *args, **kwargs)

    return target, name, changed


def _acknowledge_at_once(original: Any, feed: Any, delivery: Any, items: Any) -> None:
    original(delivery, items)
    feed._on_consumer_thread(partial(feed._acknowledge, [delivery]))


def _publish_first(pipeline: Any, waiters: Any, **_options: Any) -> BatchOutcome:
    batch = Batch.of(waiters, pipeline._now())
    known = pipeline._look_up(batch)
    pipeline._answer_without_asking(batch, known)
    purchase = pipeline._asking.ask(batch, known)
    pipeline._decide(batch)
    pipeline._publish(batch, batch.decided())
    pipeline._settle(batch, purchase)
    return batch.outcome


def _take_everything(_original: Any, _sharing: Any, batch: Batch, claim: Any) -> None:
    claim.held.update(batch.wanted())


def _forget_overtaken(original: Any, store: Any, call: Any, keys: Any, overtaken: Any) -> Any:
    held = original(call, keys, overtaken)
    if call.id in store.tables.calls:
        store.tables.calls[call.id].overtaken = store.tables.calls[call.id].overtaken_from = None
    return held


def _do_not_look_again(original: Any, _sharing: Any, batch: Any, claim: Any) -> Any:
    return original(batch, replace(claim, rows={}))


def _ask_behind_the_gate(original: Any, _asking: Any, batch: Any, known: Any) -> Any:
    return original(batch, replace(known, closed_gate=None))


def _grant_each_probe(store: MemoryStore, _account: str, _lane: Any, *, hold_seconds: float) -> datetime:
    return store.tables.now() + timedelta(seconds=hold_seconds)


def _refund_again(store: Any, call_id: str, spent: int) -> None:
    row = store.tables.calls.get(call_id)
    if row is not None and row.reserved is not None:
        store.tables.days[row.budget_day] += spent - row.reserved


def _grant_all(original: Any, store: Any, call: Any, wanted: int) -> int:
    original(call, 0)
    row = store.tables.calls[call.id]
    day = next(iter(reversed(store.tables.days)))
    store.tables.days[day] += wanted
    row.reserved, row.budget_day = wanted, day
    return wanted


def _halve_and_drop(original: Any, _buyer: Any, purchase: Any, call: Any, numbers: Any, refusal: Any) -> Any:
    halves = original(purchase, call, numbers, refusal)
    return [halves[0], halves[1][1:]] if len(halves) == 2 and len(halves[1]) > 1 else halves


def _never_halve(original: Any, buyer: Any, *asked: Any) -> Any:
    purchase, call, numbers, refusal = asked
    if len(numbers) == 1:
        return original(purchase, call, numbers, refusal)
    buyer._failed(purchase, call, numbers, refusal, outcome="refused", billed=0)
    return []


def _blame_all(original: Any, buyer: Any, *asked: Any) -> Any:
    purchase, call, numbers, refusal = asked
    purchase.refused.update(dict.fromkeys(numbers, refusal.code))
    return _never_halve(original, buyer, purchase, call, numbers, refusal)


def _first_words_of_before(lane: Any, outcome: BatchOutcome) -> BatchOutcome:
    outcome.decided = [(waiter, row) for waiter, row in outcome.decided if not waiter.settled]
    outcome.rejected = [(waiter, why) for waiter, why in outcome.rejected if not waiter.settled]
    for waiter, _ in (*outcome.decided, *outcome.rejected):
        waiter.settled = True
    return outcome


def _reject_in_the_batch(waiters: Any, now: Any) -> Batch:
    batch = Batch(new_id(), waiters[0].request.lane, now)
    for waiter in waiters:
        group = batch.by_key.setdefault(waiter.request.key, [])
        if group and not group[0].request.same_question(waiter.request.msisdn, waiter.request.operator):
            batch.outcome.rejected.append((waiter, CONFLICT))
        else:
            group.append(waiter)
    return batch


def _mark_whatever(original: Any, pipeline: Any, batch: Any, decided: Any) -> None:
    publisher = pipeline._publisher

    def publish(outgoing: Any) -> None:
        try:
            publisher.publish(outgoing)
        except NotConfirmed:
            return

    pipeline._publisher = SimpleNamespace(publish=publish)
    try:
        original(batch, decided)
    finally:
        pipeline._publisher = publisher


def _last_row_stands(original: Any, store: Any, settlement: Any) -> Any:
    for row in settlement.rows:
        store.tables.ledger.pop(row.key, None)
    return original(settlement)


def _put_anything(store: Any, record: Any) -> None:
    store.tables.records[record.msisdn] = record


_RANDOM_IDS = SimpleNamespace(
    event_id=lambda _key: str(uuid4()), of_check=events.of_check, of_port_change=events.of_port_change
)

BREAKAGES = (
    Breakage(
        "acknowledged before it is settled",
        [_around(Feed, "_feed_lane", _acknowledge_at_once)],
        "acknowledged",
    ),
    Breakage("published before the commit", [(Pipeline, "run_batch", _publish_first)], "not committed"),
    Breakage("dead letters are not kept", [(Pipeline, "park", lambda _self, _letters: {})], "acknowledged"),
    Breakage("claims are ignored", [_around(Sharing, "_wait_for_others", _take_everything)], "call"),
    Breakage("overtaking is not listed", [_around(MemoryStore, "_hold", _forget_overtaken)], ""),
    Breakage(
        "a claim does not look for rows",
        [_around(Sharing, "_answer_from", _do_not_look_again)],
        "bought for",
        from_seed=5000,
    ),
    Breakage("event ids are random", [(worker.pipeline, "events", _RANDOM_IDS)], "id"),
    Breakage("the relay rests", [(Upkeep, "relay", lambda _self: 0)], "for ever"),
    Breakage(
        "the relay sends nothing", [(worker.upkeep, "_events_of", lambda _rows, _changes: [])], "marked"
    ),
    Breakage("marked though not confirmed", [_around(Pipeline, "_publish", _mark_whatever)], "marked"),
    Breakage(
        "a late answer overwrites a newer record",
        [(changes, "merged", lambda _old, new: new), (MemoryStore, "_put", _put_anything)],
        "record",
    ),
    Breakage("the last row stands", [_around(MemoryStore, "_settle", _last_row_stands)], ""),
    Breakage("purchases are not counted", [(worker.asking, "MOST_PURCHASES", 99)], "fourth"),
    Breakage(
        "the breaker is ignored",
        [(worker.asking, "_hold_back", lambda _batch, _breaker: None)],
        "more than one number",
    ),
    Breakage(
        "everybody probes",
        [(MemoryStore, "may_probe", _grant_each_probe)],
        "two probes",
    ),
    Breakage("the gate is ignored", [_around(Asking, "ask", _ask_behind_the_gate)], "gate"),
    Breakage("the budget gives back twice", [(MemoryStore, "_settle_budget", _refund_again)], "budget"),
    Breakage("the budget grants everything", [_around(MemoryStore, "_take", _grant_all)], "overdrawn"),
    Breakage("halving drops a number", [_around(Buyer, "_refused", _halve_and_drop)], "defect"),
    Breakage("a refused batch is not halved", [_around(Buyer, "_refused", _never_halve)], "for ever"),
    Breakage("neighbours are blamed", [_around(Buyer, "_refused", _blame_all)], "good number"),
    Breakage(
        "a request may be settled twice",
        [(LaneRunner, "_first_words", _first_words_of_before)],
        "for ever|is acknowledged though",  # its message counts an item too many as settled
    ),
    Breakage(
        "a contradiction is rejected unseen",
        [(Batch, "of", staticmethod(_reject_in_the_batch))],
        "a row and a dead letter",
    ),
    Breakage(
        "the living are given up",
        [(Absences, "gone", lambda _self, tables: [row.call.owner for row in tables.calls.values()])],
        "given up",
    ),
)
"""Each is seen within some hundred schedules; ``seen_as`` is found in what the simulation says."""
