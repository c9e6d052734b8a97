"""Draining a backlog: presend beside its rivals and the floor, in turn, each given the same kind of queue.

Rates are items a second between the first and the last tenth of a run, as their events reach the subscriber.
Ratios are of one round each; their median counts. A run also checks that every item has its row, its event
and its one purchase; what it objects to stands beside the rate.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from tests.benchmarks.contestants import BATCHES, EACH, PRESEND, RAW, Contestant, missing_rivals
from tests.benchmarks.course import Drained, course
from tests.benchmarks.ground import Ground


class Ratio(NamedTuple):
    """One contestant's rate over another's."""

    # row of the table of aims it belongs to
    aim: str
    over: str
    under: str


_QUIET = {"PRESEND_TASK_EVENTS": "false"}
_BATCHED = {"PRESEND_EVENT_BATCH": "1000"}
_CONFIRM, _TRANSACTION = {"RIVAL_EVENTS": "confirm"}, {"RIVAL_EVENTS": "transaction"}
_FOUR, _TWELVE = {"RIVAL_CONCURRENCY": "4"}, {"RIVAL_CONCURRENCY": "12"}

_ONE = Contestant("presend", PRESEND, 100_000, fewest=32_000, settings=_QUIET)
_MANY = _ONE.but("presend, many", many=True, items=150_000)
_CONFIRMED = Contestant(
    "celery-batches, confirms", BATCHES, 48_000, fewest=48_000, settings=_CONFIRM | _TWELVE
)
_TRANSACTED = Contestant(
    "celery-batches, transactions", BATCHES, 60_000, fewest=16_000, settings=_TRANSACTION | _FOUR
)
_EACH = Contestant("a task a number", EACH, 5_000, settings=_CONFIRM | _TWELVE)

_ON_RABBITMQ = (
    _ONE,
    _ONE.but("presend, 2 workers", processes=2, fewest=64_000),
    _ONE.but("presend, events to quorum", events="quorum"),
    _ONE.but("presend, task events", settings={"PRESEND_TASK_EVENTS": "true"}),
    _ONE.but("presend, results wanted", results=True),
    _CONFIRMED,
    _TRANSACTED,
    _EACH,
    Contestant("raw, quorum", RAW, 100_000),
    Contestant("raw, classic", RAW, 100_000, queue="classic"),
    _MANY,
    _MANY.but("presend, many, 2 workers", processes=2, fewest=64_000),
    _MANY.but("presend, many, events to quorum", events="quorum"),
    _MANY.but("presend, many, batched events", settings=_QUIET | _BATCHED),
    _CONFIRMED.but("celery-batches, many, confirms", many=True, items=60_000),
    _TRANSACTED.but("celery-batches, many, transactions", many=True, items=100_000),
)
_RABBITMQ_RATIOS = (
    Ratio("1: 6 (4)", "presend", "celery-batches, confirms"),
    Ratio("1: 2.5 (1.7)", "presend", "celery-batches, transactions"),
    Ratio("1, 2 workers: 6 (4)", "presend, 2 workers", "celery-batches, confirms"),
    Ratio("1, 2 workers: 2.5 (1.7)", "presend, 2 workers", "celery-batches, transactions"),
    Ratio("2: 5 (4)", "presend, many", "celery-batches, many, confirms"),
    Ratio("2: 1.8 (1.3)", "presend, many", "celery-batches, many, transactions"),
    Ratio("2, 2 workers: 5 (4)", "presend, many, 2 workers", "celery-batches, many, confirms"),
    Ratio("2, 2 workers: 1.8 (1.3)", "presend, many, 2 workers", "celery-batches, many, transactions"),
    Ratio("3: 0.6 (0.4)", "presend", "raw, quorum"),
    Ratio("10: 0.85 (0.65)", "presend, task events", "presend"),
    Ratio("", "presend", "a task a number"),
    Ratio("", "presend, events to quorum", "presend"),
    Ratio("", "presend, many, events to quorum", "presend, many"),
    Ratio("", "presend, many, batched events", "presend, many"),
    Ratio("", "presend, results wanted", "presend"),
)

_COMPARED = {name for ratio in _RABBITMQ_RATIOS if ratio.aim for name in (ratio.over, ratio.under)}
_WITH_QUORUM_QUEUES = [who.but(who.name, events="quorum") for who in _ON_RABBITMQ if who.name in _COMPARED]
_QUORUM_RATIOS = [ratio for ratio in _RABBITMQ_RATIOS if ratio.aim]

_BATCHES_REDIS = _TRANSACTED.but("celery-batches", on_redis=True)
# a run of five seconds is mostly its beginning and its end
_MANY_REDIS = _MANY.but("presend, many", on_redis=True, items=300_000)
_ON_REDIS = (
    _ONE.but("presend", on_redis=True),
    _BATCHES_REDIS,
    _EACH.but("a task a number", on_redis=True),
    _MANY_REDIS,
    _MANY_REDIS.but("presend, many, 2 workers", processes=2, fewest=64_000),
    _MANY_REDIS.but("presend, many, batched events", settings=_QUIET | _BATCHED),
    _MANY_REDIS.but(
        "presend, many, batched events, 2 workers",
        processes=2,
        fewest=64_000,
        settings=_QUIET | _BATCHED,
    ),
    _BATCHES_REDIS.but("celery-batches, many", many=True, items=300_000),
)
_REDIS_RATIOS = (
    Ratio("2: 1.5 (1.2)", "presend, many", "celery-batches, many"),
    Ratio("2, 2 workers: 1.5 (1.2)", "presend, many, 2 workers", "celery-batches, many"),
    Ratio("2, tuned: 3", "presend, many, batched events", "celery-batches, many"),
    Ratio("2, tuned, 2 workers: 3", "presend, many, batched events, 2 workers", "celery-batches, many"),
    Ratio("", "presend", "celery-batches"),
    Ratio("", "presend", "a task a number"),
)

_SLOW = _ONE.but("presend", latency=1.0, items=60_000)
_SLOT_CAPACITY = 1000 / 1.5
_SLOTS = 8
_WITH_LATENCY = (
    _SLOW,
    _SLOW.but("presend, many", many=True),
    _CONFIRMED.but("celery-batches, confirms", latency=1.0),
    _TRANSACTED.but(
        "celery-batches, transactions", latency=1.0, fewest=48_000, settings=_TRANSACTION | _TWELVE
    ),
    _EACH.but("a task a number", latency=1.0, items=1_500),
)
_LATENCY_RATIOS = (
    Ratio("", "presend", "celery-batches, confirms"),
    Ratio("", "presend", "celery-batches, transactions"),
    Ratio("", "presend", "a task a number"),
)


def on_rabbitmq(ground: Ground) -> None:
    """At zero latency, from quorum queues, to a subscriber's classic queue where not said otherwise."""
    run(ground, _ON_RABBITMQ, _RABBITMQ_RATIOS)


def with_quorum_queues(ground: Ground) -> None:
    """The same where the subscriber's queue is a quorum queue, too, for each contestant."""
    run(ground, _WITH_QUORUM_QUEUES, _QUORUM_RATIOS)


def on_redis(ground: Ground) -> None:
    """At zero latency, Redis for everything; events go to the stream."""
    run(ground, _ON_REDIS, _REDIS_RATIOS)


def with_latency(ground: Ground) -> None:
    """Over RabbitMQ, at the documented latency: 0.1 s for one number, 1.5 s for 1000."""
    rates = run(ground, _WITH_LATENCY, _LATENCY_RATIOS)
    for name in ("presend", "presend, many"):
        used = statistics.median(rates[name]) / (_SLOTS * _SLOT_CAPACITY)
        print(f"{used:6.2f}  of {_SLOTS} slots' capacity used: {name}   [6: 0.98 (0.93)]")


def run(ground: Ground, contestants: Sequence[Contestant], ratios: Sequence[Ratio]) -> dict[str, list[float]]:
    """Let them take turns; print and record what each came to."""
    if any(who.kind in {BATCHES, EACH} for who in contestants) and (advice := missing_rivals()):
        raise SystemExit(advice)
    runs: dict[str, list[Drained]] = defaultdict(list)
    with course(ground.folder) as here:
        for turn in range(ground.rounds):
            for who in contestants:
                done = here.drain(who.but(who.name, items=max(who.fewest, ground.sized(who.items))))
                runs[who.name].append(done)
                print(f"  {turn + 1}  {who.name:38} {done.rate:8.0f}/s  {_said(done)}", flush=True)
        urls = (here.broker_url, here.redis_url, here.postgres_url)
        rates = {name: [one.rate for one in each] for name, each in runs.items()}
        figures: dict[str, Any] = {
            "scale": ground.scale,
            "contestants": {
                who.name: asdict(who)
                | {"runs": [asdict(one) for one in runs[who.name]], "rate": _median(rates[who.name])}
                for who in contestants
            },
            "ratios": [
                ratio._asdict() | {"rounds": (each := _ratios(rates, ratio)), "median": _median(each, 2)}
                for ratio in ratios
            ],
        }
        print()
        for who in contestants:
            print(f"{figures['contestants'][who.name]['rate']:8.0f}/s  {who.name}")
        for ratio in figures["ratios"]:
            aim = f"   [{ratio['aim']}]" if ratio["aim"] else ""
            print(f"{ratio['median']:6.2f}  {ratio['over']} : {ratio['under']}{aim}")
        ground.write(figures, *urls)
    return rates


def _ratios(rates: dict[str, list[float]], ratio: Ratio) -> list[float]:
    return [round(over / under, 2) for over, under in zip(rates[ratio.over], rates[ratio.under], strict=True)]


def _median(values: Sequence[float], digits: int = 0) -> float:
    return round(statistics.median(values), digits)


def _said(done: Drained) -> str:
    cpu = (
        f"{done.cpu_microseconds:6.1f} us CPU an item, Postgres {done.postgres_microseconds:5.1f}"
        if done.cpu_microseconds
        else ""
    )
    faults = ", ".join(f"{number} {name}" for name, number in done.faults.items())
    return f"{cpu}  {faults}".rstrip()
