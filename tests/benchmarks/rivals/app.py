"""The rivals' Celery app, tuned for it: late acknowledgement, no results, as much prefetched as is used.

``RIVAL``: ``batches`` (celery-batches: 1000 messages, or what came in 0.25 s) or ``each`` (a task a number).
``RIVAL_EVENTS`` is ``confirm`` (kombu waits for each) or ``transaction`` (one AMQP transaction a batch).
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery_batches import Batches
from kombu import Exchange, Queue

from tests.benchmarks.rivals import checking

_BATCH = 1000
_QUORUM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 100,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "presend.dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
_CONCURRENCY = int(os.environ.get("RIVAL_CONCURRENCY", "4"))
_IN_BATCHES = os.environ["RIVAL"] == "batches"
_REDIS = os.environ["PRESEND_BROKER_URL"].startswith("redis")

app = Celery("rival", broker=os.environ["PRESEND_BROKER_URL"])
app.conf.update(
    task_queues=[
        Queue("sms", Exchange(""), routing_key="sms", queue_arguments=None if _REDIS else _QUORUM),
    ],
    task_default_queue="sms",
    task_default_exchange="",
    task_acks_late=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=(_BATCH * (_CONCURRENCY + 1)) // _CONCURRENCY if _IN_BATCHES else 32,
    worker_concurrency=_CONCURRENCY,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


def _many(items: list[dict[str, Any]]) -> None:
    checking.settle(items)


app.task(_many, name="sms.recheck_many")

if _IN_BATCHES:

    @app.task(name="sms.recheck", base=Batches, flush_every=_BATCH, flush_interval=0.25)
    def recheck_batch(requests: list[Any]) -> None:
        """As many messages as came together."""
        checking.settle([request.kwargs for request in requests])

else:

    @app.task(name="sms.recheck")
    def recheck(**item: Any) -> None:
        """One message."""
        checking.settle([item])
