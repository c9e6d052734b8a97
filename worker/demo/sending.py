"""Who sends the day: a producer on time, and shoppers who wait for the answer to each of their prechecks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from worker.demo.traffic import Day, Message, Port
from worker.producing.producer import Producer

_SHOPPERS = 4

Ask = Callable[[str, Mapping[str, Any]], Any]
"""Sends a task with its arguments, waits, and returns its result: Celery's ``send_task(…).get()``."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that somebody waited for."""

    reference: str
    # from the send to the return of ``.get()``
    seconds: float
    data: Any


@dataclass(slots=True)
class Sent:
    """What has left so far, counted as it leaves, to be held against what arrives."""

    messages: int = 0
    items: int = 0
    # items that must become dead letters
    bad: int = 0
    waited_for: int = 0
    ports: int = 0
    # lane, reference and attempt of the other items
    keys: set[tuple[str, str, int]] = field(default_factory=set)

    def add(self, message: Message) -> None:
        """Count a message that is about to leave."""
        self.messages += 1
        self.items += len(message.items)
        self.bad += message.bad
        self.waited_for += message.watched
        lane = message.task.partition(".")[0]
        for item in message.good_items:
            reference = item.get("order_id") or item["message_id"]
            self.keys.add((lane, reference, item.get("attempt", 1)))


class Senders:
    """The threads that send; they end with the process, and whatever they meet is raised by ``busy``."""

    def __init__(self, *, broker_url: str, ask: Ask, port: Callable[[Port], None]) -> None:
        self._broker_url = broker_url
        self._ask = ask
        self._port = port
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failure: Exception | None = None
        self.sent = Sent()
        self.answers: list[Answered] = []

    def open(self, messages: Iterable[Message]) -> None:
        """Send these at once, and wait for the answer to each."""
        for message in messages:
            self._start(partial(self._wait_for, message))

    def send(self, day: Day, *, seconds: float) -> None:
        """Send a day on time: it takes so many seconds, and begins now."""
        began = time.monotonic()

        def on_time(what: Message | Port) -> None:
            time.sleep(max(0.0, began + what.at * seconds - time.monotonic()))

        watched = [message for message in day.messages if message.watched]
        others = [message for message in day.messages if not message.watched]
        # the port goes with the messages: those of before it are sent before it, however slow this machine is
        in_order: list[Message | Port] = sorted([*others, day.port], key=attrgetter("at"))
        self._start(partial(self._produce, in_order, on_time))
        for number in range(_SHOPPERS):
            self._start(partial(self._shop, watched[number::_SHOPPERS], on_time))

    def busy(self) -> bool:
        """Whether anything is still to be sent or waited for."""
        if self._failure is not None:
            raise self._failure
        return any(thread.is_alive() for thread in self._threads)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - raised again by the main thread
            self._failure = exc

    def _produce(self, in_order: Iterable[Message | Port], on_time: Callable[[Message | Port], None]) -> None:
        with Producer(self._broker_url) as producer:
            for what in in_order:
                on_time(what)
                if isinstance(what, Port):
                    self._port(what)
                    self.sent.ports += 1
                else:
                    self._count(what)
                    producer.send(what.task, what.arguments)

    def _shop(self, messages: Iterable[Message], on_time: Callable[[Message], None]) -> None:
        for message in messages:
            on_time(message)
            self._wait_for(message)

    def _wait_for(self, message: Message) -> None:
        self._count(message)
        began = time.perf_counter()
        data = self._ask(message.task, message.arguments)
        seconds = time.perf_counter() - began
        self.answers.append(Answered(data["reference"], seconds, data))

    def _count(self, message: Message) -> None:
        with self._lock:
            self.sent.add(message)
