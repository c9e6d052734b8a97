"""The transport: kombu's, with its way of taking and settling messages exchanged.

kombu's event loop sends a channel's command (``_brpop_start``) whenever there is room for a message, and has
its answer read (``_brpop_read``) once there is one. Here the command is a script that takes many messages at
once. Where the last one found nothing, it is sent behind a wait, and both go out together: Redis runs the
script in the moment a message ends the wait. Fanout queues (remote control, events) stay kombu's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from queue import Empty
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.carrier.protocol import MAX_BATCH
from worker.redis_broker.elements import read
from worker.redis_broker.holder import Held, Holder

_MOST = 100
"""Messages a take brings at most: the event loop must come round to its other duties."""
_WAIT_SECONDS = 0.1
"""How long a wait for one list keeps a message on another one (a second lane's, a priority's) waiting."""
_TIMEOUT_SECONDS = 3.0
"""For the holder's own connection: less than the silence that is taken for death."""

DELIVERY_COUNT = "x-delivery-count"
"""The header in which RabbitMQ's quorum queues count, too."""

# celery-types knows little of them
_KombuQoS: Any = virtual.QoS
_KombuChannel: Any = kombu_redis.Channel


class QoS(_KombuQoS):  # type: ignore[misc]
    """What was delivered and not yet settled; the holder keeps it in Redis."""

    def can_consume(self) -> bool:
        """Whether a message of any queue may be taken; what is told to all may always be."""
        queues = self.channel.active_queues
        return not queues or any(map(self.room, queues))

    def room(self, queue: str) -> int:
        """How many more messages of a queue may be taken."""
        held = self.channel.items_held
        if held is None or not self.prefetch_count:
            room: int | None = self.can_consume_max_estimate()
        else:
            items = max(0, self.prefetch_count - held(queue))
            room = -(-items // self.channel.items_each.get(queue, MAX_BATCH))  # rounded up
        return _MOST if room is None else min(room, _MOST)

    def ack(self, delivery_tag: int) -> None:
        """Forget a message for good."""
        self.channel.settle(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Forget a message, or put it back into its queue."""
        if requeue:
            self.channel.give_back([delivery_tag])
        else:
            self.channel.settle(delivery_tag)
        super().ack(delivery_tag)

    def restore_unacked(self) -> None:
        """Put everything back that is not settled."""
        self._flush()
        self.channel.give_back(list(self._delivered))
        self._delivered.clear()


class Channel(_KombuChannel):  # type: ignore[misc]
    """A channel that holds what it takes."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # how many items the messages held of a queue have; None: a prefetch counts messages
        self.items_held: Callable[[str], int] | None = None
        # items a message of a queue had in the latest take
        self.items_each: dict[str, int] = {}
        # set once this channel consumes what is to be acknowledged
        self._holder: Holder | None = None
        # every queue ever consumed, in order: a wait is for the first that there is room for
        self._queues_seen: dict[str, None] = {}
        # whether the last take found nothing, so that the next one waits first
        self._idle = False
        self._waited = False
        self._wait_refused = False
        super().__init__(*args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume a queue; who acknowledges becomes a holder."""
        self._queues_seen[queue] = None
        if not no_ack:
            self._become_holder()
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Get one message, if there is one."""
        if no_ack:
            return super().basic_get(queue, no_ack=no_ack, **kwargs)
        if not self._size(queue):
            return None  # without becoming a holder
        for held in self._become_holder().take_now(self._lists([queue]), most=1):
            message = self.Message(self._message(held, queue), channel=self)
            self.qos.append(message, message.delivery_tag)
            return message
        return None

    def settle(self, number: int) -> None:
        """Forget a message for good."""
        if self._holder is not None:
            self._holder.settle(number)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Put messages back into their queues."""
        if self._holder is not None:
            self._holder.give_back(numbers)

    def close(self) -> None:
        """Close the channel and give back what it holds, also what an unread answer would have brought."""
        if self._holder is not None:
            self._in_poll = None  # kombu would read that answer and deliver it
            self._holder.let_go()
        super().close()

    def _become_holder(self) -> Holder:
        if self._holder is None:
            # Not kombu's connections: these outlive the channel until what was held is given back.
            parameters = self._connparams() | {
                "socket_timeout": _TIMEOUT_SECONDS,
                "socket_connect_timeout": _TIMEOUT_SECONDS,
                "retry": Retry(NoBackoff(), 1),
            }
            self._holder = Holder(redis.Redis(connection_pool=redis.ConnectionPool(**parameters)))
        return self._holder

    def _lists(self, queues: Iterable[str]) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]

    # -- what kombu's event loop calls --------------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._holder is None:
            super()._brpop_start(timeout)
            return
        rooms = {queue: self.qos.room(queue) for queue in self._queue_cycle.consume(len(self.active_queues))}
        queues = [queue for queue, room in rooms.items() if room]
        if not queues:
            return
        most = max(rooms.values()) if self.items_held is None else min(_MOST, sum(rooms.values()))
        share = -(-most // len(queues))  # rounded up
        each = [min(rooms[queue], share) for queue in queues] * len(self.priority_steps)
        take = self._holder.take_command(self._lists(queues), most=most, most_of_each=each)
        self._waited = self._idle
        commands = [self._wait_command(queues), take] if self._idle else [take]
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        connection.send_packed_command(connection.pack_commands(commands))

    def _wait_command(self, queues: Collection[str]) -> tuple[object, ...]:
        if self._wait_refused:
            return ("BRPOP", "presend:nothing", _WAIT_SECONDS)  # ever empty
        # moves a message from the list's end to that same end: nothing changes, but it waits for one
        name = self._q_for_pri(next(queue for queue in self._queues_seen if queue in queues), 0)
        return ("BLMOVE", name, name, "RIGHT", "RIGHT", _WAIT_SECONDS)

    def _brpop_read(self, **options: Any) -> Any:
        if self._holder is None:
            return super()._brpop_read(**options)
        try:
            taken = self._holder.taken(self._read_answer())
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        self._idle = taken == []
        if not taken:
            raise Empty
        self._deliver(self._holder, taken)
        return True

    def _read_answer(self) -> Any:
        connection = self.client.connection
        try:
            if self._waited:
                self._read_waits_answer(connection)
            return self.client.parse_response(connection, "EVAL")
        except self.connection_errors:
            connection.disconnect()
            raise

    def _read_waits_answer(self, connection: Any) -> None:
        try:
            self.client.parse_response(connection, "BLMOVE")
            self._wait_refused = False
        except redis.ResponseError:  # Redis is full: a list cannot be waited for, but it can be emptied
            self._wait_refused = True

    def _deliver(self, holder: Holder, taken: Iterable[Held]) -> None:
        unwanted = []
        items_before, messages = self._items_held(), Counter[str]()
        for held in taken:
            queue = held.list.rsplit(self.sep, 1)[0]
            if queue not in self.active_queues:  # cancelled in the meantime
                unwanted.append(held.number)
                continue
            messages[queue] += 1
            self._queue_cycle.rotate(queue)
            self.connection._deliver(self._message(held, queue), queue)
            if held.number not in self.qos._delivered:  # nobody will acknowledge it
                holder.settle(held.number)
        if unwanted:
            holder.give_back(unwanted)
        for queue, items in self._items_held().items():
            if messages[queue]:
                came = items - items_before.get(queue, 0)
                self.items_each[queue] = max(1, -(-came // messages[queue]))

    def _items_held(self) -> dict[str, int]:
        held = self.items_held
        return {} if held is None else {queue: held(queue) for queue in self.active_queues}

    @staticmethod
    def _message(held: Held, queue: str) -> dict[str, Any]:
        message = read(held.element, queue)
        # the producer's own may come twice
        message["properties"]["delivery_tag"] = held.number
        if held.deaths:
            message["headers"] = (message.get("headers") or {}) | {DELIVERY_COUNT: held.deaths}
        return message


class Transport(kombu_redis.Transport):
    """The transport of ``redis://`` and ``rediss://``, once it is installed."""

    Channel = Channel
