"""A producer that has never heard of presend: Celery and kombu, set up as the README says.

Also a script: ``python producer.py BROKER_URL REDIS_URL`` reads a JSON list of [task, arguments] from
standard input, sends each and prints a JSON list of what ``.get()`` gave.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

QUEUE_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 100,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "presend.dead",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def producer(broker_url: str, redis_url: str) -> Celery:
    """The app of a recharge system or an SMS gateway."""
    app = Celery("producer", broker=broker_url, backend=redis_url)
    app.conf.update(
        task_default_exchange="",
        task_queues=[
            Queue(
                name,
                Exchange(""),
                routing_key=name,
                queue_arguments=QUEUE_ARGUMENTS,
            )
            for name in ("recharge", "sms")
        ],
        task_routes={"recharge.*": {"queue": "recharge"}, "sms.*": {"queue": "sms"}},
        broker_transport_options={"confirm_publish": True},
    )
    return app


def main() -> None:
    """Send what standard input says; print each answer and how long it took."""
    # an editable install leaves the migrations in site-packages
    worker = importlib.util.find_spec("worker")
    assert worker is None or worker.origin is None, "this producer must not see presend"
    assert importlib.util.find_spec("tasks") is None, "this producer must not see presend"
    app = producer(*sys.argv[1:3])
    answers: list[dict[str, Any]] = []
    for task, arguments in json.load(sys.stdin):
        started = time.monotonic()
        sent = app.send_task(task, kwargs=arguments)
        try:
            answer: dict[str, Any] = {"result": sent.get(timeout=float(sys.argv[3]))}
        except Exception as exc:  # noqa: BLE001 - it is the answer
            answer = {"raised": type(exc).__name__, "words": str(exc)}
        answers.append(answer | {"state": sent.state, "seconds": time.monotonic() - started})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
