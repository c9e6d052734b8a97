"""The world of one schedule: producers, queues, processes, Postgres, the provider, what happens to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import worker.asking
import worker.buyer
import worker.feed
import worker.lane
import worker.parking
import worker.pipeline
import worker.unsettled
import worker.upkeep
from tests.simulation.broker import Broker, Connection, SimulatedPublisher, body_of
from tests.simulation.carrier import OPERATORS, TIMEOUTS, Provider, SimulatedCarrier, subscribers
from tests.simulation.choices import Choices
from tests.simulation.faults import Faults
from tests.simulation.invariants import Invariants, Item
from tests.simulation.memory_store import MemoryStore, Tables
from tests.simulation.schedule import (
    Process,
    Schedule,
    SimulatedCondition,
    SimulatedPool,
    ViolationError,
    meet,
)
from worker.asking import Asking
from worker.batching import BatchOutcome, Waiter
from worker.buyer import Buyer
from worker.deliveries import Delivery
from worker.errors import StorageUnavailable
from worker.feed import Feed, Parts
from worker.intake import Intake
from worker.lane import LaneRunner
from worker.pipeline import Pipeline
from worker.portability import letter_ids
from worker.portability.failure_codes import FailureClass, FailureCodes
from worker.portability.freshness import Freshness
from worker.portability.requests import Lane, RequestKey
from worker.portability.rules import Rules
from worker.queues import TASKS
from worker.sharing import Sharing
from worker.storage import gate
from worker.storage.budget import Budget
from worker.storage.calls import Call, EarlyClaim
from worker.storage.gate import EVERY_ACCOUNT, ClosedGate
from worker.storage.store import Claim, Known, Settled, Settlement
from worker.unsettled import Unsettled
from worker.upkeep import Upkeep

_LOGGING = (
    worker.pipeline,
    worker.asking,
    worker.buyer,
    worker.lane,
    worker.feed,
    worker.parking,
    worker.upkeep,
)
ACCOUNT = "account"
NUMBERS = tuple(f"1390000000{digit}" for digit in range(8))
INTAKE = {Lane.RECHARGE: Intake(Lane.RECHARGE, expiry=timedelta(seconds=5)), Lane.SMS: Intake(Lane.SMS)}
_MOST_STEPS_TO_QUIET = 50_000
_MOST_SECONDS_TO_QUIET = 600.0
_LATENCIES = ((0.0,), (0.0, 0.1, 0.5, 2.0), (0.5, 2.0, 10.0, 16.0))


@cache
def _rules() -> Rules:
    return Rules(
        Freshness({Lane.RECHARGE: 600, Lane.SMS: 86400, Lane.DIRECT: 0}),
        FailureCodes.shipped(),
        frozenset({FailureClass.REFUSED, FailureClass.THROTTLED}),
        max_attempts=3,
    )


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """What the feed needs of a Celery task."""

    name: str
    lane: Lane
    many: bool


_TASKS = {name: SimulatedTask(name, task.lane, task.many) for name, task in TASKS.items()}


class WatchedStore(MemoryStore):
    """A store whose every statement is a seam, watched by the invariants."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(
            world.tables,
            daily=world.budget,
            run=self._seam,
            sleep=world.schedule.sleep,
            clock=world.schedule.monotonic,
        )
        self._world = world
        self._process = process
        self._schedule = world.schedule
        self._strike = world.faults.strike

    def _seam(self, name: str, work: Callable[[], Any]) -> Any:
        self._schedule.turn(name)
        if self._strike("storage fails"):
            raise StorageUnavailable("the connection was lost before the commit")
        done = work()
        if self._strike("dies after"):
            self._schedule.die()
        if self._strike("reply to commit lost"):
            raise StorageUnavailable("the reply to the commit was lost")
        return done

    def look_up(
        self,
        account: str,
        lane: Lane,
        keys: Collection[RequestKey],
        msisdns: Collection[str],
        letters: Collection[int] = (),
        *,
        early: EarlyClaim | None = None,
    ) -> Known:
        notes = self._schedule.notes()
        known = super().look_up(account, lane, keys, msisdns, letters, early=early)
        if known.claimed is not None:
            claimed = known.claimed
            notes.update(calls={claimed.msisdn: claimed.call.id}, keys={claimed.msisdn: [claimed.key]})
        notes.update(
            gate_closed=known.closed_gate is not None,
            probing=known.breaker is not None and known.breaker.probing,
        )
        return known

    def claim(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], *, overtaken: Collection[str]
    ) -> Claim:
        claim = super().claim(call, keys, overtaken=overtaken)
        notes = self._schedule.notes()
        self._world.invariants.waits_for(notes["waiters"], claim.holders)
        notes.update(calls=dict.fromkeys(claim.held, call.id), keys={m: list(keys[m]) for m in claim.held})
        # in order, so that a schedule does not hang on the interpreter's hash seed
        return replace(claim, held=Ordered(claim.held))

    def split(self, call: Call, msisdns: Sequence[str], *, from_id: str) -> set[str]:
        moved = super().split(call, msisdns, from_id=from_id)
        self._schedule.notes()["calls"].update(dict.fromkeys(moved, call.id))
        return moved

    def _hold(self, call: Call, keys: Any, overtaken: Collection[str]) -> tuple[set[str], set[str]]:
        tables = self.tables
        before = dict(tables.in_flight)
        paid = {"live", "shared"}
        self._schedule.notes()["decided"] = {
            key
            for msisdn, each in keys.items()
            for key in each
            if key in tables.ledger
            and tables.ledger[key].answered_from in paid
            and tables.ledger[key].msisdn == msisdn
        }
        held, unaffordable = super()._hold(call, keys, overtaken)
        self._world.invariants.claimed(held, before, overtaken, call.lane)
        return held, unaffordable

    def may_probe(self, account: str, lane: Lane, *, hold_seconds: float) -> datetime | None:
        may = super().may_probe(account, lane, hold_seconds=hold_seconds)
        self._schedule.notes()["granted"] = self._schedule.now()
        return may

    def _call_ended(self, account: str, lane: Lane, *, lost: bool, probe: datetime | None) -> None:
        super()._call_ended(account, lane, lost=lost, probe=probe)
        if not lost:
            self._world.invariants.lane_is_well(lane)

    def _give_up(self) -> int:
        lost = {call_id for call_id, row in self.tables.calls.items() if row.outcome == "lost"}
        let_go = super()._give_up()
        self._world.invariants.given_up(
            [id_ for id_, row in self.tables.calls.items() if row.outcome == "lost" and id_ not in lost]
        )
        return let_go

    def _settle(self, settlement: Settlement) -> Settled:
        records = self.tables.records
        before = {learned.msisdn: records.get(learned.msisdn) for learned in settlement.learned}
        settled = super()._settle(settlement)
        self._world.invariants.settled(settlement, before)
        return settled

    def _mark(self, batch_ids: Any, at: Any) -> None:
        super()._mark(batch_ids, at)
        for batch_id in batch_ids:
            self._world.invariants.marked(batch_id)


class Ordered(set[str]):
    """A set that is walked in order."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(set.__iter__(self)))

    def __sub__(self, other: Any) -> Ordered:
        return Ordered(super().__sub__(other))


class WatchedPipeline(Pipeline):
    """A pipeline that tells the invariants who waits in a batch."""

    def __init__(self, schedule: Schedule, **parts: Any) -> None:
        super().__init__(**parts)
        self._schedule = schedule

    def run_batch(self, waiters: Sequence[Waiter], **told: Any) -> BatchOutcome:
        self._schedule.notes()["waiters"] = waiters
        if self._schedule.traced:
            asked = [f"{waiter.request.reference}/{waiter.request.msisdn}" for waiter in waiters]
            self._schedule.note(f"    batch of {asked}")
        return super().run_batch(waiters, **told)


class Worker(Process):
    """A worker process: both lanes, one connection to the broker."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self._world = world
        schedule = world.schedule
        self.store = WatchedStore(world, self)
        carrier = SimulatedCarrier(schedule, world.provider, world.faults, world.invariants, self)
        rules = _rules()
        buyer = Buyer(
            carrier,
            self.store,
            timeout_seconds=TIMEOUTS,
            billed_codes=frozenset({0, -4}),
            now=schedule.now,
        )
        sharing = Sharing(
            self.store,
            rules,
            "simulated",
            0.3,
            buyer.hold_seconds,
            now=schedule.now,
            clock=schedule.monotonic,
        )
        pipeline = WatchedPipeline(
            schedule,
            store=self.store,
            asking=Asking(store=self.store, sharing=sharing, buyer=buyer, account=ACCOUNT),
            publisher=SimulatedPublisher(schedule, world.faults, world.invariants),
            rules=rules,
            account=ACCOUNT,
            now=schedule.now,
        )
        self.to_finish = False
        self.connection_errors = (OSError,)
        self.event_dispatcher = None
        self.hub = self
        parts = Parts(
            pipeline,
            SimpleNamespace(write=lambda _results: None),  # type: ignore[arg-type]
            INTAKE,
            slots={Lane.RECHARGE: 2, Lane.SMS: 2},
            linger_seconds={Lane.RECHARGE: 0.0, Lane.SMS: 0.25},
            lane_control=None,  # type: ignore[arg-type] # the consumer's, not the feed's
            suspicions=None,  # type: ignore[arg-type] # no message here says how often it was delivered
        )
        with schedule.acts(self):
            self.feed = Feed(self, parts)
        self.connection = Connection(alive=False)
        self.connect()

    def call_soon(self, _work: Any) -> None:
        self.to_finish = True

    def call_later(self, _seconds: float, _work: Any) -> None:
        """For messages given back and not read yet, of which there are none here."""

    def prefetch_changed(self) -> None:
        """Its broker hands out what the schedule says."""

    def connect(self) -> None:
        self.connection = Connection()
        self._world.schedule.note(f"{self} connects")
        with self._world.schedule.acts(self):
            self.feed.drop()

    def finish(self) -> None:
        self.to_finish = False
        with self._world.schedule.acts(self):
            self.feed.finish()

    def take(self, lane: str) -> None:
        message = self._world.broker.deliver(lane, self.connection)
        self._world.schedule.note(f"{self} takes {message.task_id}")
        with self._world.schedule.acts(self):
            self.feed.take(_TASKS[message.task], message, None, None, None, None)

    def held(self) -> int:
        return len(self.connection.unacknowledged)


class Custodian(Process):
    """The upkeep process."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        schedule = world.schedule
        self.store = WatchedStore(world, self)
        carrier = SimulatedCarrier(schedule, world.provider, world.faults, world.invariants, self)
        upkeep = Upkeep(
            database=world.tables,  # type: ignore[arg-type]
            store=self.store,
            carrier=carrier,
            publisher=SimulatedPublisher(schedule, world.faults, world.invariants),
            intake={},
            broker_url=None,
            account=ACCOUNT,
            now=schedule.now,
        )

        def rounds() -> None:
            while True:
                upkeep.once()
                schedule.sleep(1.0)

        with schedule.acts(self):
            schedule.spawn("upkeep", rounds)


class World:
    """Everything of one schedule."""

    def __init__(self, choices: Choices, *, traced: bool = False, only: frozenset[str] | None = None) -> None:
        self.choices = choices
        self.schedule = Schedule(choices, traced=traced)
        self.faults = Faults(self.schedule, only=only)
        self.budget = Budget((0, 0, 4, 12)[choices.below(4)], (0.0, 0.5)[choices.below(2)])
        self.tables = Tables(self.schedule.now)
        people = subscribers(NUMBERS, self.schedule.now())
        for code in (-3, -4):
            if choices.chance(0.3):
                people[NUMBERS[choices.below(len(NUMBERS))]].code = code
        self.provider = Provider(
            people, balance=(None, None, 40, 3)[choices.below(4)], latencies=_LATENCIES[choices.below(3)]
        )
        self.numbers = NUMBERS[: (8, 2, 4)[choices.below(3)]]
        self.invariants = Invariants(self.schedule, self.tables, people, self.budget.daily)
        if choices.chance(0.25):
            bad = people[NUMBERS[choices.below(len(NUMBERS))]]
            bad.poison = (1, -9)[choices.below(2)]
            self.invariants.poisonous.add(bad.msisdn)
        self.broker = Broker(self.schedule, self.faults, self.invariants)
        self.names = 0
        self.workers: list[Worker] = []
        self.references = 0
        self.sent: list[tuple[str, dict[str, Any], list[Item], str]] = []

    def begin(self) -> None:
        """Start the processes."""
        for _ in range(2 + self.choices.below(2)):
            self._start_worker()
        self._start_upkeep()

    def run(self) -> None:
        """A time of traffic and faults, then a quiet time in which all must come to an end."""
        self.begin()
        messages = 3 + self.choices.below(8)
        steps = 80 + 40 * self.choices.below(6)
        for _ in range(steps):
            if messages and self.choices.chance(0.08):
                messages -= 1
                self._send()
            if self.faults.happenings and self.choices.chance(self.faults.happening_rate):
                self._happen(self.faults.happenings[self.choices.below(len(self.faults.happenings))])
            self._step()
        while messages:
            messages -= 1
            self._send()
        self._calm_down()
        self._until_quiet()
        self.invariants.all_quiet()

    def end(self) -> None:
        """End every task, wherever it stands."""
        processes = {task.process for task in self.schedule.tasks}
        for process in processes:
            process.dead = True
        for process in processes:
            self.schedule.bury(process)

    # -- steps --------------------------------------------------------------------------------

    def _step(self) -> None:
        actions = self._actions()
        chosen = self.choices.below(len(actions) + 1)
        if chosen == len(actions):
            self._pass_time()
        else:
            self._act(actions[chosen])
            self._replace_dead()

    def _act(self, action: Any) -> None:
        work, *arguments = action
        work(*arguments)

    def _actions(self) -> list[tuple[Any, ...]]:
        schedule = self.schedule
        actions: list[tuple[Any, ...]] = [(schedule.go_on, task) for task in schedule.runnable()]
        ready = self.broker.ready
        for each in self.workers:
            if each.dead or each.stopped_until > schedule.seconds:
                continue
            if each.to_finish:
                actions.append((each.finish,))
            if not each.connection.alive:
                actions.append((each.connect,))
                continue
            actions += [(each.take, lane) for lane in ("recharge", "sms") if ready[lane]]
        return actions

    def _pass_time(self) -> None:
        schedule = self.schedule
        wake_at = schedule.next_wake()
        how = self.choices.below(10)
        if how < 5 and wake_at is not None:
            schedule.seconds = wake_at
        else:
            schedule.seconds += (0.005, 0.02, 0.1, 0.3, 1.0, 0.005, 0.02, 0.1, 4.0, 20.0)[how]

    # -- what happens -------------------------------------------------------------------------

    def _happen(self, what: str) -> None:  # noqa: PLR0912 - one branch a happening
        self.schedule.note(f"*** {what}")
        workers = [each for each in self.workers if not each.dead]
        below, provider, gates = self.choices.below, self.provider, self.tables.gates
        if what == "a worker dies":
            self.kill(workers[below(len(workers))])
        elif what == "a connection is cut":
            self.broker.cut(workers[below(len(workers))].connection)
        elif what == "a process stands still":
            stopped = [*workers, self.upkeep][below(len(workers) + 1)]
            stopped.stopped_until = self.schedule.seconds + (1.0, 7.0, 30.0)[below(3)]
        elif what == "a presence lock is lost":
            self.tables.present.discard(workers[below(len(workers))].store.owner)
        elif what == "upkeep dies":
            self.kill(self.upkeep)
        elif what == "the account is emptied":
            provider.balance = below(3)
        elif what == "the account is refilled":
            provider.balance = 50 if provider.balance is not None else None
        elif what == "the account is disabled":
            provider.disabled = True
        elif what == "the account is mended":
            provider.disabled = False
        elif what == "the provider goes down":
            provider.down = True
        elif what == "the provider comes up":
            provider.down = False
        elif what == "the provider loses its answers":
            provider.losing = True
        elif what == "the provider answers again":
            provider.losing = False
        elif what == "the gate is closed by hand":
            gates.setdefault(
                EVERY_ACCOUNT, ClosedGate(EVERY_ACCOUNT, self.schedule.now(), "somebody", "by hand")
            )
        elif what == "the gate is opened by hand":
            gates.pop(EVERY_ACCOUNT, None)
        elif what == "a number ports":
            number = provider.subscribers[NUMBERS[below(2)]]
            number.history.append((self.schedule.now(), OPERATORS[below(3)]))
        elif what == "the wall clock is put forward":
            self.schedule.put_forward += (1.0, 700.0, 90_000.0)[below(3)]
        elif what == "a message is delivered twice":
            queue = self.broker.ready[("recharge", "sms")[below(2)]]
            if queue:
                queue.append(queue[0].copy())

    def kill(self, process: Process) -> None:
        """End a process where it stands; another takes its place."""
        process.dead = True
        self.schedule.bury(process)
        self._replace_dead()

    def _replace_dead(self) -> None:
        for each in [one for one in self.workers if one.dead]:
            self.workers.remove(each)
            each.store.close()
            self.broker.cut(each.connection)
            self._start_worker()
        if self.upkeep.dead:
            self.upkeep.store.close()
            self._start_upkeep()

    def _start_worker(self) -> None:
        self.names += 1
        self.workers.append(Worker(self, f"worker{self.names}"))

    def _start_upkeep(self) -> None:
        self.names += 1
        self.upkeep = Custodian(self, f"upkeep{self.names}")

    # -- traffic ------------------------------------------------------------------------------

    def _send(self) -> None:
        choices = self.choices
        lane = (Lane.RECHARGE, Lane.SMS)[choices.below(2)]
        how = choices.below(12)
        if how == 11 and self.sent:
            task, kwargs, items, task_id = self.sent[choices.below(len(self.sent))]
            if choices.chance(0.5):
                task_id += "'"  # the producer sent it anew
                items = [
                    replace_letter(item, task, kwargs, task_id, index) for index, item in enumerate(items)
                ]
                self.invariants.items += items
            self._deliver(task, kwargs, items, task_id)
            return
        many = how >= 8
        count = 1 + choices.below(5) if many else 1
        arguments = [self._item(lane) for _ in range(count)]
        name = {Lane.RECHARGE: "recharge.precheck", Lane.SMS: "sms.recheck"}[lane]
        task = f"{name}_many" if many else name
        kwargs: dict[str, Any] = {"items": arguments} if many else arguments[0]
        task_id = f"m{len(self.sent)}"
        items = expected_items(task, kwargs, task_id)
        self.invariants.items += items
        self.sent.append((task, kwargs, items, task_id))
        self._deliver(task, kwargs, items, task_id)

    def _deliver(self, task: str, kwargs: dict[str, Any], items: Sequence[Item], task_id: str) -> None:
        self.schedule.note(f">>> {task} {task_id} {kwargs}")
        self.broker.send(task, kwargs, items, task_id)

    def _item(self, lane: Lane) -> dict[str, Any]:
        choices = self.choices
        kind = choices.below(16)
        reference = "order_id" if lane is Lane.RECHARGE else "message_id"
        if kind == 15 and self.references:
            number = choices.below(self.references)  # a key that was used, perhaps for another number
        else:
            number = self.references
            self.references += 1
        item: dict[str, Any] = {
            reference: f"r{number}",
            "mobile": self.numbers[choices.below(len(self.numbers))],
            "operator": OPERATORS[choices.below(2)],
        }
        if kind == 14:
            item["surprise"] = 1
        elif kind == 13:
            item["mobile"] = "123"
        elif kind == 12:
            item["attempt"] = 2 + 2 * choices.below(2)
        elif kind == 11 and lane is Lane.SMS:
            item["failure_code"] = "MK:0001"
        return item

    # -- the end ------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        self.schedule.note("=== no more faults")
        self.faults.off = True
        self.provider.balance = None if self.provider.balance is None else 1000
        self.provider.disabled = self.provider.down = self.provider.losing = False
        self.provider.latencies = (0.0,)
        self.tables.gates.pop(EVERY_ACCOUNT, None)
        self._replace_dead()
        for each in self.workers:
            each.stopped_until = 0.0
            self.tables.present.add(each.store.owner)
        self.upkeep.stopped_until = 0.0
        if self.budget.daily:
            self.schedule.put_forward += 86_400 + 1
            self.invariants.daily_budget = 1000
            for process in [*self.workers, self.upkeep]:
                process.store._budget = Budget(1000)  # another setting, and a new day

    def _until_quiet(self) -> None:
        schedule, steps = self.schedule, 0
        began = schedule.seconds
        while not self._quiet():
            actions = self._actions()
            if actions:
                self._act(actions[steps % len(actions)])
            else:
                wake_at = schedule.next_wake()
                if wake_at is None:
                    self.invariants.violated("nothing goes on, and not all is settled")
                    return
                schedule.seconds = wake_at
            steps += 1
            if steps > _MOST_STEPS_TO_QUIET or schedule.seconds - began > _MOST_SECONDS_TO_QUIET:
                self.invariants.violated(f"it goes on for ever, and not all is settled: {self._left()}")

    def _left(self) -> str:
        held = {each.name: [m.task_id for m in each.connection.unacknowledged] for each in self.workers}
        batches = {one.lane: one.emitted_at for one in self.tables.batches.values() if one.emitted_at is None}
        tasks = [f"{task.process} {task.name} {task.at} {task.wake_at}" for task in self.schedule.tasks]
        return f"{held}, in flight {self.tables.in_flight}, {batches}, {self.tables.gates}, {tasks}"

    def _quiet(self) -> bool:
        if any(self.broker.ready.values()) or any(each.held() or each.to_finish for each in self.workers):
            return False
        if self.tables.in_flight or any(batch.emitted_at is None for batch in self.tables.batches.values()):
            return False
        return all(row.outcome != "calling" for row in self.tables.calls.values())


def expected_items(task: str, kwargs: Mapping[str, Any], task_id: str) -> list[Item]:
    """What must become of a message's items."""
    lane, many = TASKS[task]
    arguments = kwargs["items"] if many else [kwargs]
    items = []
    for index, one in enumerate(arguments):
        readable = "surprise" not in one
        key = question = None
        if readable:
            reference = one.get("order_id") or one.get("message_id")
            key = RequestKey("", lane, reference, one.get("attempt", 1))
            question = (one["mobile"] if len(one["mobile"]) == 11 else None, one["operator"])
        items.append(Item(key, question or (None, None), letter_id(task, kwargs, task_id, index)))
    return items


def letter_id(task: str, kwargs: Mapping[str, Any], task_id: str, index: int) -> str:
    """The id of the dead letter an item would become."""
    lane, many = TASKS[task]
    message = SimpleNamespace(body=body_of(kwargs))
    delivery = Delivery(message, task_id, task, lane, many, kwargs, datetime.now(UTC))
    return letter_ids.written(delivery.letter_id(index))


def replace_letter(item: Item, task: str, kwargs: Mapping[str, Any], task_id: str, index: int) -> Item:
    """The same item in another message."""
    return Item(item.key, item.question, letter_id(task, kwargs, task_id, index))


# -- the code under test, on the simulation's clock and threads ---------------------------------


class _Log:
    """The log of the modules under test: a defect they log is a violation; the rest is part of the trace."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def info(self, event: str, **fields: Any) -> None:
        if self._schedule.traced:
            self._schedule.note(f"    {self._schedule.acting} {event} {fields}")

    debug = warning = error = info

    def exception(self, event: str, **_fields: Any) -> None:
        import traceback

        raise ViolationError(f"a defect: {event}\n{traceback.format_exc()}")


class _NoState:
    """Celery's lists of tasks, which are the whole interpreter's."""

    @staticmethod
    def task_reserved(_: Delivery) -> None: ...

    task_ready = task_reserved
    active_requests = SimpleNamespace(add=lambda _delivery: None)
    total_count: ClassVar[Counter[str]] = Counter()
    all_total_count: ClassVar[list[int]] = [0]


class _NoThread:
    def __init__(self, schedule: Schedule, target: Callable[[], None], name: str) -> None:
        self._schedule, self._target, self._name = schedule, target, name

    def start(self) -> None:
        self._schedule.spawn(self._name, self._target)


def _thread(schedule: Schedule, *, target: Callable[[], None], name: str, **_: Any) -> _NoThread:
    return _NoThread(schedule, target, name)


def _pool(schedule: Schedule, *, max_workers: int, thread_name_prefix: str) -> SimulatedPool:
    return SimulatedPool(schedule, max_workers, thread_name_prefix)


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Put the modules under test on this world's clock, threads and log."""
    schedule = world.schedule
    clock = SimpleNamespace(monotonic=schedule.monotonic)
    pool = partial(_pool, schedule)
    log = _Log(schedule)
    tables = world.tables

    def read(_database: Any, work: Callable[[Any], Any]) -> Any:
        schedule.turn("looks at the gate")
        return work(tables)

    names: list[tuple[Any, str, Any]] = [(module, "log", log) for module in _LOGGING]
    names += [
        (worker.lane, "threading", SimpleNamespace(
            Condition=lambda: SimulatedCondition(schedule), Thread=partial(_thread, schedule),
            Barrier=lambda _parties: SimpleNamespace(wait=meet))),
        (worker.lane, "ThreadPoolExecutor", pool),
        (worker.parking, "ThreadPoolExecutor", pool),
        (worker.feed, "LaneRunner", partial(LaneRunner, clock=schedule.monotonic)),
        (worker.feed, "time", clock),
        (worker.feed, "datetime", schedule),
        (worker.unsettled, "state", _NoState),
        (worker.feed, "Unsettled", partial(Unsettled, clock=schedule.monotonic)),
        (worker.upkeep, "time", clock),
        (worker.upkeep, "engine", SimpleNamespace(read=read, transact=read)),
        (worker.upkeep, "holds", SimpleNamespace(recover=lambda _tables: 0)),  # nobody calls by HTTP here
        (worker.upkeep, "balance_readings", SimpleNamespace(
            latest=lambda _tables, _account: None, add=lambda _tables, *_reading: None)),  # nor audits
        (worker.upkeep, "gate", SimpleNamespace(
            BY_UPKEEP=gate.BY_UPKEEP,
            read=lambda tables, account: tables.gate(account),
            reopen=lambda tables, account, **_why: tables.gates.pop(account, None),
        )),
    ]  # fmt: skip
    with ExitStack() as stack:
        for module, name, stand_in in names:
            stack.enter_context(patch.object(module, name, stand_in))
        yield
