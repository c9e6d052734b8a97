"""The Celery side: a Strategy that feeds lanes, and a consumer that parks what it cannot take.

The feed does the work; this module is what Celery has to be told.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from amqp.exceptions import PreconditionFailed
from celery import Task, bootsteps
from celery.bootsteps import CLOSE, TERMINATE  # type: ignore[attr-defined]
from celery.exceptions import WorkerShutdown
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.consumer.tasks import Tasks

from worker import asked_to_end, compression, logs, memory
from worker.deliveries import is_json
from worker.feed import Feed, Parts
from worker.lane_control import LaneControl
from worker.lane_switch import LaneSwitch
from worker.portability.msisdn import mask_all
from worker.portability.requests import Lane
from worker.queues import TASKS, dead_queue

log = logs.get(__name__)

_STOPPING = (CLOSE, TERMINATE)
_RECONNECT_SECONDS = 4
"""The longest pause between two tries to reach a broker that is away."""
_HURRIED_SECONDS = 2.0
"""After a second signal a process ends within so long, whatever it does."""
_EXIT_CONFIG = 78
"""sysexits' EX_CONFIG: starting again will not help before somebody mends the queue."""


class CheckTask(Task):  # type: ignore[type-arg] # celery's Task is not generic at run time
    """Base of the four tasks: their messages are gathered, not run one by one."""

    abstract = True
    Strategy = "worker.consumer:strategy"
    acks_late = True
    lane: Lane
    many = False
    parts: Callable[[], Parts]


def strategy(task: CheckTask, _app: Any, consumer: QueueConsumer, **_options: Any) -> Callable[..., None]:
    """Return the handler of a task's messages; Celery asks for it at every (re)connection."""
    return partial(consumer.feed(task.parts).take, task)


class QueueConsumer(Consumer):
    """Celery's consumer, except that nothing is discarded: what Celery cannot take is parked first."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc,valid-type] # unknown to celery-types
        """Celery's steps without the one that declares 28 queues for ETA messages: presend refuses those."""

        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step
        )

    _feed: Feed | None = None
    # made with the feed
    lane_control: LaneControl
    lane_switch: LaneSwitch
    # what the consumer of each lane's queue was begun with
    _prefetch: dict[Lane, int]

    # set by Celery's own bootsteps
    connection: Any
    connection_errors: tuple[type[BaseException], ...]
    event_dispatcher: Any
    hub: Any
    task_consumer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Workers of presend share nothing by gossip: it costs queues and a second at each start.
        super().__init__(*args, **kwargs, without_mingle=True, without_gossip=True)
        memory.settle_down()
        self.strategies: dict[str, Any] = _Strategies()
        asked_to_end.hear(self._asked_to_end)

    def feed(self, parts: Callable[[], Parts] | None = None) -> Feed:
        """Return this process's feed, made on first use."""
        if self._feed is None:
            parts = parts or next(
                task.parts for task in self.app.tasks.values() if isinstance(task, CheckTask)
            )
            made = parts()
            self._feed = Feed(self, made, self.lanes())
            self.lane_control = made.lane_control
            self.lane_switch = LaneSwitch(self, self._feed, made.lane_control.stops)
            made.announce(self.lanes())
            threading.Thread(target=made.results.look, name="result-backend", daemon=True).start()
        return self._feed

    def lanes(self) -> list[Lane]:
        """Return the lanes this process was started for, less those told away by Celery's cancel_consumer."""
        return [lane for lane in (Lane.RECHARGE, Lane.SMS) if lane.value in self.app.amqp.queues.consume_from]

    def consume(self, lane: Lane, *, prefetch: int) -> None:
        """Take messages from a lane's queue, if it is not done yet, and hold at most so many of them.

        RabbitMQ gives a consumer the number that its channel has when it begins. Redis counts items.
        """
        if self.task_consumer.consuming_from(lane.value):
            if self._counts_items or self._prefetch.get(lane) == prefetch:
                return
            self.stop_consuming(lane)
        if not self._counts_items:
            if not prefetch:
                return
            self.task_consumer.qos(prefetch_count=prefetch, apply_global=False)
            self._prefetch[lane] = prefetch
        self.task_consumer.add_queue(self.app.amqp.queues[lane.value])
        self.task_consumer.consume()

    @property
    def _counts_items(self) -> bool:
        """Whether a prefetch of the channel's is one of items: Redis's is, RabbitMQ's of messages."""
        return hasattr(self.task_consumer.channel, "items_held")

    def bound_items(self) -> None:
        """Say, before a new connection's messages flow, how many may be held."""
        channel, feed = self.task_consumer.channel, self.feed()
        if self._counts_items:
            channel.items_held = feed.items_held
            return
        self._prefetch = {lane: feed.prefetch(lane) for lane in self.lanes()}
        channel.basic_qos(0, max(self._prefetch.values(), default=1), False)

    def stop_consuming(self, lane: Lane) -> None:
        """Take no more messages from a lane's queue; what has been received is held further."""
        self.task_consumer.cancel_by_queue(lane.value)

    def prefetch_changed(self) -> None:
        """The feed may hold more messages of a lane, or fewer, or none until it has read those it has."""
        self.lane_switch.prefetch_changed()

    def shown_lanes(self) -> dict[str, Any]:
        """What ``celery inspect lanes`` shows."""
        shown: dict[str, Any] = {lane.value: {"stopped": None} for lane in self.lanes()}
        for lane, numbers in self.feed().snapshot().items():
            shown.setdefault(lane, {"stopped": None}).update(numbers)
        for lane, stop in self.lane_switch.watch.stops.items():
            if lane in shown:
                shown[lane]["stopped"] = {
                    "cause": stop.cause,
                    "since": stop.since.isoformat(),
                    "by": stop.by,
                    "reason": stop.reason,
                }
        return shown

    def _asked_to_end(self, hurried: bool) -> None:
        """Start no further call, and stop soon; on the thread that hears signals.

        Celery's loop sees the signal when it next has something to do, up to two seconds later. Who asks
        twice, or for no more than the end, has nothing waited for: what is held goes back.
        """
        if self._feed is not None:
            self._feed.start_nothing_more()
        self.hub.call_soon(_do_nothing)
        if hurried:
            _end_soon()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; try often enough to be back soon after the broker is.

        Celery leaves kombu's pause between two tries, which grows to half a minute.
        """
        conn.ensure_connection = partial(
            conn.ensure_connection, interval_start=1, interval_step=1, interval_max=_RECONNECT_SECONDS
        )
        return super().ensure_connected(conn)

    def update_strategies(self) -> None:
        """Start a generation: called by Celery at every (re)connection, before messages flow."""
        self._declare_queues()
        self.feed().drop()
        memory.let_go()
        super().update_strategies()
        for name in self.strategies.keys() - TASKS.keys():
            del self.strategies[name]  # Celery's own tasks, which would run here and leave no trace

    def is_stopping(self) -> bool:
        """Return whether the worker shuts down, rather than reconnects."""
        return self.blueprint.state in _STOPPING or state.should_stop is not None

    def on_close(self) -> None:
        """Celery lost the connection, so what was held is the broker's again; at a shutdown it is settled."""
        if self._feed is not None and not self.is_stopping():
            self._feed.drop()
        super().on_close()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give up the broken connection, also where kombu trips over it.

        kombu 5.7.0 closes a Redis channel a second time while Redis is away, misses the transport that the
        first time took from it, and its AttributeError would end the worker.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as trip:
            log.debug("connection_given_up", error=str(trip))

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Park a message that is not Celery's."""
        self.feed().park_unreadable(
            message,
            "this is not a Celery message, for it has no header task: send it with Celery, protocol 2",
        )

    def on_unknown_task(self, body: Any, message: Any, exc: Any) -> None:  # noqa: ARG002
        """Park a message for a task presend does not have."""
        name = mask_all(str(message.headers.get("task")))[:80]
        self.feed().park_unreadable(
            message,
            f"unknown task {name!r}: presend takes recharge.precheck, recharge.precheck_many, sms.recheck "
            "and sms.recheck_many",
        )

    def on_invalid_task(self, body: Any, message: Any, exc: Any) -> None:  # noqa: ARG002
        """Park a message whose form Celery refused."""
        self.feed().park_unreadable(
            message, f"not a valid Celery message ({type(exc).__name__}): send it with Celery, protocol 2"
        )

    def on_decode_error(self, message: Any, exc: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Park a message whose compression kombu could not undo, or one that is not Celery's, nor JSON."""
        if message.headers.get("task"):
            reason = (
                "the body cannot be unfolded: send it uncompressed, or compressed by gzip, bzip2 or lzma and "
                f"of at most {compression.MOST_BYTES // 2**20} MB"
            )
        elif is_json(message):
            reason = (
                "this is JSON, but not a message as kombu writes it (on Redis an object of body, headers and "
                "properties), so it has no header task: send it with Celery, protocol 2"
            )
        else:
            reason = (
                "this is not a Celery message, for it has no header task, and its body is not JSON: "
                "send it with Celery, protocol 2"
            )
        self.feed().park_unreadable(message, reason)

    def _declare_queues(self) -> None:
        """Declare our queues; one that exists with other arguments ends the worker with clear words."""
        ours = list(self.app.conf.task_queues)
        if self.connection.transport.driver_type == "amqp":
            ours.append(dead_queue())
        for queue in ours:
            with self.connection.channel() as channel:
                try:
                    queue(channel).declare()
                except PreconditionFailed as exc:
                    log.critical(
                        "queue_has_other_arguments",
                        queue=queue.name,
                        broker_says=exc.reply_text,
                        next_step="a producer declared it first with other arguments: stop it, empty and "
                        "delete that queue, and use the producer recipe of the README",
                    )
                    raise WorkerShutdown(_EXIT_CONFIG) from exc


class _Strategies(dict[str, Any]):
    """Handlers by task name, where a name that is not even hashable is unknown like any other."""

    def __getitem__(self, name: Any) -> Any:
        try:
            return super().__getitem__(name)
        except TypeError:
            raise KeyError(name) from None


def _do_nothing() -> None:
    """Wakes the loop."""


def _end_soon() -> None:
    """End the process though calls are in flight, whose threads Python would wait for."""
    time.sleep(_HURRIED_SECONDS)
    log.warning("shutdown_did_not_wait", seconds=_HURRIED_SECONDS)
    os._exit(1)


class LeaveStoppedLanes(bootsteps.StartStopStep):
    """At every (re)connection, before messages flow: consume no queue whose lane is stopped."""

    requires = (Tasks,)

    def start(self, c: QueueConsumer) -> None:
        """Runs once the task consumer knows its queues."""
        c.lane_switch.connected()


class BoundItems(bootsteps.StartStopStep):
    """At every (re)connection, before messages flow: let a prefetch be a matter of items, not of messages.

    Else one worker would take a whole backlog of messages with a thousand items each. On Redis the channel
    counts items; on RabbitMQ few messages are asked for at first.
    """

    requires = (Tasks,)

    def start(self, c: QueueConsumer) -> None:
        """Runs once the task consumer has its channel."""
        c.bound_items()


class Drain(bootsteps.StartStopStep):
    """At a warm shutdown: stop receiving, finish what is in flight, acknowledge it, then let go."""

    requires = (Tasks,)

    def stop(self, c: QueueConsumer) -> None:
        """Runs before the task consumer is closed; at a mere reconnect there is nothing to do."""
        if c.is_stopping():
            if c.task_consumer:
                c.task_consumer.cancel()
            c.feed().close()
            c.lane_switch.watch.end()
