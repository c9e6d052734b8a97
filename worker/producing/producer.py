"""Sends tasks to the lanes' queues, as any producer may: Celery protocol 2, JSON, keyword arguments.

``presend submit`` and ``presend dead replay`` send with it. It needs no Celery app: a message is headers and
a JSON body, and the queues are the worker's own.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any, Self
from uuid import uuid4

import kombu
from amqp.exceptions import MessageNacked, PreconditionFailed
from kombu import Connection
from kombu.exceptions import OperationalError

from worker.errors import NotConfirmed, SettingsError
from worker.queues import TASKS, lane_queues

_CONNECT_SECONDS = 5.0
_CONFIRM_SECONDS = 30.0
"""A broker that is short of memory or disk takes no messages, and says nothing."""
_RETRY = {"max_retries": 4, "interval_start": 0.2, "interval_step": 0.4, "interval_max": 2.0}
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class Producer(contextlib.AbstractContextManager["Producer"]):
    """One connection to the broker; not thread-safe."""

    def __init__(self, broker_url: str) -> None:
        self._redis = broker_url.startswith("redis")
        self._connection: Any = Connection(
            broker_url,
            connect_timeout=_CONNECT_SECONDS,
            transport_options={} if self._redis else {"confirm_publish": True},
        )
        self._producer: Any = None

    def __enter__(self) -> Self:
        """Connect, and declare the queues as the worker does."""
        try:
            self._connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
            for queue in lane_queues(redis=self._redis):
                queue(self._connection.default_channel).declare()
            self._producer = kombu.Producer(self._connection, serializer="json", auto_declare=False)
        except PreconditionFailed as exc:
            self._connection.release()
            raise SettingsError(
                f"the broker has a queue of that name with other arguments ({exc.reply_text}): stop whoever "
                "declared it, empty and delete it, and use the producer recipe of the README"
            ) from exc
        except BaseException:
            self._connection.release()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the connection."""
        self._connection.release()

    def send(self, task: str, arguments: Mapping[str, Any], *, message_id: str | None = None) -> str:
        """Send one message and wait for the broker's confirm; return its id.

        A connection that broke is opened anew and the message sent again: it may then be in the queue twice,
        which the worker recognises by its key. ``NotConfirmed`` where the broker refuses it (a full queue).
        """
        message_id = message_id or str(uuid4())
        try:
            self._producer.publish(
                [[], dict(arguments), _EMBED],
                exchange="",
                routing_key=TASKS[task].lane.value,
                headers=_headers(task, message_id),
                correlation_id=message_id,
                reply_to="",
                delivery_mode=2,
                retry=True,
                retry_policy=_RETRY,
                confirm_timeout=_CONFIRM_SECONDS,
            )
        except OperationalError as exc:
            if isinstance(exc.__cause__, MessageNacked):  # a full queue, tried a few times
                raise NotConfirmed(f"the broker refused a message for {task}: its queue is full") from exc
            raise
        return message_id


def _headers(task: str, message_id: str) -> dict[str, Any]:
    """Celery's headers; the worker reads ``task``, ``id`` and ``ignore_result``, Flower shows the rest."""
    return {
        "lang": "py",
        "task": task,
        "id": message_id,
        "root_id": message_id,
        "parent_id": None,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "<not shown>",
        "origin": f"presend-{os.getpid()}@{socket.gethostname()}",
        # Nobody waits for it: the decision is in the event and the ledger.
        "ignore_result": True,
    }
